"""A corpus to a store of codes, on whatever executor: nothing lost, nothing done twice, the same bytes in the end.

The driver plans, gives units to workers, decides what becomes of those that die, and reconciles. It may be killed at any
moment: what is committed is kept, and the same command resumes from there.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from melcodec.corpus.progress import Meter, Snapshot
from melcodec.corpus.quarantine import ATTEMPTS, UnitProgress
from melcodec.corpus.reading import Rules
from melcodec.corpus.tasks import WORKERS_PER_GPU, Event, Executor, Setup, UnitTask, start_worker
from melcodec.errors import MelcodecError, from_os
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.manifests.base import Utterance
from melcodec.processes import Finished, Lost, Pool
from melcodec.store.commit import committed, sweep
from melcodec.store.finalize import Summary, finalize
from melcodec.store.layout import LOCK, marker_path, part_name, part_path
from melcodec.store.plan import Segment, Unit, extend_plan
from melcodec.store.retry import begin_retry, end_retry, resume_retry

UNIT_TIMEOUT = 3600.0
Todo = list[tuple[Segment, int]]


@dataclass(frozen=True)
class PreprocessSettings:
    """How a corpus is encoded. Only ``checkpoint`` and ``rules`` change what comes out.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        workers: processes; 0: one per core, or two per GPU.
        engine: ``embedded`` or ``ray``; ``address`` is that of the Ray cluster.
        unit_size: utterances per unit; 0: as fits the corpus.
        unit_timeout: seconds that a unit may take; one of more than four hours of sound may take more.
        attempts: how often a unit may kill its worker before it is halved.
        retry_failed: do error rows again.
    """

    checkpoint: str = DEFAULT_CHECKPOINT
    rules: Rules = field(default_factory=Rules)
    device: str = "auto"
    workers: int = 0
    engine: str = "embedded"
    address: str = "auto"
    unit_size: int = 0
    unit_timeout: float = UNIT_TIMEOUT
    attempts: int = ATTEMPTS
    retry_failed: bool = False


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called during the run: ``stopped``, several times a second, says whether to stop."""

    say: Callable[[str], None] = print
    progress: Callable[[Snapshot], None] = lambda snapshot: None
    stopped: Callable[[], bool] = lambda: False


def preprocess(
    utterances: Sequence[Utterance], folder: Path, settings: PreprocessSettings, callbacks: Callbacks | None = None
) -> Summary | None:
    """Encode ``utterances`` into the store ``folder``, or resume the run that it holds.

    Returns:
        What the store holds; None when ``callbacks.stopped`` said so before the end.

    Raises:
        MelcodecError: the store belongs to another run, is in use, or cannot be written; no worker can start.
    """
    from melcodec.store.spec import begin_or_resume

    callbacks = callbacks or Callbacks()
    wanted = _wanted(settings)
    with _locked(folder):
        spec = begin_or_resume(folder, wanted, callbacks.say)
        segments = extend_plan(folder, utterances, settings.unit_size, callbacks.say)
        sweep(folder)
        retried = _retry(folder, segments, settings.retry_failed, callbacks.say)
        _tell_changed(folder, segments, callbacks.say)
        meter, todo = _survey(folder, segments, retried, callbacks.say)
        stuck: dict[str, str] = {}
        if todo:
            executor = _executor(settings, folder, spec, len(todo), callbacks.say)
            try:
                stopped = not _Run(executor, settings, callbacks, meter, retried).run(todo, stuck)
            except OSError as error:
                raise from_os(error) from None
            finally:
                executor.close()
                sweep(folder)
            if stopped:
                now = meter.snapshot()
                callbacks.say(f"stopped: {now.units} of {now.planned_units} units are done; the same command resumes from here")
                return None
        summary = finalize(folder, segments, stuck)
        end_retry(folder)
        return summary


class _Run:
    """Gives tasks to workers and handles their events; of units that are ``retried``, only error rows are encoded again."""

    def __init__(
        self, executor: Executor, settings: PreprocessSettings, callbacks: Callbacks, meter: Meter, retried: Collection[str]
    ) -> None:
        self.executor, self.settings, self.callbacks, self.meter, self.retried = executor, settings, callbacks, meter, retried
        self.cases: dict[str, UnitProgress] = {}  # of units that workers have
        self.again: deque[UnitTask] = deque()

    def run(self, todo: Todo, stuck: dict[str, str]) -> bool:
        """Do all of ``todo``, or note in ``stuck`` why not; False when it was stopped before the end."""
        fresh = deque(todo)
        while fresh or self.cases:
            if self.callbacks.stopped():
                return False
            for _ in range(self.executor.idle()):
                if not self.again and fresh:
                    self.again.append(self._open(*fresh.popleft()))
                if self.again:
                    self.meter.start()
                    task = self.again.popleft()
                    self.executor.submit(task, task.timeout)
            for event in self.executor.poll():
                self.meter.note(event)
                self._note(event, stuck)
            self.callbacks.progress(self.meter.snapshot())
        return True

    def _open(self, segment: Segment, number: int) -> UnitTask:
        name = part_name(segment.number, number)
        case = UnitProgress(segment.unit(number), self.settings.unit_timeout, self.settings.attempts, name in self.retried)
        self.cases[name] = case
        return case.first()

    def _note(self, event: Event, stuck: dict[str, str]) -> None:
        name = _name(event.task.unit)
        case = self.cases[name]
        if isinstance(event, Finished):
            self.again.extend(case.finished(event.task))
            if event.result is not None:
                del self.cases[name]
        elif isinstance(event, Lost):
            what = f"{len(event.task.unit.utterances)} utterances of unit {name}"
            self.callbacks.say(f"worker {event.worker} is replaced: {what}: {event.error}")
            self.again.extend(case.lost(event.task, event.status, event.error))
            if case.stuck:
                stuck[name] = case.stuck
                self.meter.give_up(case.unit)
                del self.cases[name]


