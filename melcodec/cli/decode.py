"""``melcodec decode``: codes to a mel, sound or a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _live as live
from melcodec.cli import _options as options
from melcodec.cli import _runtime as runtimes
from melcodec.cli._batch import Tally, recipe, say_unknown
from melcodec.cli._console import progress, say
from melcodec.cli._mlc import MLC, CodesFiles, PriorOption, check_prior_is_used
from melcodec.cli._standard import is_standard, output_file
from melcodec.errors import MelcodecError, from_os
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.vocoder.choice import DEFAULT_VOCODER

if TYPE_CHECKING:
    import numpy as np

    from melcodec.store.codes import Codes

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN...",
        help="Codes files or folders of them; - is standard input. With --id, a folder that preprocess wrote.",
        show_default=False,
    ),
]
Id = Annotated[str | None, typer.Option("--id", help="Decode this utterance of a folder that preprocess wrote.")]
Suffix = Annotated[
    str | None,
    typer.Option(
        "--to", help="Format where the output has no suffix: npy, npz, safetensors (mel), wav, flac, ogg, mp3 (sound), png, svg."
    ),
]
Normalized = Annotated[
    bool,
    typer.Option(
        "--normalized",
        help="Write the mel divided by the norms of its bands, as the model sees it, instead of natural log power.",
    ),
]
NumSamples = Annotated[
    int | None, typer.Option(min=1, help="Length of the sound in samples, where the codes file does not have it.")
]
Given = Annotated[
    str | None,
    typer.Option("--from", help="raw: standard input is what encode -o - --to raw writes.", show_default=False),
]
Codebooks = Annotated[
    int | None, typer.Option(min=1, help="Decode only the first so many codebooks of a residual quantizer: coarser.")
]


def decode(
    inputs: Inputs,
    output: options.OptionalOutput = None,
    to: Suffix = None,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    device: options.Device = "auto",
    runtime: runtimes.Runtime = runtimes.TORCH,
    normalized: Normalized = False,
    num_samples: NumSamples = None,
    codebooks: Codebooks = None,
    any_checkpoint: options.AnyCheckpoint = False,
    prior: PriorOption = None,
    wanted: Id = None,
    given: Given = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Turn codes back into a mel, sound or a picture, by the output's suffix.

    Without -o the mel is written beside the codes. A mel is (80, T) float32, natural log power. Codes that melcodec
    encode -o - writes become sound as they come, with -o - too: 16-bit and mono.
    """
    streams = live.is_stream(inputs, given)
    runtimes.check_runtime(runtime, device, stream=streams, codebooks=codebooks is not None)
    if streams:
        decode_live(output, to, (checkpoint, device, vocoder), num_samples, any_checkpoint, normalized, overwrite)
        return
    from melcodec.audio.io import WRITERS
    from melcodec.formats.arrays import SUFFIXES
    from melcodec.plots import FORMATS

    suffix, known = f".{to}" if to else ".npy", (*SUFFIXES, *WRITERS, *FORMATS)
    if suffix not in known:
        raise MelcodecError(f"--to {to}: not a format", f"use one of {', '.join(name[1:] for name in known)}")
    # beside the codes a mel must not replace them
    name = suffix if output is not None or suffix not in SUFFIXES else f".mel{suffix}"
    if wanted is None:
        refuse_stores(inputs)
        jobs = options.plan_jobs(inputs, output, known, name, "codes")
    else:
        jobs = one_job(inputs, output, known, suffix)
    if normalized and jobs.jobs[0].target.suffix.lower() not in SUFFIXES:
        raise MelcodecError("--normalized is for mels; sound and pictures are made of the natural one")
    if num_samples and not jobs.single:
        raise MelcodecError("--num-samples is for a single file", ".npz and .safetensors codes know their own length")
    check_prior_is_used(prior, {job.source.suffix.lower() for job in jobs.jobs})
    tally = Tally(jobs)
    settings: dict[str, Any] = {"vocoder": vocoder} if suffix in WRITERS else {"normalized": normalized}
    settings |= {"codebooks": codebooks} if codebooks else {}
    todo = tally.pending(overwrite, recipe("decode", checkpoint, **settings))

    from melcodec.store.reader import read_codes

    codec = runtimes.load_codec(checkpoint, device, vocoder, runtime)
    files = CodesFiles(prior, codec.fingerprint)
    if any(job.source.suffix.lower() == MLC for job in todo):
        files.check_prior()
    unknown: list[str] = []
    with progress("decoding") as update:
        for index, job in enumerate(todo, start=1):
            try:
                codes = files.load(job.source) if wanted is None else read_codes(job.source, wanted)
                if not any_checkpoint:
                    codec.check_fingerprint(codes, str(job.source))
                    unknown += [] if codes.fingerprint else [str(job.source)]
                length = num_samples or codes.num_samples
                tally.note(job)
                said = writer(job.target, normalized, codebooks)(codec, codes, length, job.target)
                tally.done += 1
                if jobs.single:
                    say(f"{job.target}: {said}")
            except (MelcodecError, OSError) as error:
                tally.fail(job.source, from_os(error) if isinstance(error, OSError) else error)
            update(index, len(todo))
    say_unknown(unknown)
    if not jobs.single:
        tally.finish("files decoded")


