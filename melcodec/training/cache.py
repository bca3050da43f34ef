"""The mel cache: a corpus as one memory-mapped float16 file, computed once.

``mels.f16`` holds natural log-mel frames (T_total, M), time first, so that a crop is one contiguous read; float16 is
exact to 0.004 at ln 1e-5. ``index.json`` says which frames are whose and is written last: it marks the cache as whole.
The folder's name is a hash of the mel settings and of every file's path, size and time.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from melcodec.audio.io import read_blocks
from melcodec.config import MelConfig
from melcodec.errors import MelcodecError
from melcodec.files import written_aside

if TYPE_CHECKING:
    from melcodec.audio.mel import MelFrontend

CACHE_VERSION = 1
MELS, INDEX = "mels.f16", "index.json"
MAX_WINDOWS_WORKERS = 61  # Windows waits for no more processes at once
Progress = Callable[[int, int], None]  # files done, files in all
_frontend: MelFrontend  # of a worker process, or of this one when it works alone


@dataclass(frozen=True)
class MelCache:
    """An opened cache. mels (T_total, M) float16, memory-mapped; starts (F + 1,): file f is ``starts[f]:starts[f+1]``."""

    mels: np.ndarray
    starts: np.ndarray
    paths: list[str]
    failures: dict[str, str]

    @property
    def lengths(self) -> np.ndarray:
        """(F,) frames per file."""
        return np.diff(self.starts)


def cache_root() -> Path:
    """``$MELCODEC_CACHE``, or ``melcodec`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MELCODEC_CACHE") or Path(base) / "melcodec")


def cache_mels(paths: list[Path], config: MelConfig, num_workers: int = 0, progress: Progress | None = None) -> MelCache:
    """The cache for ``paths``, built in parallel when it is not there yet.

    Args:
        num_workers: processes; 0 takes every core.
        progress: called after each file. What it raises ends the work, and nothing half-made stays.

    Unreadable files are left out and named in ``failures``.
    """
    folder = cache_root() / "mels" / _key(paths, config)
    if not (folder / INDEX).exists():
        _build(folder, paths, config, num_workers or os.cpu_count() or 1, progress or (lambda done, total: None))
    return _open(folder, config.n_mels)


def _key(paths: list[Path], config: MelConfig) -> str:
    # whether PyAV is there belongs to it: installing it mends files that failed without
    digest = hashlib.sha256(f"{CACHE_VERSION} {config.model_dump_json()} {find_spec('av') is not None}".encode())
    for path in paths:
        try:
            stat = path.stat()
            size, changed = stat.st_size, stat.st_mtime_ns
        except OSError:  # a broken link; its failure is named when it is read
            size = changed = -1
        digest.update(f"{path.resolve()}\0{size}\0{changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _build(folder: Path, paths: list[Path], config: MelConfig, num_workers: int, progress: Progress) -> None:
    kept: list[str] = []
    starts, failures = [0], {}
    with written_aside(folder / MELS) as aside, aside.open("wb") as file:
        for done, (path, mel, reason) in enumerate(_mels(paths, config, num_workers), start=1):
            if reason is None:
                file.write(mel.tobytes())
                kept.append(str(path))
                starts.append(starts[-1] + len(mel))
            else:
                failures[str(path)] = reason
            progress(done, len(paths))
    with written_aside(folder / INDEX) as aside:
        aside.write_text(json.dumps({"paths": kept, "starts": starts, "failures": failures}))


def _mels(paths: list[Path], config: MelConfig, num_workers: int) -> Iterator[tuple[Path, np.ndarray, str | None]]:
    """(path, mel (T, M) float16, None or why there is none), in the order of ``paths``."""
    if num_workers == 1 or len(paths) == 1:
        _start_worker(config, threads=None)
        yield from map(_mel_of, paths)
        return
    # spawn: forking a process that has started torch's threads may hang
    most = MAX_WINDOWS_WORKERS if sys.platform == "win32" else num_workers
    with ProcessPoolExecutor(min(num_workers, most), get_context("spawn"), _start_worker, (config, 1)) as pool:
        try:
            with _sigint_held():
                mels = pool.map(_mel_of, paths)  # file by file, so that a stop waits for no more than one each
            yield from mels
        except BrokenProcessPool:
            raise MelcodecError(
                "a process that computes mels died",
                "out of memory? try --set data.num_workers=1; a script calls melcodec.train() "
                "under if __name__ == '__main__':",
            ) from None


@contextmanager
def _sigint_held() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; those started in here never hear it (on Windows, once they run)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(config: MelConfig, threads: int | None) -> None:
    global _frontend
    import torch

    from melcodec.audio.mel import build_frontend

    if threads:  # a process of a pool, which its parent stops
        torch.set_num_threads(threads)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    # the cache holds the natural domain, so the norms do not matter here
    _frontend = build_frontend(config, (1.0,) * config.n_mels)


def _mel_of(path: Path) -> tuple[Path, np.ndarray, str | None]:
    try:
        blocks = read_blocks(path, _frontend.sample_rate)
        # part by part: a whole recording in float32 would take three times as much memory
        parts = [mel.T.astype(np.float16, order="C") for mel in _frontend.stream(blocks)]
        return path, np.concatenate(parts), None
    except (MelcodecError, OSError) as error:
        return path, np.empty((0, _frontend.n_mels), np.float16), str(error)


def _open(folder: Path, n_mels: int) -> MelCache:
    index = json.loads((folder / INDEX).read_text())
    starts = np.array(index["starts"], dtype=np.int64)
    if starts[-1] == 0:
        example = next(iter(index["failures"].values()), "")
        (folder / INDEX).unlink()
        raise MelcodecError("no file of the corpus could be read", example or None)
    mels = np.memmap(folder / MELS, dtype=np.float16, mode="r", shape=(int(starts[-1]), n_mels))
    return MelCache(mels, starts, index["paths"], index["failures"])
