"""Computing mels for the cache: one entry at a time, in as many processes as wanted, in order."""

from __future__ import annotations

import ctypes
import errno
import io
import multiprocessing
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from melcodec.audio.io import Span, StretchReader
from melcodec.config import MelConfig
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.processes import follow_parent, sigint_held

if TYPE_CHECKING:
    from melcodec.audio.mel import MelFrontend

PART = ".part"
HELD_BYTES = 1 << 24  # of one entry, 20 minutes; longer ones pass through a file, so that a day of speech takes no memory
AHEAD = 4  # entries per process that are under way or wait for their turn
MAX_WINDOWS_WORKERS = 61  # Windows waits for no more processes at once
OUR_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})  # not the file's


@dataclass(frozen=True)
class Job:
    """One entry of a cache: an utterance, named, resampled to ``rate`` Hz and then taken for the front end's rate."""

    name: str
    utterance: Utterance
    rate: int
    speed: float

    @property
    def seconds(self) -> float | None:
        """How long it becomes, if the list says."""
        return None if self.utterance.duration is None else self.utterance.duration / self.speed


Made: TypeAlias = bytes | Path | str  # what a job gives: rows (T, M) of float16, a file of them, or why there are none


def compute(jobs: Iterable[Job], num_workers: int, folder: Path, config: MelConfig) -> Generator[tuple[Job, Made], None, None]:
    """Every job with what it gives, in order; close the iterator to stop early.

    Args:
        num_workers: processes; with 1 this one works alone.
        folder: for what is too long to hold; a ``Path`` given becomes the caller's.

    Raises:
        MelcodecError: a process died, or this machine is short of something.
    """
    if num_workers <= 1:
        _start(config, folder, ctypes.c_bool(False))
        with closing(_worker.reader):
            yield from ((job, _made(job)) for job in jobs)
        return
    most = MAX_WINDOWS_WORKERS if sys.platform == "win32" else num_workers
    # spawn: forking a process that has started torch's threads may hang
    context = multiprocessing.get_context("spawn")
    stop = context.RawValue(ctypes.c_bool, False)  # an Event has a lock, which a killed process may hold for ever
    pool = ProcessPoolExecutor(min(num_workers, most), context, _start_process, (config, folder, stop))
    try:
        yield from _in_order(pool, jobs, AHEAD * num_workers)
    except BrokenProcessPool:
        raise MelcodecError(
            "a process that computes mels died",
            "out of memory? try --set data.num_workers=1; a script calls melcodec.train() under if __name__ == '__main__':",
        ) from None
    finally:
        stop.value = True
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, jobs: Iterable[Job], ahead: int) -> Iterator[tuple[Job, Made]]:
    waiting: deque[tuple[Job, Future[Made]]] = deque()
    for job in jobs:
        with sigint_held():  # a process may start here
            waiting.append((job, pool.submit(_made, job)))
        if len(waiting) == ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


# ---- in the process that computes


@dataclass(frozen=True)
class _Worker:
    frontend: MelFrontend
    reader: StretchReader
    folder: Path
    stop: Any  # a shared ctypes.c_bool: nobody wants the result any more


_worker: _Worker


class _UnreadableError(Exception):
    """Why a file gives no mel."""


def _start(config: MelConfig, folder: Path, stop: Any) -> None:
    global _worker
    from melcodec.audio.mel import build_frontend

    # the cache holds the natural domain, so the norms do not matter here
    _worker = _Worker(build_frontend(config, (1.0,) * config.n_mels), StretchReader(), folder, stop)


def _start_process(config: MelConfig, folder: Path, stop: Any) -> None:
    follow_parent()
    import torch

    torch.set_num_threads(1)
    _start(config, folder, stop)


def _made(job: Job) -> Made:
    memory = io.BytesIO()
    file: Any = None
    try:
        for rows in _rows(job):
            if file is None and memory.tell() + rows.nbytes > HELD_BYTES:
                file = tempfile.NamedTemporaryFile(dir=_worker.folder, suffix=PART, delete=False)
                file.write(memory.getbuffer())
                memory = io.BytesIO()
            (file or memory).write(rows.data)
    except _UnreadableError as error:
        return str(error)  # the caller removes the file
    finally:
        if file is not None:
            file.close()
    return memory.getvalue() if file is None else Path(file.name)


def _rows(job: Job) -> Iterator[np.ndarray]:
    """The mel (t, M) float16 in parts; what is wrong with the file is an _UnreadableError, other trouble what it is."""
    utterance = job.utterance
    span = Span(utterance.start, utterance.duration)
    try:
        blocks = _worker.reader.read_blocks(utterance.path, job.rate, span, utterance.member)
        for mel in _worker.frontend.stream(blocks):
            if _worker.stop.value:
                raise _UnreadableError("stopped")  # nobody will read it
            yield mel.T.astype(np.float16, order="C")
    except (_UnreadableError, MemoryError):
        raise
    except OSError as error:
        if error.errno in OUR_FAULT:
            hint = f"is there room in {tempfile.gettempdir()}? TMPDIR names another folder for what must be unpacked"
            raise MelcodecError(f"{utterance.path}: cannot be read now: {error.strerror}", hint) from None
        raise _UnreadableError(f"{utterance.path}: {error.strerror or error}") from None
    except MelcodecError as error:
        raise _UnreadableError(str(error)) from None
    except Exception as error:  # among ten million files one finds the bug of a decoder
        raise _UnreadableError(f"{utterance.path}: {type(error).__name__}: {error}") from None
