"""Whether a file ends before its sound does. libsndfile gives what is there of a truncated file, and says nothing.

Each format tells it in its own way: wav, aiff and au by the bytes that the header promises, FLAC and MPEG by samples, Ogg
by the flag of its last page (RFC 3533). Where it cannot be told the file passes: MPEG without a Xing or Info header (VBRI
is not read), and Ogg that was cut between two pages, which is what encoders that forget the flag write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# libsndfile shortens truncated files to what is there; what the header of a wav, aiff or au file said stays in its log
PROMISED_BYTES = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
SLOPPY_BYTES = 1024  # some programs count their own header as sound
STREAMED_BYTES = 0x7FFF_0000  # programs that write to a pipe promise as much as the field holds
SLOPPY_MPEG = 4 * 1152  # samples: some encoders count the frame of the header, or drop a last one

OGG_HEADER = 27  # bytes, then a table of as many bytes as its last one says, then as many bytes as they add up to
LARGEST_PAGE = OGG_HEADER + 255 + 255 * 255
ENDS, GOES_ON = 4, 255  # a flag of the page; a last entry of its table

XING_FRAMES = 1  # a flag: the number of frames follows
XING_WITHIN = 192  # bytes from the start of the first frame, whatever its version and channels


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
    for expected, there in PROMISED_BYTES.findall(log):
        if int(there) + SLOPPY_BYTES < int(expected) < STREAMED_BYTES:
            return f"the header promises {expected} bytes of sound, {there} are there"
    return ""


def _cut_page(file: Path | IO[bytes]) -> str:
    """What is missing of the last page of an Ogg file. What follows a whole one, such as tags, is no page."""
    with _bytes_of(file) as content:
        content.seek(max(0, content.seek(0, 2) - 2 * LARGEST_PAGE))  # at least one whole page, if the last one is not
        tail = content.read()
    at, ended, table = tail.find(b"OggS"), True, b""
    stop = 0
    while at >= 0:
        start, size = at + OGG_HEADER, tail[at + OGG_HEADER - 1 : at + OGG_HEADER]
        table = tail[start : start + size[0]] if size else b""
        stop = start + len(table) + sum(table)
        if not size or len(table) < size[0] or stop > len(tail):
            return "the file ends inside a page of Ogg"
        ended = bool(tail[at + 5] & ENDS)
        at = tail.find(b"OggS", stop)
    rest = tail[stop:]
    if not ended and (rest in (b"O", b"Og", b"Ogg") or (not rest and table[-1:] == bytes([GOES_ON]))):
        return "the last page of Ogg goes on in another, which is not there"
    return ""


def _counts_its_frames(file: Path | IO[bytes]) -> bool:
    """Whether the first frame of an MPEG file says how many there are."""
    with _bytes_of(file) as content:
        content.seek(0)
        while (tag := content.read(10))[:3] == b"ID3":
            sevens = tag[6:10]  # bits of each byte
            content.seek(sum(part << shift for part, shift in zip(sevens, (21, 14, 7, 0), strict=False)), 1)
        frame = tag + content.read(XING_WITHIN)
    found = re.search(rb"(?:Xing|Info)...(.)", frame, re.DOTALL)
    return found is not None and bool(found[1][0] & XING_FRAMES)


@contextmanager
def _bytes_of(file: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(file, Path):
        with file.open("rb") as content:
            yield content
    else:
        at = file.tell()
        yield file
        file.seek(at)
