"""What happens to a unit that kills its worker: it is tried again, then halved until the bad utterance is alone.

A unit is tried ``attempts`` times. Then its halves are tried, and the halves of those that kill their worker, until a single
utterance has killed its worker ``attempts`` times: it becomes an error row, and the unit is encoded without it. If no single
utterance does so, the unit needs too much memory at once and is encoded one utterance at a time; if that fails, it is given up.
Only the whole unit is ever written, so the bytes of its part do not depend on these attempts.
"""

from __future__ import annotations

from dataclasses import replace

from melcodec.corpus.tasks import UnitTask
from melcodec.store.plan import UNIT_SECONDS, Unit, estimated_seconds

ATTEMPTS = 4
LEAST_SECONDS = 30.0  # that a probe may take, where a unit may take so long


class UnitProgress:
    """The attempts to encode one unit. ``stuck`` says why it was given up.

    Args:
        timeout: seconds that a unit of ``UNIT_SECONDS`` of sound may take; a longer one may take more.
        attempts: how often it may die before something else is tried.
        again: the unit is retried; see ``UnitTask``.
    """

    def __init__(self, unit: Unit, timeout: float, attempts: int = ATTEMPTS, again: bool = False) -> None:
        self.unit, self.attempts, self.again = unit, attempts, again
        self.timeout = timeout * max(1.0, unit.seconds / UNIT_SECONDS)
        self.bad: dict[str, tuple[str, str]] = {}
        self.stuck = ""
        self.probes = 0  # under way
        self.lost_whole = 0

    def first(self) -> UnitTask:
        """The whole unit."""
        return self._whole()

    def finished(self, task: UnitTask) -> list[UnitTask]:
        """What to do after ``task`` ended well; nothing after the whole unit."""
        return self._probed() if task.probe else []

    def lost(self, task: UnitTask, status: str, error: str) -> list[UnitTask]:
        """What to do after ``task`` took its worker with it; nothing when the unit is stuck."""
        if task.probe:
            return self._lost_probe(task, status, error)
        self.lost_whole += 1
        if self.lost_whole == self.attempts:
            return self._halves(self.unit)
        if self.lost_whole < 3 * self.attempts:
            return [self._whole()]
        self.stuck = error
        return []

    def _whole(self) -> UnitTask:
        gentle = self.lost_whole >= 2 * self.attempts or (self.lost_whole >= self.attempts and not self.bad)
        return UnitTask(self.unit, self.timeout, gentle=gentle, bad=dict(self.bad), again=self.again, tries=self.lost_whole)

    def _lost_probe(self, task: UnitTask, status: str, error: str) -> list[UnitTask]:
        if len(task.unit.utterances) > 1:
            self.probes -= 1
            return self._halves(task.unit)
        if task.tries + 1 < self.attempts:
            return [replace(task, tries=task.tries + 1)]
        (utterance,) = task.unit.utterances
        self.bad[utterance.id] = status, f"{utterance.path}: {error}"
        return self._probed()

    def _probed(self) -> list[UnitTask]:
        self.probes -= 1
        return [] if self.probes else [self._whole()]

    def _halves(self, unit: Unit) -> list[UnitTask]:
        middle = (len(unit.utterances) + 1) // 2
        halves = [half for half in (unit.utterances[:middle], unit.utterances[middle:]) if half]
        self.probes += len(halves)
        return [self._probe(replace(unit, utterances=half)) for half in halves]

    def _probe(self, piece: Unit) -> UnitTask:
        seconds = sum(estimated_seconds(utterance) for utterance in piece.utterances)
        share = max(len(piece.utterances) / len(self.unit.utterances), seconds / max(self.unit.seconds, seconds, 1.0))
        return UnitTask(piece, max(self.timeout * share, min(self.timeout, LEAST_SECONDS)), probe=True, again=self.again)
