"""Options that several commands share, and the rules for where outputs go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from melcodec.cli._standard import input_file, is_standard, output_file, plain
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.walk import Found, walk


def folder_only(value: Path | None) -> Path | None:
    """Refuse ``-`` where a folder is meant: standard output is one file."""
    if value is not None and is_standard(value):
        raise MelcodecError("-o -: a folder is written, and standard output is one file", "give a folder with -o")
    return value


def named(param: typer.CallbackParam, value: Any) -> Any:
    """Refuse ``-`` for an option or argument that takes the name of a file or folder, before anything looks for such a file."""
    if any(is_standard(item) for item in (value if isinstance(value, list | tuple) else [value])):
        name = param.opts[0] if param.param_type_name == "option" else param.metavar
        raise MelcodecError(f"{name} -: standard input and output cannot be used here", "give the name of a file or folder")
    return value


MLC = ".mlc"  # the suffix of entropy-coded codes
CHECKPOINT = "Checkpoint: a file, a run folder, a shipped name, or user/name of the hub."
Checkpoint = Annotated[str, typer.Option("--checkpoint", "-c", metavar="CHECKPOINT", help=CHECKPOINT, callback=named)]
CheckpointArgument = Annotated[str, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT, show_default=False, callback=named)]
Vocoder = Annotated[
    str,
    typer.Option(
        help="Vocoder: griffin-lim, a file or run folder of melcodec vocoder train, or a .toml file with settings.",
        callback=named,
    ),
]
Device = Annotated[str, typer.Option(help="Device to compute on: auto, cpu, cuda, cuda:N or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", "-f", help="Replace outputs that exist.")]
OUT = "Output file; - is standard output."
Output = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help=OUT, show_default=False)]
OptionalOutput = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="OUT", help=f"{OUT} For several inputs, a folder.", show_default=False)
]
FolderOutput = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help="Output folder.", show_default=False, callback=folder_only)
]


def run_folder(default: str) -> Any:
    """The option that names the folder of a training; ``default`` describes the one that is taken without it."""
    return typer.Option("--output", "-o", metavar="OUT", help="Output folder.", show_default=default, callback=folder_only)


AnyCheckpoint = Annotated[bool, typer.Option("--any-checkpoint", help="Decode codes even if another checkpoint made them.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Number of files that are processed together.")]
NumWorkers = Annotated[
    int, typer.Option(min=0, help="Number of workers that read and process files; 0: as many as suit this machine.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only this many utterances, chosen at random.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, such as train.steps=5000; may be repeated."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="TOML file of settings, in place of a preset or the defaults.", show_default=False, callback=named
    ),
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--no-resume",
        help="Resume the run in this folder, or start a new one.",
        show_default="resume if there is one",
    ),
]
MelStats = Annotated[
    Path | None,
    typer.Option(
        "--mel-stats",
        metavar="FILE",
        help="Norms of the mel bands, from melcodec mel-stats or XTTS.",
        show_default=False,
        callback=named,
    ),
]
SOURCES = "folders, audio files, quoted patterns ('data/**/*.flac'), or lists: JSONL, CSV, wav.scp, lhotse cuts, tar"
Inputs = Annotated[list[Path], typer.Argument(metavar="IN", help=f"Speech: {SOURCES}; - is standard input.", show_default=False)]
Data = Annotated[list[str], typer.Argument(metavar="DATA", help=f"Speech: {SOURCES}.", show_default=False)]
OptionalData = Annotated[list[str] | None, typer.Argument(metavar="DATA", help=f"Speech: {SOURCES}.", show_default=False)]


@dataclass(frozen=True)
class Job:
    """One input and where its output goes.

    Args:
        utterance: what a list says about it, such as the stretch of the file; None for a file as it is.
    """

    source: Path
    target: Path
    utterance: Utterance | None = None

    @property
    def whole(self) -> Utterance:
        """The utterance, or the whole file as one."""
        return self.utterance or Utterance(id=self.source.stem, path=str(self.source))


@dataclass(frozen=True)
class Jobs:
    """What to do.

    Args:
        folder: the output folder when there are many, None for a single file.
        found: what else lies in the input folders.
        wanted: what the input folders were looked through for: ``audio`` or ``codes``.
        notes: sentences about what lists and patterns name and is not used.
    """

    jobs: list[Job]
    folder: Path | None
    found: Found = field(default_factory=Found)
    wanted: str = "audio"
    notes: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Whether this is one file, whose failure is the command's."""
        return self.folder is None and len(self.jobs) == 1


