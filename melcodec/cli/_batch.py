"""Doing many files: failures are collected, named and counted, and do not affect other files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from melcodec.cli._console import progress, say
from melcodec.cli._options import Job, Jobs
from melcodec.errors import MelcodecError, from_os
from melcodec.files import written_aside
from melcodec.formats.container import read_header
from melcodec.formats.shipped import find_checkpoint
from melcodec.store import outputs
from melcodec.store.outputs import LIST, Recipe, State, differences, entries, others, state
from melcodec.walk import FAILURES


@dataclass
class Tally:
    """What became of the jobs."""

    jobs: Jobs
    done: int = 0
    kept: int = 0
    outdated: int = 0
    unlisted: int = 0
    recipe: Recipe = field(default_factory=dict)
    failures: list[tuple[Path, MelcodecError]] = field(default_factory=list)

    def pending(self, overwrite: bool, recipe: Recipe) -> list[Job]:
        """The jobs to do: in a folder, outputs that are up to date are kept, so that a stopped run is resumed.

        Args:
            recipe: all that decides the outputs beside their sources.

        Raises:
            MelcodecError: the output exists, or the folder holds outputs that were made under another recipe.
        """
        if self.jobs.single:
            job = self.jobs.jobs[0]
            if job.target.exists() and not overwrite:
                raise MelcodecError(f"{job.target}: exists already", "add -f to overwrite it", "exists")
            return self.jobs.jobs
        self.recipe = recipe
        if self.jobs.folder:
            foreign = others(self.jobs.folder, [job.target for job in self.jobs.jobs], recipe)
            for path, entry in foreign[:1]:
                hint = "give another output folder, or remove what is in this one"
                raise self._mixture(path, differences(entry.recipe, recipe), hint)
        if overwrite:
            return self.jobs.jobs
        todo = []
        for job in self.jobs.jobs:
            match self._state(job):
                case "absent":
                    todo.append(job)
                case "outdated":
                    self.outdated += 1
                    todo.append(job)
                case "unlisted":
                    self.unlisted += 1
        self.kept = len(self.jobs.jobs) - len(todo)
        return todo

    def _state(self, job: Job) -> State:
        try:
            found = state(job.target, job.source, self.recipe, _detail(job))
        except OSError:  # such as too long a name: that is this file's failure, and comes later
            return "absent"
        hint = "add -f to make all of them again, or give another output folder"
        if found == "other":
            before = entries(job.target.parent)[job.target.name].recipe
            raise self._mixture(job.target, differences(before, self.recipe), hint)
        if (
            found == "unlisted" and "fingerprint" in self.recipe
        ):  # codes of an older melcodec carry the fingerprint of their checkpoint
            from melcodec.store.codes import fingerprint_of  # which imports numpy

            made_by = fingerprint_of(job.target)
            if made_by not in (None, self.recipe["fingerprint"]):
                raise self._mixture(job.target, f"fingerprint was {made_by} and is {self.recipe['fingerprint']}", hint)
        return found

    def _mixture(self, path: Path, what: str, hint: str) -> MelcodecError:
        return MelcodecError(f"{path}: was made differently: {what}", hint, "mismatch")

    def note(self, job: Job, facts: Mapping[str, Any] | None = None) -> None:
        """List what is about to be written, with ``facts`` about it; a single file's output is not listed."""
        if not self.jobs.single:
            outputs.note(job.target, job.source, self.recipe, facts, _detail(job))

    def each(self, todo: Sequence[Job], label: str, work: Callable[[Job], str]) -> None:
        """Do ``work`` on every job: failures are noted, and what it says of a single job is shown."""
        with progress(label) as update:
            for index, job in enumerate(todo, start=1):
                try:
                    said = work(job)
                    self.done += 1
                    if self.jobs.single:
                        say(f"{job.target}: {said}")
                except (MelcodecError, OSError) as error:
                    self.fail(job.source, from_os(error) if isinstance(error, OSError) else error)
                update(index, len(todo))

    def fail(self, source: Path, error: MelcodecError) -> None:
        """Note a failure; a single job's failure is the command's."""
        if self.jobs.single:
            raise error
        self.failures.append((source, error))

    def finish(self, what: str) -> None:
        """Say what was done; write the failures file; exit with 1 when anything failed. A single job needs none of that."""
        if self.jobs.single:
            return
        self.failures += self.jobs.found.closed.items()
        kept = f", {self.kept} existed already and were kept (-f makes them again)" if self.kept else ""
        if self.outdated:
            kept += f"; {self.outdated} were outdated: their inputs have changed since"
        if self.unlisted:
            kept += f"; of those kept, {self.unlisted} are not listed in {LIST}: it is not known what they were made from"
        say(f"{self.done} {what}{kept}")
        if passed_over := self.jobs.found.not_taken(self.jobs.wanted):
            say(passed_over)
        for note in self.jobs.notes:
            say(note)
        report = self.jobs.folder / FAILURES if self.jobs.folder else None
        if report:
            report.unlink(missing_ok=True)
        if not self.failures:
            return
        say(f"{len(self.failures)} failed:")
        for _, error in self.failures:
            say(f"  {error.message}")
        if report:
            lines = [json.dumps({"path": str(path), "error": error.message}) for path, error in self.failures]
            with written_aside(report) as aside:
                aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
            say(f"hint: also listed in {report}")
        raise typer.Exit(1)


def _detail(job: Job) -> str:
    """What of its source a job uses, beside the whole file."""
    item = job.utterance
    return "" if item is None else f"#{item.member}@{item.start}+{item.duration}"


def recipe(command: str, checkpoint: str, **settings: Any) -> Recipe:
    """All that decides what ``command`` makes of its inputs: for codes the code space, for the rest all of the checkpoint."""
    from melcodec.onnx.folder import DECODER, is_export, read_facts

    if is_export(checkpoint):
        folder = Path(checkpoint)
        fingerprint = read_facts(folder).fingerprint
        decoder = hashlib.sha256((folder / DECODER).read_bytes()).hexdigest()[:12]
        return {
            "command": command,
            **({"fingerprint": fingerprint} if command == "encode" else {"checkpoint": decoder}),
            **settings,
        }
    path = find_checkpoint(checkpoint)
    made_by = {"fingerprint": read_header(path)[0].get("fingerprint")} if command == "encode" else {"checkpoint": _digest(path)}
    return {"command": command, **made_by, **settings}


def sound_of(vocoder: str) -> str:
    """What ``vocoder`` names, as a recipe holds it: its settings, or the content of its weights, which training changes."""
    from melcodec.config import LearnedVocoderConfig
    from melcodec.vocoder.choice import choose_vocoder, find_vocoder

    chosen = choose_vocoder(vocoder)
    changed = chosen.model_dump(exclude_defaults=True, exclude={"kind"})
    if isinstance(chosen, LearnedVocoderConfig):
        changed["weights"] = _digest(find_vocoder(chosen.weights))
    return " ".join([chosen.kind, *(f"{name}={value}" for name, value in sorted(changed.items()))])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def say_unknown(files: Sequence[object], what: str = "whether this checkpoint made the codes") -> None:
    """Say which codes files do not tell which checkpoint made them, and ``what`` is therefore not known."""
    if files:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        say(f"note: {files[0]}{more}: no fingerprint, so it is not known {what}; .npz and .safetensors codes carry one")
