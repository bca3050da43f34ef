"""``melcodec roundtrip``: encode and decode in one step."""

from __future__ import annotations

from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._batch import Tally, recipe, sound_of
from melcodec.cli.decode import write_sound
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.vocoder.choice import DEFAULT_VOCODER

Suffix = Annotated[str, typer.Option("--to", help="Format of outputs without a suffix: wav, flac, ogg or mp3.")]


def roundtrip(
    inputs: options.Inputs,
    output: options.Output,
    to: Suffix = "wav",
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Encode and decode in one step, to hear how much the codes preserve: one file, a folder whose tree is kept, or a list."""
    from melcodec.audio.io import WRITERS, Span

    if f".{to}" not in WRITERS:
        raise MelcodecError(f"--to {to}: not a format of sound", f"use one of {', '.join(name[1:] for name in WRITERS)}")
    jobs = options.plan_jobs(inputs, output, WRITERS, f".{to}", "audio")
    tally = Tally(jobs)
    todo = tally.pending(overwrite, recipe("roundtrip", checkpoint, vocoder=sound_of(vocoder)))

    from melcodec.codec import Codec

    codec = Codec.from_pretrained(checkpoint, device, vocoder)

    def work(job: options.Job) -> str:
        item = job.whole
        codes = codec.encode_file(item.path, 0, Span(item.start, item.duration), item.member)
        tally.note(job)
        return f"{write_sound(codec, codes, job.target)} from {codes.codes.shape[-1]} codes, {codec.bitrate:.0f} bit/s"

    tally.each(todo, "encoding and decoding", work)
    tally.finish("files encoded and decoded")
