"""The pages of an Ogg file (RFC 3533): checksums, sequence numbers, and streams one after another or side by side."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from melcodec.audio.layout import CHOOSE, RESCUE, Fault, Layout, Part, Piece

MAGIC = b"OggS"
HEADER = 27  # bytes, then a table of as many bytes as its last one says, then as many bytes as they add up to
CHECKSUM = slice(22, 26)  # of the page
BEGINS, ENDS, GOES_ON = 2, 4, 255  # flags of the page; a last entry of its table
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
BLOCK = 1 << 16  # bytes that are searched at once
FLAC = b"\x7fFLAC"  # then a version, a count, and a FLAC file
CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", FLAC: "FLAC", b"Speex   ": "Speex"}
FLAC_HEADER = 9  # bytes before "fLaC"
LARGEST_BODY = 255 * 255


class Page(NamedTuple):
    """One page: where it lies in the file, where its body begins, and what its header says."""

    start: int
    body: int
    stop: int
    flags: int
    serial: int
    number: int
    last_entry: int  # of the table: 255 when the last packet goes on in the next page
    head: bytes  # the first bytes of the body


@dataclass
class Stream:
    """The pages of one logical stream."""

    codec: str
    number: int  # of its last page
    count: int = 0  # of pages
    ended: bool = False
    goes_on: bool = False
    pages: list[tuple[int, int]] = field(default_factory=list)  # ranges of the file, neighbours joined
    bodies: list[tuple[int, int]] = field(default_factory=list)  # for FLAC alone

    def take(self, page: Page) -> None:
        """Add ``page``, the next of this stream."""
        self.count += 1
        self.number, self.ended, self.goes_on = page.number, bool(page.flags & ENDS), page.last_entry == GOES_ON
        if self.pages and self.pages[-1][1] == page.start:
            self.pages[-1] = (self.pages[-1][0], page.stop)
        else:
            self.pages.append((page.start, page.stop))
        if self.codec == "FLAC":
            self.bodies.append((page.body + (0 if self.bodies else FLAC_HEADER), page.stop))


def survey(content: IO[bytes], start: int) -> Layout:
    """The streams of audio in an Ogg file whose pages begin at byte ``start``."""
    links: list[dict[int, Stream]] = []
    pages = _Pages(content, start)
    fault = None
    for page in pages:
        fault = _take(links, page)
        if fault:
            break
    fault = fault or pages.fault or _open_end(links, pages)
    parts = []
    for link in links:
        sound = [stream for stream in link.values() if stream.codec]
        if len(sound) > 1:
            names = " and ".join(stream.codec for stream in sound)
            fault = Fault(f"holds {len(sound)} streams of audio at once ({names})", "unread", CHOOSE)
            break
        if sound:
            stream = sound[0]
            pieces: tuple[Piece, ...] = tuple(stream.bodies if stream.codec == "FLAC" else stream.pages)
            parts.append(Part(pieces))
    plain = len(links) == 1 and len(links[0]) == 1 and not fault and parts and next(iter(links[0].values())).codec != "FLAC"
    return Layout((Part(),)) if plain or not (parts or fault) else Layout(tuple(parts), fault)


def _take(links: list[dict[int, Stream]], page: Page) -> Fault | None:
    """Add ``page`` to its stream; returns what is wrong if there is none, or if a page before it is missing."""
    if page.flags & BEGINS:
        if not links or page.serial in links[-1] or any(stream.count > 1 for stream in links[-1].values()):
            links.append({})  # streams side by side all begin before the second page of any of them
        codec = next((name for magic, name in CODECS.items() if page.head.startswith(magic)), "")
        links[-1][page.serial] = Stream(codec, page.number)
    stream = links[-1].get(page.serial) if links else None
    if stream is None:
        return Fault("an Ogg page belongs to a stream whose beginning is missing", "damaged", RESCUE)
    if not page.flags & BEGINS and page.number != (stream.number + 1) & 0xFFFF_FFFF:
        return Fault(f"Ogg page {page.number} follows page {stream.number}: pages are missing", "damaged", RESCUE)
    stream.take(page)
    return None


def _open_end(links: list[dict[int, Stream]], pages: _Pages) -> Fault | None:
    """What is wrong when pages of the last stream are missing. A missing end flag alone is accepted."""
    last = links[-1].get(pages.serial) if links else None
    if last is None or last.ended:
        return None
    if pages.rest.rstrip(b"\0") in (b"O", b"Og", b"Ogg") or (not pages.rest and last.goes_on):
        return Fault("the last Ogg page continues in another page, which is missing", "truncated")
    return None


class _Pages:
    """The pages of a file in their order, up to the first that is damaged; then ``fault`` says what is wrong."""

    def __init__(self, content: IO[bytes], start: int) -> None:
        self._content, self._start = content, start
        self.fault: Fault | None = None
        self.rest = b""  # the first bytes after the last page
        self.serial = -1  # of the last page

    def __iter__(self) -> Iterator[Page]:
        at = self._start
        self._content.seek(at)
        while True:
            header = self._content.read(HEADER)
            if not header.startswith(MAGIC) or len(header) < HEADER:
                break
            table = self._content.read(header[HEADER - 1])
            body = self._content.read(sum(table))
            start, stop = at + HEADER + len(table), at + HEADER + len(table) + len(body)
            whole = len(table) == header[HEADER - 1] and len(body) == sum(table)
            if not whole or int.from_bytes(header[CHECKSUM], "little") != _checksum(header + table + body):
                self.fault = self._damage(at, whole)
                return
            serial, number = int.from_bytes(header[14:18], "little"), int.from_bytes(header[18:22], "little")
            self.serial = serial
            yield Page(at, start, stop, header[5], serial, number, table[-1] if table else 0, body[:16])
            at = stop
        self._after(at, header)

    def _after(self, at: int, header: bytes) -> None:
        """Check what follows the last page, at byte ``at``: tags and zeros are no sound, another page is."""
        self.rest = header
        if header.startswith(MAGIC):
            self.fault = Fault("the file ends inside an Ogg page", "truncated")
        elif self._next_page(at + 1):
            self.fault = Fault("there are bytes between two Ogg pages that belong to neither", "damaged", RESCUE)

    def _damage(self, at: int, whole: bool) -> Fault:
        if self._next_page(at + len(MAGIC)):
            return Fault("the checksum of an Ogg page is wrong", "damaged", RESCUE)
        return Fault("the last Ogg page is incomplete" if whole else "the file ends inside an Ogg page", "truncated")

    def _next_page(self, at: int) -> bool:
        """Whether a page begins at byte ``at`` or later."""
        self._content.seek(at)
        before = b""
        while block := self._content.read(BLOCK):
            if MAGIC + b"\0" in before + block:
                return True
            before = block[-len(MAGIC) :]
        return False


def _checksum(page: bytes) -> int:
    """Ogg's CRC32 of a page: zlib's with the bits of each byte mirrored, and nothing inverted."""
    blank = page[: CHECKSUM.start] + bytes(4) + page[CHECKSUM.stop :]
    mirrored = zlib.crc32(blank.translate(MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)
