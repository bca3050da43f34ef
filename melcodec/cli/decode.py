"""``melcodec decode``: codes to a mel, sound or a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _live as live
from melcodec.cli import _options as options
from melcodec.cli import _runtime as runtimes
from melcodec.cli._batch import Tally, recipe, say_unknown, sound_of
from melcodec.cli._console import say
from melcodec.cli._mlc import CodesFiles, PriorOption, check_prior_is_used
from melcodec.cli._standard import is_standard, output_file
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.vocoder.choice import DEFAULT_VOCODER

if TYPE_CHECKING:
    import numpy as np

    from melcodec.store.codes import Codes

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN",
        help="Codes files or folders of them; - is standard input. With --id, a folder that preprocess wrote.",
        show_default=False,
    ),
]
Id = Annotated[str | None, typer.Option("--id", help="Decode this utterance of a folder that preprocess wrote.")]
Suffix = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="Format of outputs without a suffix: npy, npz, safetensors (mel), wav, flac, ogg, mp3 (sound), png, svg.",
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
    typer.Option(
        "--from", help="Format of the codes on standard input, as encode -o - writes them: jsonl or raw.", show_default=False
    ),
]
Codebooks = Annotated[
    int | None,
    typer.Option(min=1, help="Decode only this many codebooks of a residual quantizer, the first ones: coarser sound."),
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

    Without -o the mel is written beside the codes. A mel is (80, T) float32, natural log power. Streams of codes are decoded
    while they arrive: melcodec encode - -o - | melcodec decode - -o - gives a 16-bit mono wav.
    """
    form = Form(normalized, codebooks, num_samples)
    streams = live.is_stream(inputs, given)
    runtimes.check_runtime(runtime, device, stream=streams, codebooks=codebooks is not None)
    if streams:
        decode_live(output, to, (checkpoint, device, vocoder), form, any_checkpoint, overwrite)
        return
    jobs, suffix = plan(inputs, output, to, wanted)
    form.check(jobs)
    check_prior_is_used(prior, {job.source.suffix.lower() for job in jobs.jobs})
    tally = Tally(jobs)
    todo = tally.pending(overwrite, recipe("decode", checkpoint, **form.settings(suffix, vocoder)))

    from melcodec.store.reader import read_codes

    codec = runtimes.load_codec(checkpoint, device, vocoder, runtime)
    files = CodesFiles(prior, codec.fingerprint)
    if any(job.source.suffix.lower() == options.MLC for job in todo):
        files.check_prior()
    unknown: list[str] = []

    def work(job: options.Job) -> str:
        codes = files.load(job.source) if wanted is None else read_codes(job.source, wanted)
        if not any_checkpoint:
            codec.check_fingerprint(codes, str(job.source))
            unknown.extend([] if codes.fingerprint else [str(job.source)])
        tally.note(job)
        return write(codec, codes, job.target, form)

    tally.each(todo, "decoding", work)
    say_unknown(unknown)
    tally.finish("files decoded")


@dataclass(frozen=True)
class Form:
    """What is written of codes, beside what the suffix of the file says.

    Args:
        normalized: mels are in the model's domain.
        codebooks: only the first so many are decoded; None: all.
        num_samples: length of the sound, where the codes do not have it.
    """

    normalized: bool = False
    codebooks: int | None = None
    num_samples: int | None = None

    def check(self, jobs: options.Jobs) -> None:
        """Raise MelcodecError when an option would do nothing for these jobs."""
        from melcodec.formats.arrays import SUFFIXES

        if self.normalized and jobs.jobs[0].target.suffix.lower() not in SUFFIXES:
            raise MelcodecError("--normalized is for mels; sound and pictures are made from the mel in natural log power")
        if self.num_samples and not jobs.single:
            raise MelcodecError("--num-samples is for a single file", ".npz and .safetensors codes know their own length")

    def settings(self, suffix: str, vocoder: str) -> dict[str, Any]:
        """What decides outputs with ``suffix``, beside codes and checkpoint."""
        from melcodec.audio.io import WRITERS

        settings: dict[str, Any] = {"vocoder": sound_of(vocoder)} if suffix in WRITERS else {"normalized": self.normalized}
        return settings | ({"codebooks": self.codebooks} if self.codebooks else {})


def plan(inputs: list[Path], output: Path | None, to: str | None, wanted: str | None) -> tuple[options.Jobs, str]:
    """What to decode into which files, and the suffix of those that are not named; ``wanted`` is an utterance of a store."""
    from melcodec.formats.arrays import SUFFIXES

    suffix, known = f".{to}" if to else ".npy", written()
    if suffix not in known:
        raise MelcodecError(f"--to {to}: not a format", f"use one of {', '.join(name[1:] for name in known)}")
    if wanted is not None:
        return one_job(inputs, output, known, suffix), suffix
    refuse_stores(inputs)
    # beside the codes a mel must not replace them
    name = suffix if output is not None or suffix not in SUFFIXES else f".mel{suffix}"
    return options.plan_jobs(inputs, output, known, name, "codes"), suffix


