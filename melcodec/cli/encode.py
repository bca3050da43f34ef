"""``melcodec encode``: sound to codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcodec.cli import _live as live
from melcodec.cli import _options as options
from melcodec.cli import _runtime as runtimes
from melcodec.cli._batch import Tally, recipe
from melcodec.cli._console import say
from melcodec.cli._mlc import CodesFiles, PriorOption, check_prior_is_used
from melcodec.cli._standard import is_standard
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from melcodec.store.codes import Codes

Suffix = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="Format of outputs without a suffix: npy (default), npz, safetensors or mlc; with -o - also jsonl (default) or raw.",
    ),
]
InputRate = Annotated[
    int | None,
    typer.Option("--input-rate", help="Sample rate in Hz of raw 16-bit little-endian mono samples on standard input."),
]
PadTo = Annotated[
    int,
    typer.Option(
        "--pad-to", min=0, help="Pad the sound with zeros to this many samples first, as XTTS does in a batch; 0: do not pad."
    ),
]

BATCH_SIZE = 32


def encode(
    inputs: options.Inputs,
    output: options.OptionalOutput = None,
    to: Suffix = None,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
    runtime: runtimes.Runtime = runtimes.TORCH,
    pad_to: PadTo = 0,
    prior: PriorOption = None,
    input_rate: InputRate = None,
    batch_size: options.BatchSize = BATCH_SIZE,
    num_workers: options.NumWorkers = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Turn sound into codes: one file, a folder whose tree is kept, or the utterances of a list.

    .npz and .safetensors hold codes (Q, N), the length, the source's rate and the checkpoint's fingerprint, so that decoding
    crops exactly and refuses another checkpoint. .npy holds the codes alone; in a folder, the hidden file .melcodec.jsonl
    holds the rest. .mlc files are the smallest: entropy-coded without loss by a prior, which is a language model over codes.

    With -o -, codes are written to standard output while the sound arrives, for example from a microphone: as JSON lines, or as
    raw 16-bit numbers.
    """
    from melcodec.formats.arrays import SUFFIXES, array_suffix

    streams = is_standard(output) and to in (None, live.JSONL, live.RAW)
    runtimes.check_runtime(runtime, device, stream=streams, batch_size=batch_size != BATCH_SIZE, num_workers=num_workers != 0)
    if streams:
        encode_live(inputs, to, (checkpoint, device), input_rate, bool(pad_to or prior))
        return
    if input_rate is not None:
        raise MelcodecError("--input-rate is for streams", "melcodec encode - -o - --input-rate 16000")
    to = to or "npy"
    if f".{to}" != options.MLC:
        array_suffix(Path(f"codes.{to}"))
    jobs = options.plan_jobs(inputs, output, (*SUFFIXES, options.MLC), f".{to}", "audio")
    check_prior_is_used(prior, {job.target.suffix.lower() for job in jobs.jobs})
    if pad_to and not jobs.single:
        raise MelcodecError("--pad-to is for a single file")
    tally = Tally(jobs)
    todo = tally.pending(overwrite, recipe("encode", checkpoint, **({"prior": prior} if f".{to}" == options.MLC else {})))

    codec = runtimes.load_codec(checkpoint, device, runtime=runtime)
    files = CodesFiles(prior, codec.fingerprint)
    if any(job.target.suffix.lower() == options.MLC for job in todo):
        files.check_prior()
    if jobs.single:
        encode_one(codec, files, todo[0], pad_to, overwrite)
    else:
        encoded = runtimes.encoded_jobs(codec, runtime, todo, batch_size, num_workers)
        encode_many(encoded, files, tally, todo)


def encode_live(inputs: list[Path], to: str | None, model: tuple[str, str], input_rate: int | None, more: bool) -> None:
    """Encode one input to standard output as it comes; ``model``: checkpoint and device; ``more``: other options are given."""
    if len(inputs) != 1 or inputs[0].is_dir() or more:
        raise MelcodecError("-o - takes one file or standard input, without --pad-to and --prior")

    from melcodec.codec import Codec

    live.encode_stream(Codec.from_pretrained(*model), str(inputs[0]), to or live.JSONL, input_rate)


def encode_one(codec: runtimes.AnyCodec, files: CodesFiles, job: options.Job, pad_to: int, overwrite: bool) -> None:
    """Encode one file, and say what became of it."""
    codes = codec.encode_file(str(job.source), pad_to)
    files.save(job.target, codes, overwrite)
    seconds = (codes.num_samples or 0) / codec.sample_rate
    suffix = job.target.suffix.lower()
    rate = 8 * job.target.stat().st_size / seconds if suffix == options.MLC else codec.bitrate
    say(f"{job.target}: {codes.codes.shape[-1]} codes for {seconds:.2f} s ({rate:.0f} bit/s)")
    if suffix == ".npy":
        say("note: .npy holds neither the length nor the checkpoint's fingerprint; .npz and .safetensors do")


def encode_many(encoded: Iterator[Codes | MelcodecError], files: CodesFiles, tally: Tally, todo: list[options.Job]) -> None:
    """Write what is ``encoded`` of each of ``todo``, in their order."""
    from melcodec.store.codes import file_facts

    def save(job: options.Job) -> str:
        result = next(encoded)
        if isinstance(result, MelcodecError):
            raise result
        tally.note(job, file_facts(result))
        files.save(job.target, result, True)
        return ""

    tally.each(todo, "encoding", save)
    tally.finish("files encoded")