def plan_jobs(
    inputs: Sequence[Path], output: Path | None, suffixes: Collection[str], suffix: str, wanted: Literal["audio", "codes"]
) -> Jobs:
    """Decide which file goes where.

    One file and an output with one of ``suffixes``, or ``-``: just that. Otherwise the output is a folder: a file's output is
    named after it, a folder's tree is kept, and a list's utterances are called by their ids. Without an output, outputs
    stand beside their inputs.

    Args:
        suffix: of outputs whose name is not given, such as ``.npy`` or ``.mel.npy``.
        wanted: the files to take from a folder.

    Raises:
        MelcodecError: a folder or a list holds nothing, one output file is named for many inputs, or an output would be an
            input or another output.
    """
    listed = [wanted == "audio" and is_list(item) for item in inputs]
    single = len(inputs) == 1 and not inputs[0].is_dir() and not listed[0]
    if not single and (is_standard(output) or any(map(is_standard, inputs))):
        raise MelcodecError("- stands for one file, but several are given", "give folders, or one file")
    if single and wanted == "codes":
        inputs = [input_file(inputs[0])]
    if single and output is not None and is_standard(output):
        return Jobs([Job(inputs[0], output_file(output, suffix))], None)
    if single and output is not None and not output.is_dir() and output.suffix:
        check_suffix(output, suffixes)
        check_not_read([output], inputs)
        return Jobs([Job(inputs[0], output)], None)
    if not single and output is not None and not output.is_dir() and output.suffix.lower() in suffixes:
        lists = "".join(f"{item} is a list or archive; " for item in inputs[:1] if listed[0])
        raise MelcodecError(
            f"{output}: {lists}one file cannot hold the results of several inputs",
            f"give a folder, as -o {output.with_suffix('')}",
        )
    jobs: list[Job] = []
    others, notes = Found(), list[str]()
    for item, is_listed in zip(inputs, listed, strict=True):
        jobs += _listed_jobs(item, output, suffix, notes) if is_listed else _jobs_of(item, output, suffix, wanted, others)
    targets: dict[Path, Path] = {}
    for job in jobs:
        if job.target in targets:
            raise MelcodecError(
                f"{targets[job.target]} and {job.source} would both be written to {job.target}", "rename one of them"
            )
        targets[job.target] = job.source
    check_not_read(list(targets), [job.source for job in jobs])
    return Jobs(jobs, None if single else output, others, wanted, tuple(notes))


def _jobs_of(item: Path, output: Path | None, suffix: str, wanted: Literal["audio", "codes"], others: Found) -> list[Job]:
    """The jobs of a file or a folder; ``others`` takes up what else the folder holds."""
    if not item.is_dir():
        if is_standard(item) or plain(str(item)) == "standard input":
            raise MelcodecError("standard input has no name after which to name the output", "give a file with -o")
        return [Job(item, (output or item.parent) / (item.stem + suffix))]
    found = walk(item, wanted_files(wanted))
    if not found.files:
        found.checked()
        raise MelcodecError(f"{item}: no {wanted} in this folder", found.not_taken(wanted) or None)
    others.add(found)
    return [Job(path, (output or item) / path.relative_to(item).with_name(path.stem + suffix)) for path in found.files]


def is_list(item: Path) -> bool:
    """Whether an input is a list or archive of speech, or a pattern, and not sound itself."""
    from melcodec.manifests.build import LISTING, kind_of

    if is_standard(item) or (item.exists() and not item.is_file() and not item.is_dir()):  # a pipe is sound
        return False
    try:
        return kind_of(str(item)) in LISTING
    except MelcodecError:  # reading it gives the error
        return False


def _listed_jobs(item: Path, output: Path | None, suffix: str, notes: list[str]) -> list[Job]:
    from melcodec.manifests.build import find_utterances

    if output is None:
        raise MelcodecError(f"{item}: outputs of a list need a folder", "give one with -o")
    return [Job(Path(each.path), output / f"{each.id}{suffix}", each) for each in find_utterances([item], notes.append)]


def wanted_files(wanted: Literal["audio", "codes"]) -> Callable[[Path], bool]:
    """Which files of a folder are taken."""
    if wanted == "audio":
        from melcodec.audio.io import is_audio

        return is_audio
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
