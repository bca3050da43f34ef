"""``melcodec encode``: sound to codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._batch import Tally, recipe
from melcodec.cli._console import progress, say
from melcodec.cli._mlc import MLC, CodesFiles, PriorOption, check_prior_is_used
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT

Suffix = Annotated[str, typer.Option("--to", help="Format where the output has no suffix: npy, npz, safetensors or mlc.")]
PadTo = Annotated[
    int,
    typer.Option("--pad-to", min=0, help="Encode as XTTS does in a batch whose longest item has this many samples; 0: alone."),
]


def encode(
    inputs: options.Inputs,
    output: options.OptionalOutput = None,
    to: Suffix = "npy",
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
    pad_to: PadTo = 0,
    prior: PriorOption = None,
    batch_size: options.BatchSize = 32,
    num_workers: options.NumWorkers = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Turn sound into codes: one file, a folder whose tree is kept, or the utterances of a list.

    .npz and .safetensors hold codes (Q, N), the length, the source's rate and the checkpoint's fingerprint, so that decoding
    crops exactly and refuses another checkpoint. .npy holds the codes alone; in a folder, a hidden list knows the rest. .mlc is
    entropy-coded with a prior: the smallest, and lossless.
    """
    from melcodec.formats.arrays import SUFFIXES, array_suffix

    if f".{to}" != MLC:
        array_suffix(Path(f"codes.{to}"))
    jobs = options.plan_jobs(inputs, output, (*SUFFIXES, MLC), f".{to}", "audio")
    check_prior_is_used(prior, {job.target.suffix.lower() for job in jobs.jobs})
    if pad_to and not jobs.single:
        raise MelcodecError("--pad-to is for a single file")
    tally = Tally(jobs)
    todo = tally.pending(overwrite, recipe("encode", checkpoint, **({"prior": prior} if f".{to}" == MLC else {})))

    from melcodec.codec import Codec
    from melcodec.corpus.files import encode_files
    from melcodec.store.codes import file_facts

    codec = Codec.from_pretrained(checkpoint, device)
    files = CodesFiles(prior, codec.fingerprint)
    if any(job.target.suffix.lower() == MLC for job in todo):
        _ = files.prior  # a prior that is missing is one error, not one for every file
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
    encoded = encode_files(codec, [job.whole for job in todo], batch_size, num_workers)
    with progress("encoding") as update:
        for index, (job, item) in enumerate(zip(todo, encoded, strict=True), start=1):
            try:
                if isinstance(item.result, MelcodecError):
                    raise item.result
                tally.note(job, file_facts(item.result))
                files.save(job.target, item.result, True)
                tally.done += 1
            except MelcodecError as error:
                tally.fail(job.source, error)
            update(index, len(todo))
    tally.finish("files encoded")