def _wanted(settings: PreprocessSettings) -> dict[str, Any]:
    """The specification that ``settings`` asks for; what can be refused before a folder is touched raises MelcodecError."""
    from melcodec.codec import Codec
    from melcodec.corpus.spec import run_spec
    from melcodec.devices import find_device
    from melcodec.formats.checkpoint import load_checkpoint
    from melcodec.formats.shipped import find_checkpoint

    if settings.engine == "ray":
        from melcodec.corpus.ray_executor import check_cluster

        check_cluster(settings.address)
    elif settings.engine == "embedded":
        find_device(settings.device)
    else:
        raise MelcodecError(f"--engine {settings.engine}: no such engine", "embedded or ray")
    checkpoint = load_checkpoint(find_checkpoint(settings.checkpoint))
    codec = Codec.from_checkpoint(checkpoint, "cpu")
    return run_spec(codec, checkpoint.config.mel, settings.checkpoint, settings.rules)


def _retry(folder: Path, segments: Sequence[Segment], wanted: bool, say: Callable[[str], None]) -> set[str]:
    """Names of the units of which only error rows are to be made anew: by a retry that is ``wanted``, or under way."""
    if under_way := resume_retry(folder):
        more = "; run it once more for what failed since" if wanted else ""
        say(f"resuming the retry that was started before{more}")
        return under_way
    opened = begin_retry(folder, segments) if wanted else []
    if opened:
        say(f"{'1 unit that holds' if len(opened) == 1 else f'{len(opened)} units that hold'} failures will be done again")
    elif wanted:
        say("nothing failed before: there is nothing to try again")
    return set(opened)


def _tell_changed(folder: Path, segments: Sequence[Segment], say: Callable[[str], None]) -> None:
    """Say how many files are newer than the markers of their units: what is stored of them is that of the files before."""
    count, example = 0, ""
    for segment in segments:
        for number in range(len(segment.units)):
            part = part_path(folder, segment.number, number)
            with suppress(OSError):  # the unit is not done
                done = marker_path(part).stat().st_mtime_ns
                newer = [each.path for each in segment.unit(number).utterances if _changed(each.path) > done]
                count += len(newer)
                example = example or (f"{newer[0]}, in {part}" if newer else "")
    if count:
        files = "1 file has changed since it was" if count == 1 else f"{count} files have changed since they were"
        say(
            f"note: {files} encoded, such as {example}: what is stored of them is kept; "
            "--retry-failed encodes those that failed; to encode others again, remove their parts and run the command again"
        )


def _changed(path: str) -> int:
    """When the file was last changed, in ns; 0 where that is not known."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:  # missing, or a URL
        return 0


def _survey(folder: Path, segments: Sequence[Segment], retried: set[str], say: Callable[[str], None]) -> tuple[Meter, Todo]:
    """What is done, and what is to do: units without a marker, and those whose part is not what it says.

    Of the latter nothing is kept: they leave ``retried``.
    """
    todo: Todo = []
    receipts = []
    for segment in segments:
        for number in range(len(segment.units)):
            try:
                receipt = committed(folder, segment, number)
            except MelcodecError as error:
                say(f"{error.message}; the unit will be done again")
                retried.discard(part_name(segment.number, number))
                receipt = None
            if receipt is None:
                todo.append((segment, number))
            else:
                receipts.append(receipt)
    expected = sum(segment.units[number].seconds for segment, number in todo)
    meter = Meter(sum(segment.utterances for segment in segments), len(todo) + len(receipts), expected)
    for receipt in receipts:
        meter.before(receipt.rows, receipt.errors)
    return meter, todo


def _executor(
    settings: PreprocessSettings, folder: Path, spec: dict[str, Any], units: int, say: Callable[[str], None]
) -> Executor:
    """The workers that ``settings`` asks for, no more than there are units."""
    path = Path(settings.checkpoint)
    checkpoint = str(path.absolute()) if path.is_file() else settings.checkpoint
    setup = Setup(checkpoint, settings.device, 1, str(folder.absolute()), spec)
    if settings.engine == "ray":
        from melcodec.corpus.ray_executor import RayExecutor

        return RayExecutor(setup, settings.address, settings.workers, units, say)
    return Pool(start_worker, list(_setups(setup, settings.workers, units)))


def _setups(setup: Setup, workers: int, units: int) -> Iterable[Setup]:
    """One for each process of this machine: its device, and its share of the cores."""
    import torch

    from melcodec.devices import find_device

    device = find_device(setup.device)
    devices = [str(device)]
    if device.type == "cuda" and device.index is None:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    usual = {"cpu": cores, "cuda": WORKERS_PER_GPU * len(devices)}.get(device.type, 1)
    count = min(workers or usual, units)
    for number in range(count):
        yield replace(setup, device=devices[number % len(devices)], threads=max(1, cores // count))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``, so that only one driver works there. The system releases it if the process dies."""
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise MelcodecError(f"{folder}: is a file; a folder was expected")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise MelcodecError(f"{folder}: another melcodec preprocess is running there", "wait for it, or stop it") from None
    except OSError as error:
        raise MelcodecError(f"{folder}: cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


def _name(unit: Unit) -> str:
    return part_name(unit.segment, unit.number)