def decode_live(
    output: Path | None,
    to: str | None,
    model: tuple[str, str, str],
    length: int | None,
    any_checkpoint: bool,
    normalized: bool,
    overwrite: bool,
) -> None:
    """Decode a stream of codes on standard input; ``model``: checkpoint, device and vocoder."""
    from melcodec.audio.io import WRITERS
    from melcodec.codec import Codec
    from melcodec.files import check_output
    from melcodec.formats.arrays import SUFFIXES
    from melcodec.plots import FORMATS

    if output is None:
        raise MelcodecError("standard input has no name after which to name the output", "give a file with -o")
    if is_standard(output):
        if normalized or to not in (None, live.WAV, live.RAW):
            raise MelcodecError("a stream of codes becomes a stream of sound", "--to wav or --to raw; or give a file with -o")
        live.decode_stream(Codec.from_pretrained(*model), to or live.WAV, any_checkpoint, length)
        return
    options.check_suffix(output, (*SUFFIXES, *WRITERS, *FORMATS))
    check_output(output, overwrite)
    codec = Codec.from_pretrained(*model)
    codes = live.stored_stream(codec, any_checkpoint)
    say(f"{output}: {writer(output, normalized)(codec, codes, length or codes.num_samples, output)}")


def refuse_stores(inputs: list[Path]) -> None:
    """Say what to do with a folder of melcodec preprocess, which holds no codes files."""
    from melcodec.store.layout import is_store

    for folder in inputs:
        if is_store(folder):
            raise MelcodecError(
                f"{folder}: a folder of melcodec preprocess",
                "decode one utterance with --id, or all of what melcodec corpus export --to npy makes of it",
            )


def one_job(inputs: list[Path], output: Path | None, known: tuple[str, ...], suffix: str) -> options.Jobs:
    """The job of --id: one folder, and one file to write."""
    if len(inputs) != 1 or output is None or output.is_dir():
        raise MelcodecError("--id takes one folder of codes and one output file", "melcodec decode codes/ --id a/1 -o x.wav")
    output = output_file(output, suffix)
    options.check_suffix(output, known)
    return options.Jobs([options.Job(inputs[0], output)], None)


def writer(
    target: Path, normalized: bool, codebooks: int | None = None
) -> Callable[[runtimes.AnyCodec, Codes, int | None, Path], str]:
    """How to write ``target``, by its suffix."""
    from melcodec.audio.io import WRITERS
    from melcodec.formats.arrays import SUFFIXES

    suffix = target.suffix.lower()
    if suffix in SUFFIXES:
        return partial(write_mel, normalized=normalized, codebooks=codebooks)
    return partial(write_sound if suffix in WRITERS else write_picture, codebooks=codebooks)


def write_mel(
    codec: runtimes.AnyCodec,
    codes: Codes,
    num_samples: int | None,
    target: Path,
    normalized: bool = False,
    codebooks: int | None = None,
) -> str:
    """Write the mel; say its shape."""
    from melcodec.formats.mels import save_mel

    mel = runtimes.decoded_mel(codec, codes.codes, num_samples, normalized, codebooks)
    save_mel(target, mel, normalized)
    return f"mel {mel.shape[0]} x {mel.shape[1]} frames"


def write_sound(
    codec: runtimes.AnyCodec, codes: Codes, num_samples: int | None, target: Path, codebooks: int | None = None
) -> str:
    """Write the sound; say its length."""
    from melcodec.audio.io import save_blocks

    written = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal written
        for block in runtimes.decoded_blocks(codec, codes.codes, num_samples, codebooks):
            written += len(block)
            yield block

    save_blocks(target, counted(), codec.sample_rate)
    return f"{written / codec.sample_rate:.2f} s at {codec.sample_rate} Hz"


def write_picture(
    codec: runtimes.AnyCodec, codes: Codes, num_samples: int | None, target: Path, codebooks: int | None = None
) -> str:
    """Draw the mel; say its length."""
    from melcodec.plots import Scale, plot_mel, save_figure

    mel = runtimes.decoded_mel(codec, codes.codes, num_samples, codebooks=codebooks)
    title = f"{mel.shape[1]} frames from {codes.codes.shape[1]} codes"
    figure = plot_mel(mel, Scale.of(codec.mel_config), title)
    save_figure(figure, target, overwrite=True)
    return "picture of the decoded mel"
