"""``melcodec roundtrip``: hear what the codes keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say
from melcodec.cli.decode import write_sound
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.vocoder.choice import DEFAULT_VOCODER

Input = Annotated[str, typer.Argument(metavar="IN", help="Audio file; - is standard input.", show_default=False)]


def roundtrip(
    source: Input,
    output: options.Output,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Encode and decode in one go: hear what the codes keep of a file."""
    from melcodec.audio.io import STDIN, WRITERS
    from melcodec.files import check_output

    options.check_suffix(output, WRITERS)
    if source != STDIN:
        options.check_not_read([output], [Path(source)])
    check_output(output, overwrite)

    from melcodec.codec import Codec

    codec = Codec.from_pretrained(checkpoint, device, vocoder)
    codes = codec.encode_file(source)
    said = write_sound(codec, codes, codes.num_samples, output)
    say(f"{output}: {said} from {codes.codes.shape[-1]} codes, {codec.bitrate:.0f} bit/s")
