"""Workers as processes of this machine, from the standard library: one process and one pipe each, nothing shared.

A process that dies takes nothing with it but its task, and is replaced. One that takes too long is killed. When the
driver itself dies, even of SIGKILL, its workers end within moments.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from melcodec.corpus.tasks import Advanced, Event, Finished, Lost, Setup, Task, Worker
from melcodec.errors import MelcodecError, from_os
from melcodec.processes import follow_parent, sigint_held

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

REPORT_SECONDS = 0.5  # between two words of progress
LAST_SECONDS = 10.0  # that a killed process has to be gone
STARTS = 3  # deaths before the first task that are not chance


class EmbeddedExecutor:
    """One process per setup."""

    def __init__(self, setups: Sequence[Setup]) -> None:
        self.hands = [_Hand(number, setup) for number, setup in enumerate(setups)]

    def idle(self) -> int:
        """How many workers wait for a task."""
        return sum(hand.ready and hand.task is None for hand in self.hands)

    def submit(self, task: Task) -> None:
        """Give ``task`` to one of them."""
        next(hand for hand in self.hands if hand.ready and hand.task is None).give(task)

    def poll(self, timeout: float) -> list[Event]:
        """What happened; see ``tasks.Executor``."""
        deadlines = [hand.deadline - time.monotonic() for hand in self.hands if hand.task]
        wait([item for hand in self.hands for item in (hand.pipe, hand.process.sentinel)], max(0.0, min([timeout, *deadlines])))
        return [event for hand in self.hands for event in hand.news()]

    def close(self) -> None:
        """Kill all workers: what they have not committed, they will do again."""
        for hand in self.hands:
            hand.process.kill()
        for hand in self.hands:
            hand.end()


class _Hand:
    """A worker as the driver sees it."""

    process: BaseProcess
    pipe: Connection
    task: Task | None
    deadline: float
    ready: bool

    def __init__(self, number: int, setup: Setup) -> None:
        self.number, self.setup = number, setup
        self.failed_starts = 0
        self._start()

    def give(self, task: Task) -> None:
        """Send ``task``; its time runs from now."""
        self.task, self.deadline = task, time.monotonic() + task.timeout
        with suppress(OSError):  # it has just died, which news() finds out
            self.pipe.send(task)

    def news(self) -> Iterator[Event]:
        """What it said, and whether it died or took too long; a new process takes the place of such a one."""
        ended = not self.process.is_alive()  # asked first: what it said before it ended is in the pipe by now
        try:
            while self.pipe.poll():
                yield from self._said(*self.pipe.recv())
        except (EOFError, OSError):
            ended = True
        if ended:
            self.process.join(timeout=LAST_SECONDS)
            error = f"its worker failed: {self.failure}" if self.failure else f"killed its worker ({self._cause()})"
            yield from self._replace("crash", error)
        elif self.task and time.monotonic() > self.deadline:
            yield from self._replace("timeout", f"took longer than {self.task.timeout:g} s")

    def end(self) -> None:
        """Kill the process; one that hangs inside the system's own read is left to it."""
        self.process.kill()
        self.process.join(timeout=LAST_SECONDS)
        self.pipe.close()

    def _said(self, word: str, *values: Any) -> Iterator[Event]:
        if word == "ready":
            self.ready, self.failed_starts = True, 0
        elif word == "refused":
            raise MelcodecError(*values)
        elif word == "failed":  # it ends now
            (self.failure,) = values
        elif word == "advanced" and self.task:
            yield Advanced(self.number, self.task, *values)
        elif word == "finished" and self.task:
            task, self.task = self.task, None
            yield Finished(self.number, task, *values)

    def _replace(self, status: str, error: str) -> Iterator[Event]:
        self.end()
        if not self.ready:
            self.failed_starts += 1
        if self.failed_starts == STARTS:
            raise MelcodecError(
                f"workers die while they start ({self.failure or self._cause()})",
                "out of memory? try fewer --num-workers; a script preprocesses under if __name__ == '__main__':",
            )
        lost = [Lost(self.number, self.task, status, error)] if self.task else []
        self._start()
        yield from lost

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process that has used torch may hang
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.setup), name=f"melcodec-{self.number}", daemon=True)
        self.ready, self.task, self.deadline, self.failure = False, None, 0.0, ""
        with sigint_held():
            self.process.start()
        theirs.close()  # or its end would stay open here when it dies

    def _cause(self) -> str:
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"exit status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


def _work(pipe: Connection, setup: Setup) -> None:
    """A worker's life."""
    follow_parent()
    said = 0.0

    def report(utterances: int, seconds: float, failures: int) -> None:
        nonlocal said
        if time.monotonic() - said > REPORT_SECONDS:
            said = time.monotonic()
            pipe.send(("advanced", utterances, seconds, failures))

    try:
        worker = Worker(setup)
        pipe.send(("ready",))
        while True:
            task: Task = pipe.recv()
            pipe.send(("finished", worker.run(task, report)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the driver is gone
        return
    except MelcodecError as error:
        pipe.send(("refused", error.message, error.hint))
    except OSError as error:
        described = from_os(error)
        pipe.send(("refused", described.message, described.hint))
    except Exception as error:  # such as a GPU's memory; a new process is the cure
        pipe.send(("failed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"))
