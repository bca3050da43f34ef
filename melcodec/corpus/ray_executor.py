"""Workers as actors of a Ray cluster. Ray places them and tells when one is gone; attempts are the driver's alone.

The store, the sound and the checkpoint must have the same paths on every node, as on a shared file system, and melcodec
must be installed there. When the driver dies, Ray ends its actors.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

from melcodec.corpus.tasks import WORKERS_PER_GPU, Advance, Advanced, Event, Setup, UnitTask, Worker
from melcodec.errors import MelcodecError
from melcodec.processes import POLL_SECONDS, STARTS, Finished, Lost, told

PATIENCE = 60.0  # seconds without any worker before the user is told
GPU_CORES = 8  # at most, that decode for one worker with a GPU
HOST_AND_PORT = re.compile(r"(?:ray://)?\[?(.+?)\]?:(\d{1,5})")
ANSWER_SECONDS = 5.0  # that a cluster has to take a connection; Ray itself asks for a minute and more


def check_cluster(address: str) -> None:
    """Raise MelcodecError unless Ray is installed, and somebody listens at ``address`` where that is HOST:PORT."""
    _ray()
    place = HOST_AND_PORT.fullmatch(address)
    if place is None:
        return
    try:
        socket.create_connection((place[1], int(place[2])), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> MelcodecError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return MelcodecError(
        f"--address {address}: no Ray cluster is there ({reason})",
        "start one with ray start --head, or use --address local",
    )


class RayExecutor:
    """Actors that run the unit function.

    Args:
        setup: of every worker; its device and threads are found here.
        address: ``auto``, ``local`` or that of a cluster.
        workers: at most; 0: as many as the cluster has cores, less one, or two for each GPU.
        units: there is no use for more workers.
    """

    def __init__(self, setup: Setup, address: str, workers: int, units: int, say: Callable[[str], None] = print) -> None:
        self.ray = _ray()
        self.ours = not self.ray.is_initialized()
        if self.ours:
            self._connect(address)
        have = self.ray.cluster_resources()
        cores, gpus = int(have.get("CPU", 1)), int(have.get("GPU", 0))
        on_gpu = setup.device.startswith("cuda") or (setup.device == "auto" and gpus > 0)
        if on_gpu and not gpus:
            self.close()
            raise MelcodecError(f"--device {setup.device}: the cluster has no GPU", "use --device cpu")
        # Ray's own work needs a core, or everything waits for everything
        most = WORKERS_PER_GPU * gpus if on_gpu else max(1, cores - 1)
        if workers > most:
            say(_too_many(workers, most, cores, on_gpu))
        threads = max(1, min(GPU_CORES, (cores - 1) // most)) if on_gpu else 1
        setup = replace(setup, device="cuda" if on_gpu else "cpu", threads=threads)
        options = {"num_cpus": threads, "num_gpus": on_gpu / WORKERS_PER_GPU, "max_restarts": 0, "max_task_retries": 0}
        actor = self.ray.remote(**options)(_Actor)
        self.begun: list[Advanced] = []
        self.say, self.waiting_since = say, time.monotonic()
        self.hands = [_Hand(number, self.ray, actor, setup) for number in range(min(workers or most, most, units))]

    def idle(self) -> int:
        """How many workers wait for a task."""
        return sum(hand.ready and hand.task is None for hand in self.hands)

    def submit(self, task: UnitTask, timeout: float) -> None:
        """Give ``task`` to one of them; it may take ``timeout`` seconds."""
        hand = next(hand for hand in self.hands if hand.ready and hand.task is None)
        hand.give(task, timeout)
        self.begun.append(Advanced(hand.number, task, Advance(0, 0.0, 0)))  # all that is told before the end: calls cost time

    def poll(self, timeout: float = POLL_SECONDS) -> list[Event]:
        """What happened; see ``tasks.Executor``."""
        waiting = {hand.answer: hand for hand in self.hands if hand.answer is not None}
        if not waiting:
            time.sleep(timeout)
            return []
        self.ray.wait(list(waiting), num_returns=1, timeout=timeout)
        answered, _ = self.ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        events: list[Event] = [*self.begun]
        self.begun.clear()
        events += [event for answer in answered for event in waiting[answer].answered()]
        events += [event for hand in self.hands for event in hand.overdue()]
        self._complain()
        return events

    def close(self) -> None:
        """Kill all workers, and leave the cluster."""
        for hand in getattr(self, "hands", ()):
            hand.end()
        if self.ours:
            self.ray.shutdown()

    def _connect(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as later Rays will do; silences a warning
        try:
            self.ray.init(address=address, logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise _no_cluster(address, error) from None

    def _complain(self) -> None:
        if any(hand.ready for hand in self.hands):
            self.waiting_since = time.monotonic()
        elif time.monotonic() - self.waiting_since > PATIENCE:
            self.say("no worker has started yet: does the cluster have free cores or GPUs?")
            self.waiting_since = time.monotonic()


def _too_many(workers: int, most: int, cores: int, on_gpu: bool) -> str:
    have = f"{_counted(cores, 'core')}, of which Ray itself needs one"
    if on_gpu:
        have = f"{_counted(most // WORKERS_PER_GPU, 'GPU')}, for two workers each"
    return f"{workers} workers do not fit: the cluster has {have}; {most} {'is' if most == 1 else 'are'} used"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class _Hand:
    """A worker as the driver sees it."""

    handle: Any
    answer: Any
    task: UnitTask | None
    deadline: float
    ready: bool

    def __init__(self, number: int, ray: Any, actor: Any, setup: Setup) -> None:
        self.number, self.ray, self.actor, self.setup = number, ray, actor, setup
        self.failed_starts = 0
        self._start()

    def give(self, task: UnitTask, timeout: float) -> None:
        """Send ``task``; its time runs from now."""
        self.task, self.deadline = task, time.monotonic() + timeout
        self.answer = self.handle.run.remote(task)

    def answered(self) -> Iterator[Event]:
        """What its answer, which is there, says."""
        try:
            word, *values = self.ray.get(self.answer)
        except self.ray.exceptions.RayError:
            yield from self._replace("crash", "killed its worker (its process or its node died)")
            return
        self.answer = None
        if word == "refused":
            raise values[0]
        if word == "failed":
            yield from self._replace("crash", f"its worker failed: {values[0]}")
        elif word == "ready":
            self.ready, self.failed_starts = True, 0
        elif self.task is not None:
            task, self.task = self.task, None
            yield Finished(self.number, task, *values)

    def overdue(self) -> Iterator[Event]:
        """Its task as lost, when it takes too long."""
        if self.task is not None and time.monotonic() > self.deadline:
            yield from self._replace("timeout", f"took longer than {self.task.timeout:g} s")

    def end(self) -> None:
        """Kill the actor."""
        self.ray.kill(self.handle, no_restart=True)

    def _replace(self, status: str, error: str) -> Iterator[Event]:
        self.end()
        if not self.ready:
            self.failed_starts += 1
        if self.failed_starts == STARTS:
            raise MelcodecError(f"workers stop while they start: {error}", "is melcodec installed on every node?")
        lost = [Lost(self.number, self.task, status, error)] if self.task else []
        self._start()
        yield from lost

    def _start(self) -> None:
        self.task, self.ready, self.deadline = None, False, 0.0
        self.handle = self.actor.remote(self.setup)
        self.answer = self.handle.start.remote()  # where no place is free, the answer comes when there is one


class _Actor:
    """All that a worker does; what goes wrong is returned, because an exception of an actor would come wrapped in Ray's own."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def start(self) -> tuple[Any, ...]:
        """Load the codec."""
        return _caught(self._load)

    def run(self, task: UnitTask) -> tuple[Any, ...]:
        """Do ``task``."""
        return _caught(lambda: ("finished", self.worker.run(task)))

    def _load(self) -> tuple[Any, ...]:
        self.worker = Worker(self.setup)
        return ("ready",)


def _caught(work: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    try:
        return work()
    except Exception as error:
        return told(error)


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise MelcodecError("--engine ray needs an optional package", "pip install 'melcodec[ray]'") from None
