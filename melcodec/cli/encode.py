"""``melcodec encode``: sound to codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli import _live as live
from melcodec.cli import _options as options
from melcodec.cli import _runtime as runtimes
from melcodec.cli._batch import Tally, recipe
from melcodec.cli._console import progress, say
from melcodec.cli._mlc import MLC, CodesFiles, PriorOption, check_prior_is_used
from melcodec.cli._standard import is_standard
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT

Suffix = Annotated[
    str | None,
    typer.Option(
        "--to", help="Format where the output has no suffix: npy, npz, safetensors, mlc; for -o - also jsonl (its default), raw."
    ),
]
InputRate = Annotated[
    int | None,
    typer.Option("--input-rate", help="Hz of raw 16-bit little-endian mono samples on standard input, which has no header."),
]
PadTo = Annotated[
    int,
    typer.Option("--pad-to", min=0, help="Encode as XTTS does in a batch whose longest item has this many samples; 0: alone."),
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
    crops exactly and refuses another checkpoint. .npy holds the codes alone; in a folder, a hidden list knows the rest. .mlc is
    entropy-coded with a prior: the smallest, and lossless.

    With -o - one input, such as a microphone on standard input, gives its codes to standard output as they come: JSON lines, or
    raw 16-bit numbers.
    """
    from melcodec.formats.arrays import SUFFIXES, array_suffix

    streams = is_standard(output) and to in (None, live.JSONL, live.RAW)
    runtimes.check_runtime(runtime, device, stream=streams, batch_size=batch_size != BATCH_SIZE, num_workers=num_workers != 0)
    if streams:
        if len(inputs) != 1 or inputs[0].is_dir() or pad_to or prior:
            raise MelcodecError("-o - takes one file or standard input, without --pad-to and --prior")

        from melcodec.codec import Codec

        live.encode_stream(Codec.from_pretrained(checkpoint, device), str(inputs[0]), to or live.JSONL, input_rate)
        return
    if input_rate is not None:
        raise MelcodecError("--input-rate is for streams", "melcodec encode - -o - --input-rate 16000")
    to = to or "npy"
    if f".{to}" != MLC:
        array_suffix(Path(f"codes.{to}"))
    jobs = options.plan_jobs(inputs, output, (*SUFFIXES, MLC), f".{to}", "audio")
    check_prior_is_used(prior, {job.target.suffix.lower() for job in jobs.jobs})
    if pad_to and not jobs.single:
        raise MelcodecError("--pad-to is for a single file")
    tally = Tally(jobs)
    todo = tally.pending(overwrite, recipe("encode", checkpoint, **({"prior": prior} if f".{to}" == MLC else {})))

    from melcodec.store.codes import file_facts

    codec = runtimes.load_codec(checkpoint, device, runtime=runtime)
    files = CodesFiles(prior, codec.fingerprint)
    if any(job.target.suffix.lower() == MLC for job in todo):
        files.check_prior()
    if jobs.single:
        codes = codec.encode_file(str(todo[0].source), pad_to)
        files.save(todo[0].target, codes, overwrite)
        seconds = (codes.num_samples or 0) / codec.sample_rate
        coded = todo[0].target.suffix.lower() == MLC
        rate = 8 * todo[0].target.stat().st_size / seconds if coded else codec.bitrate
        say(f"{todo[0].target}: {codes.codes.shape[-1]} codes for {seconds:.2f} s ({rate:.0f} bit/s)")
        if todo[0].target.suffix.lower() == ".npy":
            say("note: .npy holds neither the length nor the checkpoint's fingerprint; .npz and .safetensors do")
        return
    encoded = runtimes.encoded_jobs(codec, runtime, todo, batch_size, num_workers)
    with progress("encoding") as update:
        for index, (job, item) in enumerate(zip(todo, encoded, strict=True), start=1):
            try:
                if isinstance(item, MelcodecError):
                    raise item
                tally.note(job, file_facts(item))
                files.save(job.target, item, True)
                tally.done += 1
            except MelcodecError as error:
                tally.fail(job.source, error)
            update(index, len(todo))
    tally.finish("files encoded")
