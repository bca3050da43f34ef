"""The frames of an MPEG audio file (ISO 11172-3, 13818-3), counted one by one.

The header of a Xing, Info or VBRI frame says how many frames follow. Where there is none, or more frames follow than it
says, a decoder guesses the length from the size of the file and stops there; so frames are given to it behind an Info
frame of our own, with their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import IO, NamedTuple

from melcodec.audio.layout import AS_IT_IS, CONVERT, RESCUE, Fault, Layout, Part, Piece, id3_size

# kbit/s by bit rate index, from 1 on; MPEG 1 layers I, II and III, then MPEG 2 layer I and layers II and III
RATES_V1 = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
RATES_V2 = (
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # Hz; version 2.5 is 0
MONO = 3  # of the two bits that say how channels are coded
LARGEST_INDEX = 14  # of a bit rate
DECODER_DELAY = 529  # samples that decoders of layer III add, and drop together with the encoder's delay
INFO_BYTES = 152  # of a frame, which a decoder needs before it looks for an Info header
LAME_DELAY = 21  # bytes from the name of the encoder to the samples that it added before and after
SLOPPY_FRAMES = 4  # some encoders count the frame of the header, or drop a last one
ROOM = 1 << 16  # bytes: some programs leave zeros between the tag and the first frame; libmpg123 passes over so many
WINDOW = 1 << 20  # bytes that are held at once
MARGIN = 4096  # bytes: more than a frame and the header behind it


class Kind(NamedTuple):
    """What a decoder cannot change while it decodes."""

    version: int
    layer: int
    rate: int  # Hz
    mono: bool

    @property
    def samples(self) -> int:
        """Per channel in a frame."""
        return 384 if self.layer == 1 else 576 if self.layer == 3 and self.version != 3 else 1152


class Frame(NamedTuple):
    """What a header of four bytes says."""

    kind: Kind
    size: int  # bytes, with the header


@dataclass
class Run:
    """Frames of one kind that follow each other, but for tags between them."""

    kind: Kind
    header: bytes
    ranges: list[tuple[int, int]]
    frames: int = 0


class Tag(NamedTuple):
    """What the Info frame before the sound says: frames that follow, and samples of delay; None where it does not."""

    frames: int | None
    delay: int | None


def parse(header: bytes) -> Frame | None:
    """The four bytes of a frame's header, or None when they are none, or of a frame whose size they do not say."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer, index, rate = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or not 1 <= index <= LARGEST_INDEX or rate == 3:
        return None
    kind = Kind(version, layer, SAMPLE_RATES[version][rate], header[3] >> 6 == MONO)
    bits = (RATES_V1 if version == 3 else RATES_V2)[layer - 1][index - 1] * 1000
    padding = header[2] >> 1 & 1
    if layer == 1:
        return Frame(kind, (12 * bits // kind.rate + padding) * 4)
    return Frame(kind, kind.samples // 8 * bits // kind.rate + padding)


def survey(content: IO[bytes], start: int) -> Layout:
    """The runs of frames in an MPEG file whose sound begins at byte ``start`` or later."""
    walk = _Walk(content, start)
    walk.go()
    runs, tag, fault = walk.runs, walk.tag or Tag(None, None), walk.fault
    if not runs and walk.tag is None:
        reason = "holds no frame of MPEG audio that states its length"  # such as those of a free format
        return Layout((), Fault(reason, "unread", CONVERT))
    total = sum(run.frames for run in runs)
    if tag.frames is not None and (fault is None or fault.kind == "truncated"):
        if total + SLOPPY_FRAMES < tag.frames:
            return Layout((Part(),), Fault(f"the header promises {tag.frames} frames, {total} are there", "truncated"))
        fault = fault if total < tag.frames else None
        if total <= tag.frames and tag.delay is not None and len(runs) == len(runs[0].ranges) == 1:
            return AS_IT_IS
    for number, (before, run) in enumerate(pairwise(runs), 1):
        if before.kind.rate != run.kind.rate:
            seconds = sum(each.frames * each.kind.samples / each.kind.rate for each in runs[:number])
            reason = f"the sample rate changes after {seconds:.2f} s from {before.kind.rate} to {run.kind.rate} Hz"
            return Layout(tuple(map(_part, runs[:number])), Fault(reason, "unread", CONVERT))
    return Layout(tuple(_part(run, None if number else tag.delay) for number, run in enumerate(runs)) or (Part(),), fault)


def _part(run: Run, delay: int | None = None) -> Part:
    """The frames of ``run`` as a file from which a decoder can tell the length; ``delay`` samples at its start are no sound."""
    kind, samples = run.kind, run.frames * run.kind.samples
    ranges: tuple[Piece, ...] = tuple(run.ranges)
    header = bytes([0xFF, run.header[1] | 1, LARGEST_INDEX << 4 | run.header[2] & 12, run.header[3] & 0xC0])
    frame = parse(header)
    assert frame is not None
    silence = header + bytes(frame.size - 4)
    if kind.layer != 3:  # without Info frames; behind the sound comes as much silence as makes every estimate too long
        bytes_there = sum(stop - at for at, stop in run.ranges)
        first = parse(run.header)
        assert first is not None
        lacking = max(0, (run.frames + 2) * (first.size + 4) - bytes_there)
        return Part((*ranges, silence * -(-lacking // frame.size)), samples)
    if delay is None:  # a decoder always drops some samples: let them be those of a frame of our own
        return Part((_info(silence, kind, run.frames + 1, kind.samples - DECODER_DELAY), silence, *ranges), samples)
    return Part((_info(silence, kind, run.frames, delay), *ranges), max(0, samples - delay - DECODER_DELAY))


def _info(frame: bytes, kind: Kind, frames: int, delay: int) -> bytes:
    """``frame`` as an Info header: the number of ``frames`` that follow, and ``delay`` samples to drop."""
    lame = b"LAME3.100".ljust(LAME_DELAY, b"\0") + (delay << 12).to_bytes(3, "big")
    info = b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big") + lame
    at = 4 + _side_information(kind)
    return frame[:at] + info + frame[at + len(info) :]


def _side_information(kind: Kind) -> int:
    """Bytes between the header of a frame of layer III and what an Info header takes the place of."""
    if kind.version == 3:
        return 17 if kind.mono else 32
    return 9 if kind.mono else 17


def _tag(frame: bytes, kind: Kind) -> Tag | None:
    """The content of a frame that is an Info header; None for other frames."""
    if frame[36:40] == b"VBRI":
        return Tag(int.from_bytes(frame[50:54], "big"), None)
    info = frame[4 + _side_information(kind) :]
    if kind.layer != 3 or info[:4] not in (b"Xing", b"Info"):
        return None
    flags, at = int.from_bytes(info[4:8], "big"), 8
    frames = int.from_bytes(info[8:12], "big") if flags & 1 else None
    at += sum(size for bit, size in enumerate((4, 4, 100, 4)) if flags >> bit & 1)
    lame = info[at:]
    delay = int.from_bytes(lame[LAME_DELAY : LAME_DELAY + 3], "big") >> 12 if lame[:1].strip(b"\0") else None
    return Tag(frames, delay)


class _Walk:
    """From frame to frame through a file; ``fault`` says where it ends before the file does."""

    def __init__(self, content: IO[bytes], start: int) -> None:
        self._content, self._start = content, start
        self._size = content.seek(0, 2)
        self._held, self._from = b"", 0  # a window on the file, and where it begins
        self._known: dict[bytes, Frame | None] = {}
        self.runs: list[Run] = []
        self.tag: Tag | None = None
        self.fault: Fault | None = None

    def go(self) -> None:
        """Walk to the end, or to the first fault."""
        at, first = self._start, True
        while self.fault is None and at < self._size:
            frame = self._frame(at)
            if frame is None or not self._follows(at, frame):
                at = self._beside(at, frame)
                continue
            if first:
                first = False
                self.tag = _tag(self._bytes(at, MARGIN), frame.kind)
                if self.tag is not None:
                    at += frame.size
                    continue
            at = self._frames(at, frame)

    def _frames(self, at: int, frame: Frame) -> int:
        """Count the frames of one kind from byte ``at`` on, as far as the window reaches; the byte after the last."""
        kind, header = frame.kind, self._bytes(at, MARGIN)[:4]
        if not self.runs or self.runs[-1].kind != kind:
            self.runs.append(Run(kind, header, []))
        run = self.runs[-1]
        held, offset, known, count = self._held, self._from, self._known, 0
        position, end = at - offset, min(len(held), self._size - offset)
        while True:
            header = held[position : position + 4]
            try:
                each = known[header]
            except KeyError:
                each = known[header] = parse(header)
            if each is None or each.kind != kind or position + each.size > end:
                break
            position += each.size
            count += 1
        stop = position + offset
        run.frames += count
        if run.ranges and run.ranges[-1][1] == at:
            run.ranges[-1] = (run.ranges[-1][0], stop)
        else:
            run.ranges.append((at, stop))
        return stop

    def _beside(self, at: int, frame: Frame | None) -> int:
        """Skip what is not a frame at byte ``at``: a tag, or nothing but the end; anything else is a fault."""
        if skipped := self._foreign(at):
            return at + skipped
        following = self._resynchronised(at + 1)
        if not self.runs and self.tag is None:
            return following or self._size
        if following:
            self.fault = Fault("there are bytes that are not a frame of MPEG audio", "damaged", RESCUE)
        elif self.runs and frame is not None and frame.kind == self.runs[-1].kind:
            self.fault = Fault("the file ends inside a frame of MPEG audio", "truncated")
        elif self._size - at > ROOM:
            self.fault = Fault(f"its last {self._size - at} bytes are not MPEG audio", "truncated")
        return self._size

    def _foreign(self, at: int) -> int:
        """Bytes of the tag at byte ``at``; 0 when there is none."""
        head = self._bytes(at, 32)
        if head[:3] == b"ID3" and len(head) > 10:
            return id3_size(head)
        if head[:8] == b"APETAGEX":
            return 32 + int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 32
        if head[:11] == b"LYRICSBEGIN":
            held = self._bytes(at, WINDOW // 2)
            end = max(held.find(b"LYRICSEND"), held.find(b"LYRICS200"))
            return end + 9 if end > 0 else 0
        if head[:4] == b"TAG+":
            return 227
        return 128 if head[:3] == b"TAG" else 0

    def _follows(self, at: int, frame: Frame) -> bool:
        """Whether another frame, a tag or the end follows ``frame``: four bytes may look like a header by chance."""
        after = at + frame.size
        if self.runs and frame.kind == self.runs[-1].kind:
            return after <= self._size
        following = self._frame(after)
        return after == self._size or following is not None or (after < self._size and self._foreign(after) > 0)

    def _resynchronised(self, at: int) -> int:
        """The first byte from ``at`` on where two frames follow each other; 0 when there is none."""
        while at < self._size:
            held = self._bytes(at, WINDOW // 2)
            found = held.find(b"\xff")
            while 0 <= found < len(held) - 4:
                frame = parse(held[found : found + 4])
                following = self._frame(at + found + frame.size) if frame else None
                if frame and following and following.kind[:3] == frame.kind[:3]:
                    return at + found
                held = self._bytes(at, WINDOW // 2)
                found = held.find(b"\xff", found + 1)
            at += max(1, len(held) - 4)
        return 0

    def _frame(self, at: int) -> Frame | None:
        header = self._bytes(at, 4)
        if header not in self._known:
            self._known[header] = parse(header)
        return self._known[header]

    def _bytes(self, at: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``at`` on; the window moves when they are not in it."""
        end = self._from + len(self._held)
        if at < self._from or (at + count > end and end < self._size):
            self._content.seek(at)
            self._held, self._from = self._content.read(WINDOW), at
        return self._held[at - self._from : at - self._from + count]
