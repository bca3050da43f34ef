"""Doing many files: failures are collected, named and counted, and never take another file's result with them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import typer

from melcodec.cli._console import say
from melcodec.cli._options import Job, Jobs
from melcodec.errors import MelcodecError
from melcodec.files import written_aside

FAILURES = "failures.jsonl"


@dataclass
class Tally:
    """What became of the jobs."""

    jobs: Jobs
    done: int = 0
    kept: int = 0
    failures: list[tuple[Path, MelcodecError]] = field(default_factory=list)

    def pending(self, overwrite: bool) -> list[Job]:
        """The jobs to do: in a folder, outputs that exist are kept, so that a stopped run is resumed."""
        if self.jobs.single:
            job = self.jobs.jobs[0]
            if job.target.exists() and not overwrite:
                raise MelcodecError(f"{job.target}: exists already", "add -f to overwrite it")
            return self.jobs.jobs
        # os.access answers where Path.exists raises, as for too long a name: that is one file's failure, and comes later
        todo = [job for job in self.jobs.jobs if overwrite or not os.access(job.target, os.F_OK)]
        self.kept = len(self.jobs.jobs) - len(todo)
        return todo

    def fail(self, source: Path, error: MelcodecError) -> None:
        """Note a failure; a single job's failure is the command's."""
        if self.jobs.single:
            raise error
        self.failures.append((source, error))

    def finish(self, what: str) -> None:
        """Say what was done; write the failures file; exit with 1 when anything failed."""
        self.failures += self.jobs.found.closed.items()
        kept = f", {self.kept} existed already and were kept (-f makes them anew)" if self.kept else ""
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
