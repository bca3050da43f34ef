"""Options that several commands share, and the rules for where outputs go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer

from melcodec.errors import MelcodecError
from melcodec.walk import Found, walk

Checkpoint = Annotated[str, typer.Option("--checkpoint", "-c", help="Checkpoint file, or the name of a shipped one.")]
Vocoder = Annotated[
    str,
    typer.Option(
        help="What makes sound: griffin-lim, a file or run folder of melcodec vocoder train, or a .toml file with settings."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", "-f", help="Replace outputs that exist.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.")]
OptionalOutput = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write.")]
AnyCheckpoint = Annotated[bool, typer.Option("--any-checkpoint", help="Decode codes that another checkpoint made.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Files read ahead and processed together.")]
NumWorkers = Annotated[int, typer.Option(min=1, help="Threads that read files.")]


@dataclass(frozen=True)
class Job:
    """One input and where its output goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Jobs:
    """What to do.

    Args:
        folder: the output folder when there are many, None for a single file.
        found: what else lies in the input folders.
        wanted: what the input folders were looked through for: ``audio`` or ``codes``.
    """

    jobs: list[Job]
    folder: Path | None
    found: Found = field(default_factory=Found)
    wanted: str = "audio"

    @property
    def single(self) -> bool:
        """Whether this is one file, whose failure is the command's."""
        return self.folder is None and len(self.jobs) == 1


def plan_jobs(
    inputs: Sequence[Path], output: Path | None, suffixes: Collection[str], suffix: str, wanted: Literal["audio", "codes"]
) -> Jobs:
    """Decide which file goes where.

    One file and an output with one of ``suffixes``: just that. Otherwise the output is a folder: a file's output is
    named after it, and a folder's tree is kept. Without an output, outputs stand beside their inputs.

    Args:
        suffix: of outputs whose name is not given, such as ``.npy`` or ``.mel.npy``.
        wanted: the files to take from a folder.

    Raises:
        MelcodecError: a folder holds nothing, one output file is named for many inputs, or an output would be an input or
            another output.
    """
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if single and output is not None and not output.is_dir() and output.suffix:
        check_suffix(output, suffixes)
        check_not_read([output], inputs)
        return Jobs([Job(inputs[0], output)], None)
    if not single and output is not None and not output.is_dir() and output.suffix.lower() in suffixes:
        raise MelcodecError(
            f"{output}: one file cannot hold what many inputs give", f"give a folder, as -o {output.with_suffix('')}"
        )
    jobs: list[Job] = []
    others = Found()
    for item in inputs:
        if not item.is_dir():
            if str(item) == "-":
                raise MelcodecError("standard input has no name to call the output after", "give a file with -o")
            jobs.append(Job(item, (output or item.parent) / (item.stem + suffix)))
            continue
        found = walk(item, wanted_files(wanted))
        if not found.files:
            found.checked()
            raise MelcodecError(f"{item}: no {wanted} in this folder", found.not_taken(wanted) or None)
        jobs += [Job(path, (output or item) / path.relative_to(item).with_name(path.stem + suffix)) for path in found.files]
        others.add(found)
    targets: dict[Path, Path] = {}
    for job in jobs:
        if job.target in targets:
            raise MelcodecError(
                f"{targets[job.target]} and {job.source} would both be written to {job.target}", "rename one of them"
            )
        targets[job.target] = job.source
    check_not_read(list(targets), [job.source for job in jobs])
    return Jobs(jobs, None if single else output, others, wanted)


def wanted_files(wanted: Literal["audio", "codes"]) -> Callable[[Path], bool]:
    """Which files of a folder are taken."""
    if wanted == "audio":
        from melcodec.audio.io import is_audio

        return is_audio
    from melcodec.cli._mlc import MLC
    from melcodec.store.codes import is_codes

    return lambda path: is_codes(path) or path.suffix.lower() == MLC


def check_suffix(output: Path, suffixes: Collection[str]) -> None:
    """Raise MelcodecError unless the suffix of ``output`` is one of ``suffixes``. Ask before long work."""
    if output.suffix.lower() not in suffixes:
        raise MelcodecError(f"{output}: '{output.suffix}' cannot be written here", f"use one of {', '.join(suffixes)}")


def check_not_read(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise MelcodecError when an output, by whatever name, is one of the inputs: -f must not replace those."""
    read = {path.resolve() for path in inputs}
    for output in outputs:
        if output.resolve() in read:
            raise MelcodecError(f"{output}: is an input and cannot be the output as well", "give another place with -o")
