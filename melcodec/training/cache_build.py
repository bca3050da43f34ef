"""Building a mel cache: many processes compute, one appends, and what is on disk can always be continued.

Rows are written to the disk before the lines of the index that list them. A resumed build begins after the last line
that is whole, so its bytes are those of a build that was never stopped.
"""

from __future__ import annotations

import errno
import io
import json
import os
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

from melcodec.config import MelConfig
from melcodec.errors import MelcodecError, from_os
from melcodec.files import written_aside
from melcodec.training.cache_index import DONE, INDEX, MELS, count_kept, read_index
from melcodec.training.cache_work import PART, CacheEntry, Made, compute

COMMIT_ENTRIES, COMMIT_SECONDS = 256, 2.0  # what a power cut may cost; syncing every entry would cost more than computing it
COPY_BYTES = 1 << 22
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
Progress = Callable[[int, int], None]  # entries done, entries in all


def build(folder: Path, jobs: Sequence[CacheEntry], config: MelConfig, num_workers: int, progress: Progress) -> None:
    """Make the cache of ``jobs`` in ``folder``, or resume the one begun there. The caller holds the lock.

    Args:
        num_workers: processes; with 1 this one works alone.
        progress: called after each entry. What it raises ends the work; what is done stays.

    Raises:
        MelcodecError: the disk is full, the folder cannot be written, or a process died.
    """
    with closing(_built(folder, jobs, config, num_workers)) as counts:
        for done in counts:
            progress(done, len(jobs))
    summary = read_index(folder / INDEX).summary
    with written_aside(folder / DONE) as aside:
        aside.write_text(json.dumps(summary))


def _built(folder: Path, jobs: Sequence[CacheEntry], config: MelConfig, num_workers: int) -> Generator[int, None, None]:
    """After each entry, how many are done."""
    written = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index, done = count_kept(folder, (job.name for job in jobs), config.n_mels)
        written = int(index.starts[done]) * config.n_mels * 2
        with Appender(folder, written, int(index.ends[done - 1]) if done else 0, config.n_mels) as appender:
            (folder / DONE).unlink(missing_ok=True)
            _remove_parts(folder)
            left = (jobs[i] for i in range(done, len(jobs)))
            with closing(compute(left, min(num_workers, len(jobs) - done), folder, config)) as results:
                for job, made in results:
                    appender.add(job.name, made)
                    done, written = done + 1, appender.written
                    yield done
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _no_room(folder, jobs, done, written, config, error) from None
        raise from_os(error) from None
    finally:
        _remove_parts(folder)


def _no_room(
    folder: Path, jobs: Sequence[CacheEntry], done: int, written: int, config: MelConfig, error: OSError
) -> MelcodecError:
    """How much there is, and about how much is missing: as long as the list says, or as long as those before."""
    per_second = config.sample_rate / config.hop_length * config.n_mels * 2
    mean = written / done if done else 0.0
    lengths = (jobs[i].seconds for i in range(done, len(jobs)))
    missing = sum(mean if seconds is None else seconds * per_second for seconds in lengths)
    about = f"about {_size(missing)} more are needed" if missing else f"an hour of speech takes {_size(3600 * per_second)}"
    return MelcodecError(
        f"{folder}: not enough disk space for the mel cache ({error.strerror}): {_size(written)} are written, {about}",
        "free some space, or let MELCODEC_CACHE name a folder with more; what is done stays, and the same command resumes",
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _remove_parts(folder: Path) -> None:
    for part in folder.glob(f"*{PART}"):
        part.unlink(missing_ok=True)


class Appender:
    """Adds entries to ``mels.f16`` and ``index.jsonl``, from where the latter's complete lines end.

    A reader may have ``mels.f16`` mapped while a damaged cache is mended, and would die if it shrank; rows are therefore
    written over, and what lies past the last one is cut off at the very end.

    Args:
        written: bytes of ``mels.f16`` that stay.
        index_size: bytes of ``index.jsonl`` that stay.
    """

    def __init__(self, folder: Path, written: int, index_size: int, n_mels: int) -> None:
        self.written, self._row = written, n_mels * 2
        self._mels, self._index = _opened(folder / MELS), _opened(folder / INDEX)
        self._index.truncate(index_size)
        os.fsync(self._index.fileno())
        self._index.seek(index_size)
        self._mels.seek(written)
        self._pending: list[str] = []
        self._committed = time.monotonic()
        self._torn = False  # a commit has begun and not ended

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._mels.truncate(self.written)
            if not self._torn and not isinstance(error, OSError):
                self._commit()
        finally:
            self._mels.close()
            self._index.close()

    def add(self, name: str, made: Made) -> None:
        """Append one entry: its rows, or the reason why there are none."""
        if isinstance(made, str):
            self._write_line({"id": name, "error": made})
            return
        crc = size = 0
        for block in _blocks(made):
            _write(self._mels, block)
            crc, size = zlib.crc32(block, crc), size + len(block)
        self.written += size
        self._write_line({"id": name, "frames": size // self._row, "crc32": crc})

    def _write_line(self, line: dict[str, str | int]) -> None:
        self._pending.append(json.dumps(line) + "\n")
        if len(self._pending) >= COMMIT_ENTRIES or time.monotonic() - self._committed >= COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        self._torn = True
        os.fsync(self._mels.fileno())
        _write(self._index, "".join(self._pending).encode())
        os.fsync(self._index.fileno())
        self._pending, self._committed = [], time.monotonic()
        self._torn = False


def _opened(path: Path) -> io.FileIO:
    path.touch()
    return io.FileIO(path, "r+")  # unbuffered: a buffer would try a full disk again when it is closed


def _write(file: io.FileIO, content: bytes) -> None:
    left = memoryview(content)
    while left:  # a disk that fills up takes a part first
        left = left[file.write(left) :]


def _blocks(made: bytes | Path) -> Iterator[bytes]:
    if isinstance(made, bytes):
        yield made
        return
    with made.open("rb") as file:
        while block := file.read(COPY_BYTES):
            yield block
    made.unlink()
