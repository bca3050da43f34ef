"""How far a training is: a bar on a terminal, elsewhere a line now and then; both with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from melcodec.cli._console import PLAIN_SECONDS, in_time, say

TERMINAL_SECONDS = 0.25  # between updates of the bar


class Steps:
    """The progress of a training of ``total`` steps, of which this process may do only the last, after an earlier stop.

    On a terminal a bar; elsewhere a line after the first step, then one a minute, and one after the last step.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.first = self.done = 0  # steps: at the start of this process, and now
        self.seconds = 0.0  # of all steps of this process, without what was paused
        self.last: float | None = None  # time of the latest step, or of the end of the latest pause
        self.shown: float | None = None  # time of the latest line
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """One line, above the bar when there is one."""
        if self.bar:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            say(text)

    def begin(self, step: int, words: str) -> None:
        """Start the clock before the first step; ``words`` say what happens meanwhile."""
        self.first = self.done = step
        self.last = time.monotonic()
        if sys.stderr.isatty():
            self._draw(step, words)
        else:
            say(words)

    def pause(self) -> None:
        """Do not count the time since the latest step, such as that of a validation."""
        self.last = time.monotonic()

    def step(self, step: int, words: Callable[[float | None], str]) -> None:
        """Called after steps; shows ``words``, made of the seconds that a step takes, once they are known, when it is time to."""
        now = time.monotonic()
        if self.last is None:  # the caller does not say when it begins
            self.first = step
        else:
            self.seconds += now - self.last
        self.last, self.done = now, step
        terminal = sys.stderr.isatty()
        if self.shown is not None and step < self.total and now - self.shown < (TERMINAL_SECONDS if terminal else PLAIN_SECONDS):
            return
        self.shown = now
        each = max(self.seconds / (step - self.first), 1e-9) if step > self.first else None
        text = words(each) + (f", {in_time(each * (self.total - step))} left" if each else "")
        if terminal:
            self._draw(step, text)
        else:
            say(f"step {step}/{self.total}: {text}")

    def _draw(self, step: int, words: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        if not self.bar:
            columns = MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(words, total=self.total)
        self.bar.update(self.task, completed=step, description=words)
