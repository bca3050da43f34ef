"""What the driver and its workers say to each other, on whatever executor. No torch here: processes start sooner."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from melcodec.processes import Finished, Lost, Reported
from melcodec.store.plan import Unit

if TYPE_CHECKING:
    from melcodec.store.commit import Receipt

MAX_READERS = 16  # threads that decode for one worker
WORKERS_PER_GPU = 2  # while one reads its next unit and writes its last, the other encodes
CUDA_BATCHES = 8  # times as many frames in a batch as on a CPU


@dataclass(frozen=True)
class Setup:
    """What a worker needs before its first task.

    Args:
        checkpoint: path or shipped name.
        device: as ``--device`` has it.
        threads: cores that are this worker's.
        folder: the store.
        spec: the run specification.
    """

    checkpoint: str
    device: str
    threads: int
    folder: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class UnitTask:
    """A unit to encode, or a piece of one.

    Args:
        timeout: seconds it may take.
        probe: only find out whether it can be done; nothing is written.
        gentle: one utterance at a time.
        bad: id -> status and error of utterances that must not be touched.
        again: the unit is retried: what its part holds with codes stays as it is.
        tries: how often it was lost before.
    """

    unit: Unit
    timeout: float
    probe: bool = False
    gentle: bool = False
    bad: dict[str, tuple[str, str]] = field(default_factory=dict)
    again: bool = False
    tries: int = 0


@dataclass(frozen=True)
class Advance:
    """How far a worker is with a task: utterances, seconds of sound, and failures so far."""

    utterances: int
    seconds: float
    failures: int


Advanced = Reported[UnitTask]  # its report is an Advance
Event = Reported[UnitTask] | Finished[UnitTask, "Receipt | None"] | Lost[UnitTask]  # a probe has no receipt


class Executor(Protocol):
    """Workers on this machine or on others. Workers that die are replaced."""

    def idle(self) -> int:
        """How many workers wait for a task."""

    def submit(self, task: UnitTask, timeout: float) -> None:
        """Give ``task`` to one of them; it may take ``timeout`` seconds."""

    def poll(self) -> list[Event]:
        """What happened; waits a moment for something to happen.

        Raises:
            MelcodecError: what no worker can mend: a full disk, a checkpoint that is not there.
        """

    def close(self) -> None:
        """End all workers, at once."""


def start_worker(setup: Setup) -> Callable[[UnitTask, Callable[[Advance], None]], Receipt | None]:
    """For ``processes.Pool``: load the codec, and return what does a task."""
    return Worker(setup).run


class Worker:
    """A codec that waits for tasks, in a process of its own."""

    def __init__(self, setup: Setup) -> None:
        # before torch is imported; nearly every padded batch has a shape of its own, whose kernels need not be kept
        os.environ["OMP_NUM_THREADS"] = str(setup.threads)
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        import torch

        from melcodec.codec import BATCH_FRAMES, Codec
        from melcodec.corpus.spec import check_worker
        from melcodec.corpus.unit import BatchSettings

        torch.set_num_threads(setup.threads)
        # Threads resample while another encodes; devices.exact_float32 switches the whole process, and back to this.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        self.codec = Codec.from_pretrained(setup.checkpoint, setup.device)
        check_worker(self.codec, setup.spec)
        cuda = self.codec.device.type == "cuda"
        self.batching = BatchSettings(min(MAX_READERS, max(2, setup.threads)), BATCH_FRAMES * (CUDA_BATCHES if cuda else 1))
        self.folder, self.spec = Path(setup.folder), setup.spec

    def run(self, task: UnitTask, report: Callable[[Advance], None] | None = None) -> Receipt | None:
        """Do ``task``; the receipt is None for a probe."""
        from melcodec.corpus.reading import Rules
        from melcodec.corpus.unit import GENTLE, encode_unit, process_unit
        from melcodec.store.retry import known_rows

        def advanced(*numbers: Any) -> None:
            if report:
                report(Advance(*numbers))

        batching = GENTLE if task.gentle else self.batching
        known = known_rows(self.folder, task.unit, self.spec) if task.again else {}
        if task.probe:
            encode_unit(task.unit, self.codec, Rules(**self.spec["settings"]), task.bad, known, batching, advanced)
            return None
        return process_unit(task.unit, self.codec, self.folder, self.spec, task.bad, known, batching, advanced)
