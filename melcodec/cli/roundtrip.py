"""``melcodec roundtrip``: hear what the codes keep."""

from __future__ import annotations

from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say

Input = Annotated[str, typer.Argument(metavar="IN", help="Audio file; - is standard input.", show_default=False)]


def roundtrip(
    source: Input,
    output: options.Output,
    checkpoint: options.Checkpoint = options.DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Encode and decode in one go: hear what the codes keep of a file."""
    from melcodec.audio.io import save
    from melcodec.files import check_output

    check_output(output, overwrite)

    from melcodec.codec import Codec

    codec = Codec.from_pretrained(checkpoint, device)
    codes = codec.encode_file(source)
    wav = codec.decode(codes.codes, codes.num_samples)[0].cpu().numpy()
    save(output, wav, codec.sample_rate, overwrite)
    number = codes.codes.shape[-1]
    say(f"{output}: {len(wav) / codec.sample_rate:.2f} s from {number} codes, {codec.bitrate:.0f} bit/s")
