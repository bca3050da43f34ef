"""Computing mels for the cache: one entry at a time, in as many processes as wanted, in order."""

from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from melcodec.audio.io import Span, StretchReader
from melcodec.config import MelConfig
from melcodec.errors import ErrorCode, MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.processes import Lost, Pool, run_all

PART = ".part"
HELD_BYTES = 1 << 24  # of one entry, 20 minutes; longer ones pass through a file, so that a day of speech takes no memory
AHEAD = 4  # entries per process that are under way or wait for their turn
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})  # of this machine
OUR_FAULT: ErrorCode = "unwritable"  # of an error that is not the file's


@dataclass(frozen=True)
class CacheEntry:
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


def compute(
    jobs: Iterable[CacheEntry], num_workers: int, folder: Path, config: MelConfig
) -> Generator[tuple[CacheEntry, Made], None, None]:
    """Every job with what it gives, in order; close the iterator to stop early.

    Args:
        num_workers: processes; with 1 this one works alone.
        folder: for what is too long to hold; a ``Path`` given becomes the caller's.

    Raises:
        MelcodecError: a process died, or this machine is short of something.
    """
    if num_workers <= 1:
        worker = _Worker(config, folder)
        with closing(worker.reader):
            yield from ((job, worker.made(job)) for job in jobs)
        return
    with Pool(_start, [(config, folder)] * num_workers, depth=2) as pool:
        for event in run_all(pool, jobs, AHEAD * num_workers):
            if isinstance(event, Lost):
                hint = "out of memory? try --set data.num_workers=1"
                raise MelcodecError(f"{event.task.utterance.path}: a process that computed its mel stopped", hint)
            yield event.task, event.result


def _start(setup: tuple[MelConfig, Path]) -> Callable[[CacheEntry, object], Made]:
    """In a worker process."""
    import torch

    torch.set_num_threads(1)
    worker = _Worker(*setup)
    return lambda job, report: worker.made(job)


class _Worker:
    """Computes the mel of one job after another."""

    def __init__(self, config: MelConfig, folder: Path) -> None:
        from melcodec.audio.mel import build_frontend

        # the cache holds the natural domain, so the norms do not matter here
        self.frontend = build_frontend(config, (1.0,) * config.n_mels)
        self.reader, self.folder = StretchReader(), folder

    def made(self, job: CacheEntry) -> Made:
        """What ``job`` gives."""
        memory = io.BytesIO()
        file: Any = None
        try:
            for rows in self._rows(job):
                if file is None and memory.tell() + rows.nbytes > HELD_BYTES:
                    file = tempfile.NamedTemporaryFile(dir=self.folder, suffix=PART, delete=False)
                    file.write(memory.getbuffer())
                    memory = io.BytesIO()
                (file or memory).write(rows.data)
        except MelcodecError as error:
            if error.code == OUR_FAULT:
                raise
            return error.message  # the caller removes the file
        finally:
            if file is not None:
                file.close()
        return memory.getvalue() if file is None else Path(file.name)

    def _rows(self, job: CacheEntry) -> Iterator[np.ndarray]:
        """The mel (t, M) float16 in parts; raises MelcodecError, of code ``OUR_FAULT`` where the file is not to blame."""
        utterance = job.utterance
        span = Span(utterance.start, utterance.duration)
        try:
            blocks = self.reader.read_blocks(utterance.path, job.rate, span, utterance.member)
            for mel in self.frontend.stream(blocks):
                yield mel.T.astype(np.float16, order="C")
        except (MelcodecError, MemoryError):
            raise
        except OSError as error:
            if error.errno in SHORTAGES:
                hint = f"is there room in {tempfile.gettempdir()}? TMPDIR names another folder for what must be unpacked"
                raise MelcodecError(f"{utterance.path}: cannot be read now: {error.strerror}", hint, OUR_FAULT) from None
            raise MelcodecError(f"{utterance.path}: {error.strerror or error}", code="unreadable") from None
        except Exception as error:  # among ten million files one finds the bug of a decoder
            raise MelcodecError(f"{utterance.path}: {type(error).__name__}: {error}", code="unreadable") from None
