"""Where the sound of a file lies, found by walking over the headers of its pages, frames or chunks.

Decoders give a part of a file in silence: the first of several streams, as much as an estimate or a header promises, or
what is left beside damage. A ``Layout`` says what must be read so that nothing is left out, and what is wrong with the rest.
``ogg``, ``mpeg``, ``flac`` and ``chunks`` make one for their formats.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from melcodec.errors import MelcodecError

Piece = bytes | tuple[int, int]  # bytes that stand in for others, or a range of the file
CHOOSE = "choose one: ffmpeg -i IN -map 0:a:0 OUT.wav"
CONVERT = "convert it first: ffmpeg -i IN OUT.wav"
RESCUE = "ffmpeg -i IN OUT.wav writes what can be read of it"


@dataclass(frozen=True)
class Fault:
    """Why the sound after the last part is not read.

    Args:
        reason: in words.
        kind: ``truncated`` when the file ends there, ``damaged`` when it goes on, ``unread`` for sound that is whole but
            that melcodec does not read.
        hint: what to do about it.
    """

    reason: str
    kind: Literal["truncated", "damaged", "unread"]
    hint: str | None = None

    def error(self, name: str, seconds: float) -> MelcodecError:
        """The error about the file ``name``, of which ``seconds`` can be read."""
        if self.kind == "unread":
            return MelcodecError(f"{name}: {self.reason}", self.hint, "unreadable")
        where = "truncated" if self.kind == "truncated" else f"damaged after {seconds:.2f} s"
        return MelcodecError(f"{name}: {where}: {self.reason}", self.hint, "truncated")


@dataclass(frozen=True)
class Part:
    """A stretch of bytes that a decoder takes for a whole file.

    Args:
        pieces: what it consists of; none for the file as it is.
        samples: per channel, where the walk has counted them.
        sound: bytes of uncompressed samples, where the walk has found them.
    """

    pieces: tuple[Piece, ...] = ()
    samples: int | None = None
    sound: int | None = None


@dataclass(frozen=True)
class Layout:
    """The parts of a file in their order, and what is wrong after the last of them."""

    parts: tuple[Part, ...] = (Part(),)
    fault: Fault | None = None


AS_IT_IS = Layout()


class View(io.RawIOBase):
    """Pieces of an open file, one after another, as a file of its own."""

    def __init__(self, content: IO[bytes], pieces: tuple[Piece, ...]) -> None:
        super().__init__()
        self._content, self._pieces, self._at = content, pieces, 0
        self._ends, end = [], 0
        for piece in pieces:
            end += len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            self._ends.append(end)
        self._index = 0  # of the piece that was read last: reading goes forward

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes from the start."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do."""
        size = self._ends[-1] if self._ends else 0
        self._at = max(0, offset + (0, self._at, size)[whence])
        self._index = 0 if self._index and self._at < self._ends[self._index - 1] else self._index
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the pieces reach."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and self._index < len(self._pieces):
            end, piece = self._ends[self._index], self._pieces[self._index]
            count = min(len(view) - filled, end - self._at)
            if count <= 0:
                self._index += 1
                continue
            if isinstance(piece, bytes):
                start = len(piece) - (end - self._at)
                data = piece[start : start + count]
            else:
                self._content.seek(piece[1] - (end - self._at))
                data = self._content.read(count)
            if not data:
                break
            view[filled : filled + len(data)] = data
            filled += len(data)
            self._at += len(data)
        return filled


@contextmanager
def content_of(file: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """``file``, open for reading; one that was open stays where it is."""
    if isinstance(file, Path):
        with file.open("rb") as content:
            yield content
    else:
        at = file.tell()
        yield file
        file.seek(at)


def past_tags(content: IO[bytes]) -> int:
    """Move to the end of the ID3v2 tags at the beginning of a file."""
    at = content.seek(0)
    while (tag := content.read(10))[:3] == b"ID3" and len(tag) == 10:
        at += id3_size(tag)
        content.seek(at)
    return content.seek(at)


def id3_size(header: bytes) -> int:
    """Bytes of an ID3v2 tag, from its first ten: 28 bits in four bytes, and a footer where a flag says so."""
    size = sum(part << shift for part, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if header[5] & 16 else 0)
