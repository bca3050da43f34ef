"""What a mel cache's folder holds, and whether it is sound.

``mels.f16`` is rows (T_total, M) of float16. ``index.jsonl`` has one line per entry, in order: its id with its frames
and their CRC-32, or with the reason why there are none. ``done.json`` counts both and is written last.
"""

from __future__ import annotations

import io
import json
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

CACHE_VERSION = 2  # 1 was one JSON array of paths
MELS, INDEX, DONE = "mels.f16", "index.jsonl", "done.json"
READ_BYTES = 1 << 22  # of the index at once: a million lines as objects would take a gigabyte
CHECK_ALL_BYTES = 1 << 30  # a second's work; of a larger cache CHECKED_ENTRIES are read
CHECKED_ENTRIES = 256


class DamagedError(Exception):
    """A cache that is marked complete and is not. Caught inside this package."""


class Names(Sequence[str]):
    """Many strings in the memory of their letters, which a list of four million takes tenfold."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        coded = [name.encode("utf-8", "surrogatepass") for name in names]
        self._letters = b"".join(coded)
        self._ends = np.cumsum([0, *map(len, coded)])

    @classmethod
    def joined(cls, parts: list[Names]) -> Names:
        """One after the other."""
        whole = cls()
        whole._letters = b"".join(part._letters for part in parts)
        offsets = np.cumsum([0, *(len(part._letters) for part in parts)])
        ends = [part._ends[1:] + offset for part, offset in zip(parts, offsets, strict=False)]
        whole._ends = np.concatenate([np.zeros(1, np.int64), *ends])
        return whole

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]  # negative ones count from the end, and those outside are an IndexError
        return self._letters[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        ends = self._ends.tolist()
        for start, stop in pairwise(ends):
            yield self._letters[start:stop].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names({self[:3]!r}{', ...' if len(self) > 3 else ''})"


@dataclass(frozen=True)
class Index:
    """The lines of an ``index.jsonl``, E of them.

    Args:
        names: the ids (E,).
        frames: (E,) int64; -1 where there are none.
        crcs: (E,) int64; 0 where there are no frames.
        ends: (E,) int64, bytes: where each line ends in the file.
        reasons: by position in the list, why there are no frames.
        crc: CRC-32 of the lines.
    """

    names: Names
    frames: np.ndarray
    crcs: np.ndarray
    ends: np.ndarray
    reasons: dict[int, str]
    crc: int

    @property
    def starts(self) -> np.ndarray:
        """(E + 1,) int64: the row each entry begins at, and the number of rows."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.maximum(self.frames, 0))])

    @property
    def summary(self) -> dict[str, int]:
        """What ``done.json`` says of it."""
        return {"version": CACHE_VERSION, "frames": int(self.starts[-1]), "entries": len(self.names), "crc": self.crc}

    def readable(self) -> tuple[Sequence[str], np.ndarray]:
        """Of the F entries with frames, the ids (F,) and starts (F + 1,)."""
        there = self.frames >= 0
        names = self.names if there.all() else Names(compress(self.names, there))
        return names, np.concatenate([np.zeros(1, np.int64), np.cumsum(self.frames[there])])


def read_index(path: Path) -> Index:
    """The lines of ``path`` up to the first that is not whole; none when it is not there."""
    names: list[Names] = []
    frames, crcs, lengths = array("q"), array("q"), array("q")
    reasons: dict[int, str] = {}
    crc = 0
    with path.open("rb") if path.exists() else io.BytesIO() as file:
        for lines in iter(partial(file.readlines, READ_BYTES), []):
            rows = _rows(lines)
            names.append(Names(row["id"] for row in rows))
            reasons |= {len(frames) + i: row["error"] for i, row in enumerate(rows) if "error" in row}
            frames.extend(row.get("frames", -1) for row in rows)
            crcs.extend(row.get("crc32", 0) for row in rows)
            lengths.extend(map(len, lines[: len(rows)]))
            crc = zlib.crc32(b"".join(lines[: len(rows)]), crc)
            if len(rows) < len(lines):
                break
    columns = [np.array(column, np.int64) for column in (frames, crcs, lengths)]
    return Index(Names.joined(names), columns[0], columns[1], np.cumsum(columns[2]), reasons, crc)


