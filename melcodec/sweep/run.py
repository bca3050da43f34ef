"""Train the runs of a plan, one after the other or several at a time, and write the page."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from melcodec.config import RunConfig
from melcodec.errors import MelcodecError
from melcodec.manifests.build import find_utterances
from melcodec.manifests.split import split
from melcodec.processes import Lost, Pool, Report, Reported
from melcodec.sweep.page import is_finished, write_results
from melcodec.sweep.plan import Plan, Run, claim_sweep
from melcodec.training.cache import cache_mels
from melcodec.training.data import identity
from melcodec.training.loop import Callbacks
from melcodec.training.run import train


@dataclass(frozen=True)
class _Setup:
    """What a worker process needs for all of its runs."""

    data: tuple[str, ...]
    device: str
    threads: int


@dataclass(frozen=True)
class _Task:
    name: str
    config: RunConfig
    folder: Path


def sweep(
    data: Sequence[Path | str],
    plan: Plan,
    folder: Path,
    device: str = "auto",
    num_workers: int = 1,
    callbacks: Callbacks | None = None,
    command: str = "",
) -> bool:
    """Train every run of ``plan`` in ``folder``/NAME, then write ``index.html``, ``sweep.csv`` and ``sweep.json`` there.

    Finished runs are skipped, unfinished ones go on.

    Args:
        data: as for ``training.run.train``.
        device: of the runs; with several GPUs, the workers share them out.
        num_workers: runs at a time, each in a process of its own if more than one.
        callbacks: ``say``, ``cached`` and ``should_stop`` are called.
        command: that made the page, for its footer.

    Returns:
        Whether all runs are finished; not so when ``should_stop`` asked to stop.

    Raises:
        MelcodecError: no speech, a folder with another sweep, or a run that failed.
    """
    calls = callbacks or Callbacks()
    corpus = _cached(data, plan, calls)
    claim_sweep(folder, plan, corpus)
    steps = plan.runs[0].config.train.steps
    calls.say(f"{len(plan.runs)} runs of {steps:,} steps: {len(plan.combinations)} combinations of settings")
    left = [run for run in plan.runs if not is_finished(folder / run.name, run.config)]
    skipped = len(plan.runs) - len(left)
    if skipped:
        calls.say(f"{skipped} of {len(plan.runs)} runs are finished already")
    report = _Progress(len(plan.runs), skipped, calls)
    train_runs = _in_this_process if num_workers == 1 or len(left) < 2 else _in_processes
    for run in train_runs(data, left, folder, device, num_workers, calls):
        report.finished(run)
    if any(is_finished(folder / run.name, run.config) for run in plan.runs):
        write_results(folder, plan, command)
    return all(is_finished(folder / run.name, run.config) for run in plan.runs)


def _cached(data: Sequence[Path | str], plan: Plan, calls: Callbacks) -> str:
    """Compute the mels of all runs before the first; return what names the corpus."""
    first = plan.runs[0].config
    training, held_out = split(find_utterances(data, calls.say), first.data.valid_fraction, first.data.split)

    def cached(done: int, total: int) -> None:
        calls.cached(done, total)
        if done < total and calls.should_stop():
            raise KeyboardInterrupt("stopped while computing mels; the same command goes on with them")

    for speeds in dict.fromkeys(run.config.augment.speeds for run in plan.runs):
        cache_mels(training, first.model.mel, speeds, first.data.num_workers, cached, calls.say)
    judged = cache_mels(held_out or training, first.model.mel, (1.0,), first.data.num_workers, cached, calls.say)
    digest = hashlib.sha256(identity(judged).encode())
    for utterance in training:
        path = Path(utterance.path)
        size = path.stat().st_size if path.is_file() else None
        digest.update(f"{utterance.id} {utterance.start} {utterance.duration} {size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


class _Progress:
    """A line for every finished run, with the time that is left."""

    def __init__(self, total: int, skipped: int, calls: Callbacks) -> None:
        self.total, self.skipped, self.calls = total, skipped, calls
        self.done, self.started = 0, time.monotonic()

    def finished(self, run: Run) -> None:
        self.done += 1
        left = self.total - self.skipped - self.done
        seconds = (time.monotonic() - self.started) / self.done * left
        words = f", about {max(1, round(seconds / 60))} min left" if left else ""
        self.calls.say(f"[{self.skipped + self.done}/{self.total}] {run.label}, seed {run.seed}: finished{words}")


def _words(name: str, step: int, steps: int, values: dict[str, object]) -> str:
    return f"{name}: step {step} of {steps}: validation log-mel L1 {values['log_mel_l1']:.3f}, {values['codes_used']} codes used"


def _in_this_process(
    data: Sequence[Path | str], runs: Sequence[Run], folder: Path, device: str, num_workers: int, calls: Callbacks
) -> Iterator[Run]:
    """Finished runs as they come; one after the other, until asked to stop."""
    for run in runs:
        if calls.should_stop():
            return

        def report(kind: str, step: int, values: dict[str, object], run: Run = run) -> None:
            if kind == "valid":
                calls.say(_words(run.name, step, run.config.train.steps, values))

        train(data, run.config, folder / run.name, device, callbacks=replace(calls, report=report, say=lambda text: None))
        if is_finished(folder / run.name, run.config):
            yield run


def _in_processes(
    data: Sequence[Path | str], runs: Sequence[Run], folder: Path, device: str, num_workers: int, calls: Callbacks
) -> Iterator[Run]:
    """Finished runs as they come, several at a time; what is stopped goes on from its last saved state."""
    workers = min(num_workers, len(runs))
    threads = max(1, (os.cpu_count() or 1) // workers)
    setups = [_Setup(tuple(map(str, data)), name, threads) for name in _devices(device, workers)]
    named = {run.name: run for run in runs}
    waiting = [_Task(run.name, run.config, folder / run.name) for run in runs]
    with Pool(_start, setups) as pool:
        under_way = 0
        while waiting or under_way:
            if calls.should_stop():
                return
            while waiting and pool.idle():
                pool.submit(waiting.pop(0))
                under_way += 1
            for event in pool.poll():
                if isinstance(event, Reported):
                    calls.say(event.report)
                    continue
                under_way -= 1
                if isinstance(event, Lost):
                    raise MelcodecError(f"{event.task.name}: {event.error}", "the same command goes on; try fewer --num-workers")
                yield named[event.task.name]


def _devices(device: str, workers: int) -> list[str]:
    """The device of each worker: GPUs in turn where the choice is left open."""
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    return [f"cuda:{worker % count}" if count else device for worker in range(workers)]


def _start(setup: _Setup) -> Callable[[_Task, Report], None]:
    """A worker process: train what it is given."""
    torch.set_num_threads(setup.threads)

    def do(task: _Task, said: Report) -> None:
        def report(kind: str, step: int, values: dict[str, object]) -> None:
            if kind == "valid":
                said(_words(task.name, step, task.config.train.steps, values))

        train(setup.data, task.config, task.folder, setup.device, callbacks=Callbacks(report=report))

    return do
