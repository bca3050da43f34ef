"""Talking to people, always on stderr."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from melcodec.cli._standard import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from melcodec.errors import MelcodecError

PLAIN_SECONDS = 60.0  # between lines of progress when stderr is not a terminal


def say(text: str) -> None:
    """One line of talk."""
    print(plain(text), file=sys.stderr)


def say_error(error: MelcodecError) -> None:
    """``error: ...`` and, when there is one, ``hint: ...``."""
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint: {error.hint}")


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal and, when it takes long, a line a minute elsewhere; yields ``update(done, total)``."""
    if not sys.stderr.isatty():
        yield Lines(label).update
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Lines:
    """A line a minute that says how much is done and how long the rest takes."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.began = self.said = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Say it, unless that was said less than a minute ago or everything is done."""
        now = time.monotonic()
        if 0 < done < total and now - self.said >= PLAIN_SECONDS:
            self.said = now
            say(f"{self.label}: {done} of {total}, {in_time((now - self.began) / done * (total - done))} left")


def in_time(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying of them; a second Ctrl-C ends at once.

    Where SIGHUP is ignored, as under nohup, it stays so.
    """
    received: list[int] = []
    hangup = getattr(signal, "SIGHUP", None)

    def note(number: int, frame: object) -> None:
        if number == hangup:
            _leave_terminal()
        if received and number == hangup:  # a shell that ends passes it on, and so does the system
            return
        if received:
            raise KeyboardInterrupt
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        numbers.append(hangup)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Discard what would be written to a closed terminal: that would be an error while the last state is saved."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        with suppress(OSError):  # it is closed
            if not os.isatty(descriptor) and stat.S_ISCHR(os.fstat(descriptor).st_mode):  # files and pipes stay
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
