"""FLAC files one after another, and more blocks than the header counts (RFC 9639)."""

from __future__ import annotations

from typing import IO

from melcodec.audio.layout import AS_IT_IS, Layout, Part, Piece

MAGIC = b"fLaC"
STREAMINFO = bytes(2) + b"\x22"  # the end of the first block's header: its length, 34 bytes
COUNT = slice(21, 26)  # bytes of the file that hold the number of samples, 36 bits
BLOCK = 1 << 20  # bytes that are searched at once


def survey(content: IO[bytes], start: int) -> Layout:
    """The FLAC files that begin at byte ``start``, each right after the other."""
    starts, at = [], start
    content.seek(at)
    before = b""
    while block := content.read(BLOCK):
        text = before + block
        found = text.find(MAGIC)
        while found >= 0:
            if text[found + 4 : found + 5] in (b"\0", b"\x80") and text[found + 5 : found + 8] == STREAMINFO:
                starts.append(at - len(before) + found)
            found = text.find(MAGIC, found + 1)
        at += len(block)
        before = text[-7:]  # too short to be found twice
    if len(starts) < 2:
        return AS_IT_IS
    return Layout(tuple(Part((piece,)) for piece in zip(starts, [*starts[1:], at], strict=True)))


def without_count(content: IO[bytes], part: Part) -> tuple[Piece, ...]:
    """``part`` with a header that does not know how many samples there are, so that a decoder looks for more."""
    from melcodec.audio.layout import View, past_tags

    size = content.seek(0, 2)
    whole = part.pieces or ((past_tags(content), size),)
    head = View(content, whole).read(COUNT.stop)
    blank = head[: COUNT.start] + bytes([head[COUNT.start] & 0xF0]) + bytes(4)
    return (blank, *_from(whole, COUNT.stop))


def _from(pieces: tuple[Piece, ...], skip: int) -> tuple[Piece, ...]:
    """``pieces`` without their first ``skip`` bytes."""
    left: list[Piece] = []
    for piece in pieces:
        size = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
        gone = min(skip, size)
        skip -= gone
        if gone < size:
            left.append(piece[gone:] if isinstance(piece, bytes) else (piece[0] + gone, piece[1]))
    return tuple(left)
