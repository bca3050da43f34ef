"""Worker processes: one pipe to each, nothing shared; the one pool that everything in melcodec uses.

Workers ignore SIGINT, because the parent decides what Ctrl-C means, and end when the parent ends, whatever ended it. A
worker that dies loses only its task, and is replaced; one that takes too long is killed.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from melcodec.errors import MelcodecError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

PR_SET_PDEATHSIG = 1  # linux/prctl.h
POLL_SECONDS = 0.25  # also the longest delay until a Ctrl-C is handled
REPORT_SECONDS = 0.5  # between two reports of progress
LAST_SECONDS = 10.0  # until a killed process must have ended
STARTS = 3  # deaths before the first task that are not chance
MOST_ON_WINDOWS = 30  # whose system calls wait for 63 things at once, and each worker is two
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Reported(Generic[T]):
    """Worker ``worker`` has got this far with its task: ``report`` is what it said."""

    worker: int
    task: T
    report: Any


@dataclass(frozen=True)
class Finished(Generic[T, R]):
    """The task is done; ``number`` counts the tasks in the order in which they were submitted."""

    worker: int
    task: T
    result: R
    number: int = 0


@dataclass(frozen=True)
class Lost(Generic[T]):
    """The task took its worker with it; ``status`` is ``crash`` or ``timeout``, ``error`` says it in words."""

    worker: int
    task: T
    status: str
    error: str
    number: int = 0


# what runs in a process: start(setup) makes ready and returns the function that does a task, which may report its progress
Report = Callable[[Any], None]
Start = Callable[[Any], Callable[[T, Report], R]]


class Pool(Generic[T, R]):
    """One process per setup; each starts with ``start(setup)`` and does one task after another.

    Args:
        start: a function of a module, because a process is spawned: forked threads of torch hang.
        setups: what each process is given; any value that can be pickled.
        depth: tasks that a worker holds, the one that it does included; more than one keeps it busy where tasks are short.
    """

    def __init__(self, start: Start[T, R], setups: Sequence[Any], depth: int = 1) -> None:
        self.depth, self.submitted = depth, 0
        most = MOST_ON_WINDOWS if sys.platform == "win32" else len(setups)
        self.workers = [_Worker(number, start, setup) for number, setup in enumerate(setups[:most])]

    def __enter__(self) -> Pool[T, R]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def idle(self) -> int:
        """How many more tasks the workers take."""
        return sum(self.depth - len(worker.tasks) for worker in self.workers if worker.ready)

    def submit(self, task: T, timeout: float = math.inf) -> None:
        """Give ``task`` to an idle worker; it may take ``timeout`` seconds."""
        worker = min((worker for worker in self.workers if worker.ready), key=lambda worker: len(worker.tasks))
        worker.give(_Given(task, timeout, self.submitted))
        self.submitted += 1

    def poll(self, timeout: float = POLL_SECONDS) -> list[Reported[T] | Finished[T, R] | Lost[T]]:
        """What happened; waits at most ``timeout`` seconds for something to happen.

        Raises:
            MelcodecError: a worker raised it, which ends the work; or workers stop while they start.
            OSError: likewise, such as a full disk.
        """
        left = [worker.deadline - time.monotonic() for worker in self.workers if worker.tasks]
        waited = max(0.0, min([timeout, *left]))
        wait([item for worker in self.workers for item in (worker.pipe, worker.process.sentinel)], waited)
        return [event for worker in self.workers for event in worker.news()]

    def close(self) -> None:
        """Kill all workers, whatever they are doing."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.end()


def run_all(pool: Pool[T, R], tasks: Iterable[T], ahead: int = 0) -> Iterator[Finished[T, R] | Lost[T]]:
    """``tasks`` through ``pool``, each as it is done.

    Args:
        ahead: give them in the order of ``tasks`` instead, and hold at most so many that are under way or wait for their turn.
    """
    rest, done, given = iter(tasks), 0, 0
    held: dict[int, Finished[T, R] | Lost[T]] = {}
    exhausted = False
    while not (exhausted and done == given):
        while not exhausted and pool.idle() and (not ahead or given - done < ahead):
            try:
                pool.submit(next(rest))
            except StopIteration:
                exhausted = True
            else:
                given += 1
        if exhausted and done == given:
            return
        for event in pool.poll():
            if isinstance(event, Reported):
                continue
            if not ahead:
                done += 1
                yield event
            else:
                held[event.number] = event
        while done in held:
            done += 1
            yield held.pop(done - 1)


@dataclass(frozen=True)
class _Given(Generic[T]):
    task: T
    timeout: float
    number: int