def written() -> tuple[str, ...]:
    """The suffixes of what can be written: mels, sounds and pictures."""
    from melcodec.audio.io import WRITERS
    from melcodec.formats.arrays import SUFFIXES
    from melcodec.plots import FORMATS

    return (*SUFFIXES, *WRITERS, *FORMATS)


def decode_live(
    output: Path | None, to: str | None, model: tuple[str, str, str], form: Form, any_checkpoint: bool, overwrite: bool
) -> None:
    """Decode a stream of codes on standard input; ``model``: checkpoint, device and vocoder."""
    from melcodec.codec import Codec
    from melcodec.files import check_output

    if output is None:
        raise MelcodecError("standard input has no name after which to name the output", "give a file with -o")
    if is_standard(output):
        if form.codebooks:
            raise MelcodecError("--codebooks is not for a stream of sound", "give a file with -o")
        if form.normalized or to not in (None, live.WAV, live.RAW):
            raise MelcodecError("a stream of codes becomes a stream of sound", "--to wav or --to raw; or give a file with -o")
        live.decode_stream(Codec.from_pretrained(*model), to or live.WAV, any_checkpoint, form.num_samples)
        return
    options.check_suffix(output, written())
    check_output(output, overwrite)
    codec = Codec.from_pretrained(*model)
    say(f"{output}: {write(codec, live.stored_stream(codec, any_checkpoint), output, form)}")


def refuse_stores(inputs: list[Path]) -> None:
    """Say what to do with a folder of melcodec preprocess, which holds no codes files."""
    from melcodec.store.layout import is_store

    for folder in inputs:
        if is_store(folder):
            raise MelcodecError(
                f"{folder}: a folder that melcodec preprocess wrote",
                f"decode one utterance with --id, or export the codes first: melcodec corpus export {folder} --to npy -o codes/",
            )


def one_job(inputs: list[Path], output: Path | None, known: tuple[str, ...], suffix: str) -> options.Jobs:
    """The job of --id: one folder, and one file to write."""
    if len(inputs) != 1 or is_standard(inputs[0]) or output is None or output.is_dir():
        raise MelcodecError("--id takes one folder of codes and one output file", "melcodec decode codes/ --id a/1 -o x.wav")
    output = output_file(output, suffix)
    options.check_suffix(output, known)
    return options.Jobs([options.Job(inputs[0], output)], None)


def write(codec: runtimes.AnyCodec, codes: Codes, target: Path, form: Form) -> str:
    """Write a mel, sound or a picture, by the suffix of ``target``; returns what was written, in words."""
    from melcodec.audio.io import WRITERS
    from melcodec.formats.arrays import SUFFIXES

    suffix = target.suffix.lower()
    if suffix in WRITERS:
        return write_sound(codec, codes, target, form)
    return (write_mel if suffix in SUFFIXES else write_picture)(codec, codes, target, form)


def write_mel(codec: runtimes.AnyCodec, codes: Codes, target: Path, form: Form) -> str:
    """Write the mel; returns its shape in words."""
    from melcodec.formats.mels import save_mel

    length = form.num_samples or codes.num_samples
    mel = runtimes.decoded_mel(codec, codes.codes, length, form.normalized, form.codebooks)
    save_mel(target, mel, form.normalized)
    return f"mel {mel.shape[0]} x {mel.shape[1]} frames"


def write_sound(codec: runtimes.AnyCodec, codes: Codes, target: Path, form: Form = Form()) -> str:
    """Write the sound; returns its length in words."""
    from melcodec.audio.io import save_blocks

    count = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for block in runtimes.decoded_blocks(codec, codes.codes, form.num_samples or codes.num_samples, form.codebooks):
            count += len(block)
            yield block

    save_blocks(target, counted(), codec.sample_rate)
    return f"{count / codec.sample_rate:.2f} s at {codec.sample_rate} Hz"


def write_picture(codec: runtimes.AnyCodec, codes: Codes, target: Path, form: Form) -> str:
    """Draw the mel."""
    from melcodec.plots import Scale, plot_mel, save_figure

    length = form.num_samples or codes.num_samples
    mel = runtimes.decoded_mel(codec, codes.codes, length, codebooks=form.codebooks)
    title = f"{mel.shape[1]} frames from {codes.codes.shape[1]} codes"
    figure = plot_mel(mel, Scale.of(codec.mel_config), title)
    save_figure(figure, target, overwrite=True)
    return "picture of the decoded mel"
