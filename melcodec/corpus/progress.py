"""How far a run is and how fast: from what the workers say to numbers that people read."""

from __future__ import annotations

import time
from dataclasses import dataclass

from melcodec.corpus.tasks import Advance, Event, UnitTask
from melcodec.processes import Finished, Reported
from melcodec.store.plan import Unit


def in_words(seconds: float) -> str:
    """``12.5 hours``, ``3.4 minutes`` or ``5.6 seconds``: the unit in which there is something to read."""
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"


@dataclass(frozen=True)
class Busy:
    """What a worker is at: so many of a unit's utterances."""

    unit: str
    utterances: int
    planned: int


@dataclass(frozen=True)
class Snapshot:
    """A run at a moment.

    Args:
        utterances, units, failures: done, in this run and before.
        planned, planned_units: in all.
        seconds: of sound encoded in this run.
        elapsed: seconds since its first task.
        left: seconds that it will still take; None before anything is known.
        workers: what each of them does.
    """

    utterances: int
    planned: int
    units: int
    planned_units: int
    failures: int
    seconds: float
    elapsed: float
    left: float | None
    workers: dict[int, Busy]

    @property
    def hours_per_minute(self) -> float:
        """Hours of sound encoded in a minute."""
        return self.seconds / 60 / self.elapsed if self.elapsed else 0.0


class Meter:
    """Sums up what workers say.

    Args:
        planned, planned_units: utterances and units in all.
        expected: seconds of sound that the plan expects in what is still to do.
    """

    def __init__(self, planned: int, planned_units: int, expected: float) -> None:
        self.planned, self.planned_units, self.expected = planned, planned_units, expected
        self.utterances = self.units = self.failures = 0
        self.seconds = self.settled = 0.0  # encoded; of what was expected, done
        self.started: float | None = None
        self.working: dict[int, tuple[UnitTask, Advance]] = {}

    def before(self, utterances: int, failures: int) -> None:
        """Count a unit that an earlier run committed."""
        self.utterances += utterances
        self.failures += failures
        self.units += 1

    def start(self) -> None:
        """The first task is given out: from here time counts, after processes have started."""
        if self.started is None:
            self.started = time.monotonic()

    def note(self, event: Event) -> None:
        """Take in what happened."""
        if isinstance(event, Reported):
            self.working[event.worker] = event.task, event.report
            return
        self.working.pop(event.worker, None)
        if isinstance(event, Finished) and event.result is not None:
            self.utterances += event.result.rows
            self.failures += event.result.errors
            self.seconds += event.result.seconds
            self.settled += event.task.unit.seconds
            self.units += 1

    def give_up(self, unit: Unit) -> None:
        """A unit that will not be done in this run."""
        self.settled += unit.seconds

    def snapshot(self) -> Snapshot:
        """How far it is now, what the workers are at included."""
        real = [(task.unit, done) for task, done in self.working.values() if not task.probe]
        settled = self.settled + sum(unit.seconds * done.utterances / len(unit.utterances) for unit, done in real)
        elapsed = time.monotonic() - self.started if self.started is not None else 0.0
        return Snapshot(
            self.utterances + sum(done.utterances for _, done in real),
            self.planned,
            self.units,
            self.planned_units,
            self.failures + sum(done.failures for _, done in real),
            self.seconds + sum(done.seconds for _, done in real),
            elapsed,
            elapsed * max(0.0, self.expected - settled) / settled if settled else None,
            {number: _busy(task.unit, done) for number, (task, done) in sorted(self.working.items())},
        )


def _busy(unit: Unit, done: Advance) -> Busy:
    return Busy(f"{unit.segment:04d}-{unit.number:05d}", done.utterances, len(unit.utterances))
