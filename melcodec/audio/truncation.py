"""Whether a file ends before its sound does. libsndfile gives what is there of a truncated file, and says nothing.

Each format tells it in its own way: wav, w64, rf64, aiff and au by the bytes that the header promises, FLAC and MPEG by
samples, Ogg by its last page, its flag and its checksum (RFC 3533). Where it cannot be told the file passes: MPEG without
a Xing or Info header (VBRI is not read), Ogg that was cut between two pages, which is what encoders that forget the flag
write, and what PyAV reads, such as webm and mkv.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

# libsndfile shortens truncated files to what is there; what the header of a wav, aiff or au file said stays in its log
PROMISED_BYTES = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
SLOPPY_BYTES = 1024  # some programs count their own header as sound
STREAMED_BYTES = 0x7FFF_0000  # programs that write to a pipe promise as much as the field holds
FULL_LOG = 2_000  # bytes: libsndfile's log holds 2,047, and comments that stand before the sound may fill it

WIDE = frozenset(("W64", "RF64"))  # kinds with sizes of 64 bits, on which the log does not comment
STREAMED_WIDE = 1 << 60  # as STREAMED_BYTES, for those
IN_CHUNKS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff")  # how wav, rf64, aiff and w64 begin
SIZE_IN_DS64 = 0xFFFF_FFFF  # a size of rf64 that stands elsewhere (EBU Tech 3306)
MOST_CHUNKS = 10_000  # that are looked at before the sound
SLOPPY_MPEG = 4 * 1152  # samples: some encoders count the frame of the header, or drop a last one

OGG_HEADER = 27  # bytes, then a table of as many bytes as its last one says, then as many bytes as they add up to
LARGEST_PAGE = OGG_HEADER + 255 + 255 * 255
CHECKSUM = slice(22, 26)  # of the page
ENDS, GOES_ON = 4, 255  # a flag of the page; a last entry of its table
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

XING_FRAMES = 1  # a flag: the number of frames follows
XING_WITHIN = 192  # bytes from the start of the first frame, whatever its version and channels
ROOM = 1 << 16  # bytes: some programs leave zeros between the tag and the first frame; libmpg123 passes over so many

BLOCK = 1 << 16  # bytes that are read at once in search of where zeros begin


def shortfall(file: Path | IO[bytes], kind: str, promised: int | None, decoded: int, log: str) -> str:
    """What ``file``, which was decoded to its end, lacks; empty when nothing does, or it cannot be told.

    Args:
        file: a path, or a file that can seek; its position is left as it was.
        kind: libsndfile's name of the container.
        promised: samples per channel that libsndfile found in the header.
        decoded: samples per channel that came.
        log: what libsndfile said while it read the header.
    """
    counted = promised is not None and (
        (kind == "FLAC" and decoded < promised)
        or (kind == "MP3" and decoded + SLOPPY_MPEG < promised and _counts_its_frames(file))  # or it is an estimate
    )
    if counted:
        return f"the header promises {promised} samples, {decoded} are there"
    if kind == "OGG":
        return _cut_page(file)
    promises = [(int(expected), int(there)) for expected, there in PROMISED_BYTES.findall(log)]
    if not promises and (kind in WIDE or len(log.encode()) >= FULL_LOG):
        promises = [_sound_in_chunks(file)]
    for expected, there in promises:
        if there + SLOPPY_BYTES < expected < (STREAMED_WIDE if kind in WIDE else STREAMED_BYTES):
            return f"the header promises {expected} bytes of sound, {there} are there"
    return ""


def _sound_in_chunks(file: Path | IO[bytes]) -> tuple[int, int]:
    """Bytes of sound that a wav, w64, rf64 or aiff file promises, and those that are there; zeros where it cannot be told."""
    with _bytes_of(file) as content:
        end = content.seek(0, 2)
        at = _past_tags(content)
        kind = content.read(4)
        if kind not in IN_CHUNKS:
            return 0, 0
        order: Literal["big", "little"] = "big" if kind in (b"RIFX", b"FORM") else "little"
        w64 = kind == b"riff"
        header, mark, step = (24, 16, 8) if w64 else (8, 4, 2)  # bytes; a chunk begins at a multiple of ``step``
        at += 40 if w64 else 12
        in_ds64 = 0
        for _ in range(MOST_CHUNKS):
            content.seek(at)
            chunk = content.read(header + 16)
            size = int.from_bytes(chunk[mark:header], order) - (header if w64 else 0)
            at += header
            if len(chunk) < header:
                break
            if chunk[:4] == b"ds64":
                in_ds64 = int.from_bytes(chunk[header + 8 : header + 16], order)
            elif chunk[:4] in (b"data", b"SSND"):
                return in_ds64 if size == SIZE_IN_DS64 and not w64 else size, end - at
            at += -(-size // step) * step
    return 0, 0


def _cut_page(file: Path | IO[bytes]) -> str:
    """What is missing of the last page of an Ogg file. What follows a whole one, such as tags, is no page.

    Zeros may stand for what is missing: some programs give a file its full size before they fetch it.
    """
    with _bytes_of(file) as content:
        # at least one whole page, if the last one is not; and all of that one, with its zeros
        content.seek(max(0, _last_byte(content) - 2 * LARGEST_PAGE))
        tail = content.read(3 * LARGEST_PAGE)
    at, ended, table, page = tail.find(b"OggS"), True, b"", b""
    stop = 0
    while at >= 0:
        start, size = at + OGG_HEADER, tail[at + OGG_HEADER - 1 : at + OGG_HEADER]
        table = tail[start : start + size[0]] if size else b""
        stop = start + len(table) + sum(table)
        if not size or len(table) < size[0] or stop > len(tail):
            return "the file ends inside a page of Ogg"
        page, ended = tail[at:stop], bool(tail[at + 5] & ENDS)
        at = tail.find(b"OggS", stop)
    if page and int.from_bytes(page[CHECKSUM], "little") != _checksum(page):
        return "the last page of Ogg is not whole"
    rest = tail[stop:]
    if not ended and (rest.rstrip(b"\0") in (b"O", b"Og", b"Ogg") or (not rest and table[-1:] == bytes([GOES_ON]))):
        return "the last page of Ogg goes on in another, which is not there"
    return ""


def _checksum(page: bytes) -> int:
    """Ogg's CRC32 of a page: zlib's with the bits of each byte mirrored, and nothing inverted."""
    blank = page[: CHECKSUM.start] + bytes(4) + page[CHECKSUM.stop :]
    mirrored = zlib.crc32(blank.translate(MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _last_byte(content: IO[bytes]) -> int:
    """Where the zeros begin that a file ends with."""
    end = content.seek(0, 2)
    while end > 0:
        start = content.seek(max(0, end - BLOCK))
        if kept := content.read(end - start).rstrip(b"\0"):
            return start + len(kept)
        end = start
    return 0


def _counts_its_frames(file: Path | IO[bytes]) -> bool:
    """Whether the first frame of an MPEG file says how many there are."""
    with _bytes_of(file) as content:
        _past_tags(content)
        frame = content.read(ROOM + XING_WITHIN).lstrip(b"\0")[:XING_WITHIN]
    found = re.search(rb"(?:Xing|Info)...(.)", frame, re.DOTALL)
    return found is not None and bool(found[1][0] & XING_FRAMES)


def _past_tags(content: IO[bytes]) -> int:
    """Go to where the ID3 tags end that a file begins with."""
    at = content.seek(0)
    while (tag := content.read(10))[:3] == b"ID3":
        sevens = tag[6:]  # bits of each byte
        at += len(tag) + sum(part << shift for part, shift in zip(sevens, (21, 14, 7, 0), strict=False))
        content.seek(at)
    return content.seek(at)


@contextmanager
def _bytes_of(file: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(file, Path):
        with file.open("rb") as content:
            yield content
    else:
        at = file.tell()
        yield file
        file.seek(at)
