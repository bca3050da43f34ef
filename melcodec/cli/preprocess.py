"""``melcodec preprocess``: a corpus to a folder of codes; a stopped run is resumed."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say, stop_on_signals
from melcodec.formats.shipped import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    from melcodec.corpus.progress import Snapshot
    from melcodec.store.finalize import Summary


class OnTruncated(str, Enum):
    """What to do with a file that is shorter than its header or its list says."""

    keep = "keep"
    drop = "drop"
    fail = "fail"


class Engine(str, Enum):
    """Where workers run."""

    embedded = "embedded"
    ray = "ray"


EngineName = Annotated[Engine, typer.Option(help="Processes of this machine, or actors of a Ray cluster.")]
Address = Annotated[str, typer.Option(help="Address of the Ray cluster: auto, local or HOST:PORT.")]
UnitSize = Annotated[
    int,
    typer.Option(
        min=0, help="Utterances per unit, which is one Parquet file; 0: about a thousand, fewer if the corpus is small."
    ),
]
UnitTimeout = Annotated[
    float, typer.Option(min=1, help="Seconds after which a unit counts as stuck; units of over 4 hours of sound get more.")
]
MaxFailures = Annotated[str, typer.Option(help="Exit status 0 up to this many failures: a count, or a share such as 0.5%.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Encode again what failed in an earlier run.")]
Truncated = Annotated[OnTruncated, typer.Option(help="Truncated files: keep their codes, drop them, or count them as failed.")]
MinSeconds = Annotated[float, typer.Option(min=0, help="Sound shorter than this is a failure; 0: only below 23 ms.")]
PLAIN_SECONDS = 10.0  # between progress lines when not on a terminal
SHOWN_WORKERS = 8  # in such a line


def preprocess(
    data: options.Data,
    output: options.FolderOutput,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
    num_workers: options.NumWorkers = 0,
    engine: EngineName = Engine.embedded,
    address: Address = "auto",
    unit_size: UnitSize = 0,
    unit_timeout: UnitTimeout = 3600.0,
    max_failures: MaxFailures = "0",
    on_truncated: Truncated = OnTruncated.fail,
    min_seconds: MinSeconds = 0.0,
    retry_failed: RetryFailed = False,
    as_json: options.AsJSON = False,
) -> None:
    """Turn a corpus into a folder of codes, on all cores or GPUs.

    Run it again to resume: what is done stays, and new files are added. Every file ends as codes or
    as a line of failures.jsonl; the exit status is 1 when there are more failures than allowed.
    """
    from melcodec.corpus.driver import Callbacks, PreprocessSettings
    from melcodec.corpus.driver import preprocess as run
    from melcodec.corpus.reading import Rules
    from melcodec.manifests.build import find_utterances
    from melcodec.store.finalize import Limit

    limit = Limit(max_failures)
    limit.allowed(0)  # before long work
    rules = Rules("keep" if on_truncated is OnTruncated.keep else "drop", min_seconds)
    job = PreprocessSettings(
        checkpoint, rules, device, num_workers, engine.value, address, unit_size, unit_timeout, retry_failed=retry_failed
    )
    last: list[Snapshot] = []
    notes: list[str] = []
    with stop_on_signals() as stopped, shown() as show:

        def progress(now: Snapshot) -> None:
            last[:] = [now]
            show(now)

        try:
            summary = run(find_utterances(data, notes.append), output, job, Callbacks(say, progress, lambda: bool(stopped)))
        except KeyboardInterrupt:  # a second one
            summary = None
    if summary is None:
        raise typer.Exit(128 + stopped[0])
    failures = summary.failures(on_truncated.value)
    good = failures <= limit.allowed(summary.utterances) and not summary.missing
    tell(summary, output)
    for note in notes:
        say(note)
    if as_json:
        now = last[0] if last else None
        speed = {"seconds_now": now.seconds, "elapsed": now.elapsed, "hours_per_minute": now.hours_per_minute} if now else {}
        print(json.dumps({"folder": str(output), "success": good, "failures": failures, **asdict(summary), **speed}))
    if not good:
        raise typer.Exit(1)


def tell(summary: Summary, folder: Path) -> None:
    """Say what the folder holds, and a table of what failed."""
    from melcodec.corpus.progress import in_words as length

    kept = f", {summary.kept} of them of truncated files" if summary.kept else ""
    done = summary.ok + summary.kept
    say(f"{folder}: {done} of {summary.utterances} utterances have codes{kept}: {length(summary.seconds)}")
    rows = [(reason, count, summary.examples[reason]) for reason, count in summary.failed.items()]
    if summary.missing:
        rows.append(("missing", summary.missing, [f"{part}: {why}" for part, why in sorted(summary.stuck.items())]))
    for reason, count, examples in rows:
        say(f"  {reason:<10} {count:>8}  {examples[0]}")
    if rows:
        say(f"hint: all of them are in {folder}/failures.jsonl; --retry-failed tries them again")


@contextmanager
def shown() -> Iterator[Callable[[Snapshot], None]]:
    """Progress with a bar for every worker on a terminal, a plain line every 10 s elsewhere."""
    if not sys.stderr.isatty():
        yield Lines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Bars(bars).show


class Lines:
    """One line now and then."""

    def __init__(self) -> None:
        self.said = time.monotonic()

    def show(self, now: Snapshot) -> None:
        """Say how far it is, unless that was just said."""
        if time.monotonic() - self.said < PLAIN_SECONDS:
            return
        self.said = time.monotonic()
        busy = [f"{number}: {item.utterances}/{item.planned} of {item.unit}" for number, item in now.workers.items()]
        more = f", {len(busy) - SHOWN_WORKERS} more" if len(busy) > SHOWN_WORKERS else ""
        workers = f"; worker {', '.join(busy[:SHOWN_WORKERS])}{more}" if busy else ""
        say(f"{now.utterances}/{now.planned} utterances, {in_words(now)}{workers}")


class Bars:
    """A bar for all, and one for each worker."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars
        self.all = bars.add_task("all", total=None, words="")
        self.workers: dict[int, Any] = {}

    def show(self, now: Snapshot) -> None:
        """Redraw."""
        self.bars.update(self.all, completed=now.utterances, total=now.planned, words=in_words(now))
        for number, item in now.workers.items():
            if number not in self.workers:
                self.workers[number] = self.bars.add_task(f"worker {number}", words="")
            words = f"of {item.unit}"
            self.bars.update(self.workers[number], completed=item.utterances, total=item.planned, words=words, visible=True)
        for number in self.workers.keys() - now.workers.keys():
            self.bars.update(self.workers[number], visible=False)


def in_words(now: Snapshot) -> str:
    """``3 failed, 12.50 hours of audio per minute, 4 min left``."""
    from melcodec.corpus.progress import in_words as length

    speed = f", {length(3600 * now.hours_per_minute)} of audio per minute" if now.seconds else ""
    return f"{now.failures} failed{speed}{left_in_words(now.left)}"


def left_in_words(seconds: float | None) -> str:
    """``, 4 min left``, or less than two minutes in seconds; empty when it is not known, or nothing is left."""
    if not seconds:
        return ""
    return f", {math.ceil(seconds)} s left" if seconds < 120 else f", {round(seconds / 60)} min left"