class _Worker(Generic[T, R]):
    """A process as its parent sees it; the first of ``tasks`` is the one that it does."""

    process: BaseProcess
    pipe: Connection
    deadline: float
    ready: bool

    def __init__(self, number: int, start: Start[T, R], setup: Any) -> None:
        self.number, self.start, self.setup = number, start, setup
        self.tasks: deque[_Given[T]] = deque()
        self.failed_starts = 0
        self._begin()

    def give(self, given: _Given[T]) -> None:
        """Send a task; its time runs from when it is the first."""
        self.tasks.append(given)
        if len(self.tasks) == 1:
            self.deadline = time.monotonic() + given.timeout
        with suppress(OSError):  # it has just died, which news() finds out
            self.pipe.send(given.task)

    def news(self) -> Iterator[Reported[T] | Finished[T, R] | Lost[T]]:
        """What it said, and whether it died or took too long; a new process takes the place of such a one."""
        ended = not self.process.is_alive()  # checked first: everything it sent before it ended is in the pipe by now
        heard = []
        try:
            while self.pipe.poll():
                heard.append(self.pipe.recv())
        except (EOFError, OSError):
            ended = True
        for word in heard:
            yield from self._said(*word)
        if ended:
            self.process.join(timeout=LAST_SECONDS)
            error = f"its worker failed: {self.failure}" if self.failure else f"killed its worker ({self._cause()})"
            yield from self._replace("crash", error)
        elif self.tasks and time.monotonic() > self.deadline:
            yield from self._replace("timeout", f"took longer than {self.tasks[0].timeout:g} s")

    def end(self) -> None:
        """Kill the process; one that hangs inside the system's own read is left to it."""
        self.process.kill()
        self.process.join(timeout=LAST_SECONDS)
        self.pipe.close()

    def _said(self, word: str, value: Any = None) -> Iterator[Reported[T] | Finished[T, R]]:
        if word == "ready":
            self.ready, self.failed_starts = True, 0
            with suppress(OSError):
                for given in self.tasks:  # left by the worker before it
                    self.pipe.send(given.task)
        elif word == "refused":
            raise value
        elif word == "failed":  # it ends now
            self.failure = value
        elif word == "reported" and self.tasks:
            yield Reported(self.number, self.tasks[0].task, value)
        elif word == "finished" and self.tasks:
            given = self.tasks.popleft()
            self._restart_clock()
            yield Finished(self.number, given.task, value, given.number)

    def _replace(self, status: str, error: str) -> Iterator[Lost[T]]:
        self.end()
        if not self.ready:
            self.failed_starts += 1
        if self.failed_starts == STARTS:
            raise MelcodecError(
                f"workers stop while they start ({self.failure or self._cause()})",
                "out of memory? try fewer workers; a script does its work under if __name__ == '__main__':",
            )
        lost = self.tasks.popleft() if self.ready and self.tasks else None
        self._begin()
        self._restart_clock()
        if lost is not None:
            yield Lost(self.number, lost.task, status, error, lost.number)

    def _restart_clock(self) -> None:
        self.deadline = time.monotonic() + self.tasks[0].timeout if self.tasks else 0.0

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        name = f"melcodec-{self.number}"
        self.process = context.Process(target=_work, args=(theirs, self.start, self.setup), name=name, daemon=True)
        self.ready, self.deadline, self.failure = False, 0.0, ""
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


def _work(pipe: Connection, start: Start[Any, Any], setup: Any) -> None:
    """All that a worker process does."""
    follow_parent()
    said = 0.0

    def report(value: Any) -> None:
        nonlocal said
        if time.monotonic() - said > REPORT_SECONDS:
            said = time.monotonic()
            pipe.send(("reported", value))

    try:
        do = start(setup)
        pipe.send(("ready",))
        while True:
            pipe.send(("finished", do(pipe.recv(), report)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        return
    except Exception as error:
        pipe.send(told(error))


def told(error: Exception) -> tuple[str, Any]:
    """What a worker says before it ends: ``refused`` with an error that no worker can mend, or ``failed`` with words.

    The latter may be a GPU's memory, say, which a new process has again.
    """
    if isinstance(error, (MelcodecError, OSError)):
        return "refused", error
    return "failed", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@contextmanager
def sigint_held() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; those started inside this context ignore it (on Windows, once they run)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would be started with the first process, and let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent() -> None:
    """Called by a spawned process first of all: it ignores Ctrl-C, and ends when its parent ends, whatever ended that.

    Start it from a thread that lives as long as it is wanted: to Linux that thread is the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of multiprocessing"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="watcher", daemon=True).start()
    if sys.platform == "linux":  # also if other code never releases the interpreter lock
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
