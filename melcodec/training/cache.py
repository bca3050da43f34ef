"""The mel cache: a corpus as one memory-mapped float16 file, computed once.

``mels.f16`` holds natural log-mel frames (T_total, M), time first, so that a crop is one contiguous read; float16 is
exact to 0.004 at ln 1e-5. The folder's name is a hash of the mel settings, the speeds and of every utterance and the size
and time of its file. ``cache_index`` knows what lies in the folder, ``cache_build`` and ``cache_work`` fill it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from melcodec.config import MelConfig
from melcodec.errors import MelcodecError, from_os
from melcodec.files import cache_root
from melcodec.manifests.base import Utterance
from melcodec.training.cache_build import Progress, build
from melcodec.training.cache_index import CACHE_VERSION, INDEX, DamagedError, open_mels
from melcodec.training.cache_work import CacheEntry

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["MelCache", "Progress", "Say", "cache_mels", "cache_root"]

LOCK_SECONDS = 0.5  # between two looks at what another run has done
RATE_STEP = 50  # Hz; other rates have no small ratio to 22,050 or 48,000, and resampling filters grow with it
Say = Callable[[str], None]


@dataclass(frozen=True)
class MelCache:
    """An opened cache of F entries.

    Args:
        mels: (T_total, M) float16, memory-mapped; writing changes this process's view alone.
        starts: (F + 1,) int64: entry f is ``mels[starts[f]:starts[f + 1]]``.
        ids: (F,) of the utterances, with the speed where it is not 1: ``spk/utt@0.9``.
        failures: by id, why an utterance is not among them.
        key: hash of all it was made from, the folder's name.
    """

    mels: np.ndarray
    starts: np.ndarray
    ids: Sequence[str]
    failures: dict[str, str]
    key: str = ""

    @property
    def lengths(self) -> np.ndarray:
        """(F,) frames per entry."""
        return np.diff(self.starts)


def cache_mels(
    utterances: Sequence[Utterance],
    config: MelConfig,
    speeds: Sequence[float] = (1.0,),
    num_workers: int = 0,
    progress: Progress | None = None,
    say: Say | None = None,
) -> MelCache:
    """The cache for ``utterances``, built in parallel when it is not there yet, or as far as it is not there yet.

    Args:
        speeds: each utterance is there at each of them, all utterances of one speed after all of the other; pitch moves
            along, as in Ko et al., "Audio augmentation for speech recognition" (2015).
        num_workers: processes; 0 takes every core.
        progress: called with the entries done and those in all, after each and while another run builds the same cache.
            An exception in it ends the work; the next call resumes there.
        say: called with a message when another run is waited for, or when a damaged cache is repaired.

    Raises:
        MelcodecError: nothing could be read, the disk is full, or the folder cannot be written.

    Unreadable utterances are left out and named in ``failures``.
    """
    jobs = CacheEntries(utterances, config, tuple(map(float, speeds)))
    folder = cache_root() / "mels" / _key(jobs)
    try:
        cache = _open(folder, config.n_mels)
    except DamagedError:  # or being repaired by another process: the lock shows it
        cache = None
    if cache is None:
        workers = num_workers or os.cpu_count() or 1
        cache = _open_or_build(folder, jobs, workers, progress or (lambda done, total: None), say or (lambda text: None))
    if not len(cache.mels):
        shutil.rmtree(folder, ignore_errors=True)  # what is wrong with the files may be mended by the next time
        raise MelcodecError("no file of the corpus could be read", next(iter(cache.failures.values()), None))
    return cache


class CacheEntries(Sequence[CacheEntry]):
    """Every utterance at every speed: speeds outside, utterances inside. They are made when asked for: there are millions."""

    def __init__(self, utterances: Sequence[Utterance], config: MelConfig, speeds: tuple[float, ...]) -> None:
        self.utterances, self.config, self.speeds = utterances, config, tuple(dict.fromkeys(speeds))

    def __len__(self) -> int:
        return len(self.utterances) * len(self.speeds)

    @overload
    def __getitem__(self, index: int) -> CacheEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[CacheEntry]: ...
    def __getitem__(self, index: int | slice) -> CacheEntry | list[CacheEntry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        outer, inner = divmod(range(len(self))[index], len(self.utterances))
        speed, utterance = self.speeds[outer], self.utterances[inner]
        if speed == 1:
            return CacheEntry(utterance.id, utterance, self.config.sample_rate, speed)
        rate = RATE_STEP * round(self.config.sample_rate / speed / RATE_STEP)
        return CacheEntry(f"{utterance.id}@{speed:g}", utterance, rate, speed)


def _key(jobs: CacheEntries) -> str:
    @lru_cache(maxsize=1 << 16)  # utterances of one file stand together
    def file(path: str) -> str:
        if "://" in path:
            return path
        try:
            stat = os.stat(path)  # noqa: PTH116 - a Path each for millions of files takes longer than the asking
        except OSError:  # a broken link; its failure is named when it is read
            return f"{os.path.abspath(path)}\0-1\0-1"  # noqa: PTH100
        return f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}"  # noqa: PTH100

    # whether PyAV is there belongs to it: installing it mends files that failed without
    head = f"{CACHE_VERSION} {jobs.config.model_dump_json()} {jobs.speeds} {find_spec('av') is not None}\n"
    digest = hashlib.sha256(head.encode())
    for item in jobs.utterances:
        line = f"{item.id}\0{file(item.path)}\0{item.member}\0{item.start}\0{item.duration}\n"
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _open(folder: Path, n_mels: int) -> MelCache | None:
    try:
        found = open_mels(folder, n_mels)
    except OSError as error:
        raise from_os(error) from None
    if found is None:
        return None
    index, mels = found
    names, starts = index.readable()
    failures = {index.names[entry]: reason for entry, reason in index.reasons.items()}
    return MelCache(mels, starts, names, failures, folder.name)


def _open_or_build(folder: Path, jobs: CacheEntries, num_workers: int, progress: Progress, say: Say) -> MelCache:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # a script without a guard, imported by a process of the pool, would wait for the lock that its own parent holds
        raise RuntimeError("processes that compute mels import this script: put its work under if __name__ == '__main__':")
    n_mels = jobs.config.n_mels
    with _alone(folder, len(jobs), progress, say):
        try:
            cache = _open(folder, n_mels)  # another run may have made it meanwhile
        except DamagedError as error:
            say(f"the mel cache {folder} is damaged ({error}); its damaged part is made again")
            cache = None
        if cache is None:
            build(folder, jobs, jobs.config, num_workers, progress)
            try:
                cache = _open(folder, n_mels)
            except DamagedError as error:
                raise MelcodecError(f"{folder}: cannot be read back as it was written: {error}", "is the disk failing?") from None
    assert cache is not None  # build ended well
    return cache


@contextmanager
def _alone(folder: Path, total: int, progress: Progress, say: Say) -> Iterator[None]:
    """Hold the lock beside ``folder``; while another run holds it, tell what that one has done."""
    from filelock import FileLock

    lock = FileLock(f"{folder}.lock")
    for turn, lines in enumerate(_lines(folder / INDEX)):
        if _acquired(lock):
            break
        if turn == 0:
            say(f"another run is making the mel cache {folder}; waiting for it")
        progress(min(lines, total - 1), total)
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    from filelock import Timeout

    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)  # polls, so that Ctrl-C is handled
    except Timeout:
        return False
    except OSError as error:
        raise from_os(error) from None
    return True


def _lines(path: Path) -> Iterator[int]:
    """How many lines a growing file has, each time it is asked."""
    lines = position = 0
    while True:
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                while block := file.read(1 << 20):
                    lines, position = lines + block.count(b"\n"), position + len(block)
        yield lines