def _rows(lines: list[bytes]) -> list[dict[str, Any]]:
    """Lines as objects, up to the first that is torn or is no entry."""
    if lines[-1].endswith(b"\n"):
        try:
            rows = json.loads(b"[" + b",".join(lines) + b"]")  # all at once: a million lines in a second or two
            if len(rows) == len(lines) and all(map(_is_entry, rows)):
                return rows
        except ValueError:
            pass
    good: list[dict[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            break
        if row is None or not _is_entry(row):
            break
        good.append(row)
    return good


def _is_entry(row: object) -> bool:
    if not isinstance(row, dict) or type(row.get("id")) is not str:
        return False
    if "error" in row:
        return len(row) == 2 and type(row["error"]) is str
    frames, crc = row.get("frames"), row.get("crc32")
    return type(frames) is int and type(crc) is int and 0 <= frames < 1 << 40 and 0 <= crc < 1 << 32


def open_mels(folder: Path, n_mels: int) -> tuple[Index, np.ndarray] | None:
    """The index and the rows (T_total, M) float16 of a finished cache; None when it is not finished.

    Sizes are always checked, contents of everything up to a gigabyte, and evenly spread samples of more.

    Raises:
        DamagedError: what is there is not what was written.
    """
    done = _read_done(folder)
    if done is None:
        return None
    index = read_index(folder / INDEX)
    if index.summary != done:
        raise DamagedError(f"{INDEX} or {DONE} was changed")
    if _size(folder / MELS) != done["frames"] * n_mels * 2:
        raise DamagedError(f"{MELS} holds {_size(folder / MELS)} bytes, not {done['frames'] * n_mels * 2}")
    mels = _mapped(folder / MELS, done["frames"], n_mels)
    entries = np.flatnonzero(index.frames > 0)
    if mels.nbytes >= CHECK_ALL_BYTES:
        entries = entries[np.unique(np.linspace(0, len(entries) - 1, CHECKED_ENTRIES).astype(int))]
    starts = index.starts
    for entry in entries.tolist():
        if not _is_sound(mels, index, starts, entry):
            raise DamagedError(f"the frames of {index.names[entry]} are not those that were written")
    return index, mels


def count_kept(folder: Path, names: Iterable[str], n_mels: int) -> tuple[Index, int]:
    """The index of an unfinished or damaged cache, and how many of its leading entries can stay.

    Only entries in the order of ``names`` whose frames are there count. Where ``done.json`` says that the cache was whole,
    it is damaged, and every entry's frames are checked; with a changed index, entries without frames are not trusted.
    """
    index, done = read_index(folder / INDEX), _read_done(folder)
    changed, starts = index.summary != done, index.starts
    there = _size(folder / MELS) // (n_mels * 2)
    mels = _mapped(folder / MELS, min(there, int(starts[-1])), n_mels)
    kept = 0
    for entry, (name, asked) in enumerate(zip(index.names, names, strict=False)):
        if name != asked or starts[entry + 1] > there:
            break
        failed = index.frames[entry] < 0
        if done is not None and (changed if failed else not _is_sound(mels, index, starts, entry)):
            break
        kept += 1
    return index, kept


def _is_sound(mels: np.ndarray, index: Index, starts: np.ndarray, entry: int) -> bool:
    return zlib.crc32(mels.view(np.ndarray)[starts[entry] : starts[entry + 1]].data) == index.crcs[entry]


def _read_done(folder: Path) -> dict[str, int] | None:
    """``done.json``; None when it is not there, and nothing inside when it cannot be read."""
    try:
        done = json.loads((folder / DONE).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return done if isinstance(done, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _mapped(path: Path, rows: int, n_mels: int) -> np.ndarray:
    """(rows, M) float16. Copy on write: nothing reaches the file, and torch takes the array without a warning."""
    if rows == 0:  # which cannot be mapped
        return np.empty((0, n_mels), np.float16)
    return np.memmap(path, np.float16, mode="c", shape=(rows, n_mels))
