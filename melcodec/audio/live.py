"""Sound that is still being made: standard input, block by block, as it arrives.

``sources`` copies a pipe to disk before it is decoded, because decoders seek. A microphone's wav or raw samples need no
seeking, and are given here with no more delay than the pipe has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np

from melcodec.audio.io import MAX_CHANNELS, MAX_RATE, MIN_RATE
from melcodec.errors import MelcodecError

READ_BYTES = 1 << 16  # at most at once; a pipe gives what is there
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags of RIFF WAVE
ENDLESS = 0x7FFF0000  # bytes of data from which on a size means that the writer did not know it; so does 0
NAME = "standard input"


@dataclass(frozen=True)
class LiveFormat:
    """What raw samples are: Hz, channels, and the little-endian type of a sample; ``size``: bytes, None when not known."""

    sample_rate: int
    channels: int
    kind: str
    size: int | None = None


class Pushback:
    """A binary stream that first gives again what was read from it already."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream, self.name = head, stream, NAME

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; all when negative."""
        if size < 0:
            head, self._head = self._head, b""
            return head + self._stream.read()
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._stream.read(size)


def raw_format(sample_rate: int) -> LiveFormat:
    """16-bit little-endian mono samples at ``sample_rate`` Hz."""
    return _checked(LiveFormat(sample_rate, 1, "<i2"))


def read_wav_header(stream: IO[bytes]) -> LiveFormat | Pushback:
    """The format of the wav whose samples follow in ``stream``, or, if it is no such wav, the stream as it was.

    Raises:
        MelcodecError: nothing comes, a rate or number of channels that is not read, or the header ends too early.
    """
    head = _read(stream, 12)
    if not head:
        raise MelcodecError(f"{NAME}: is empty", code="unreadable")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return Pushback(head, stream)
    form: LiveFormat | None = None
    while len(chunk := _read(stream, 8)) == 8:
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        head += chunk
        if name == b"data":
            if form is None:
                return Pushback(head, stream)
            return LiveFormat(form.sample_rate, form.channels, form.kind, size if 0 < size < ENDLESS else None)
        body = _read(stream, size + size % 2)
        head += body
        if len(body) < size:
            break
        if name == b"fmt ":
            form = _format(body)
            if form is None:  # compressed: the decoder finds it
                return Pushback(head, stream)
    raise MelcodecError(f"{NAME}: ends inside the header of a wav", code="truncated")


def live_blocks(stream: IO[bytes], form: LiveFormat) -> Iterator[np.ndarray]:
    """The samples that follow, as mono float32 blocks (n,), each as soon as it arrives.

    Raises:
        MelcodecError: after all samples, that they end in the middle of one, or before or after the length of the header.
    """
    width = form.channels * (3 if form.kind == "<i3" else np.dtype(form.kind).itemsize)
    left, rest = form.size, b""
    while data := _read_some(stream, READ_BYTES if left is None else min(READ_BYTES, left)):
        left = None if left is None else left - len(data)
        rest += data
        whole = len(rest) // width * width
        if whole:
            samples = _floats(rest[:whole], form.kind).reshape(-1, form.channels)
            yield samples[:, 0] if form.channels == 1 else samples.mean(axis=1, dtype=np.float32)
        rest = rest[whole:]
        if left == 0:
            break
    if rest:
        raise MelcodecError(f"{NAME}: ends in the middle of a sample", code="truncated")
    if left:
        raise MelcodecError(f"{NAME}: ends {left // width} samples before the length that its header says", code="truncated")
    if left == 0 and (after := _read(stream, 4)) and not after.isalnum() and after.strip(b" \0"):
        raise MelcodecError(f"{NAME}: has more data than its header says", code="damaged")


def _format(body: bytes) -> LiveFormat | None:
    """The sample format that a ``fmt`` chunk describes; None when it is not one of plain samples."""
    if len(body) < 16:
        raise MelcodecError(f"{NAME}: a wav whose header is damaged", code="unreadable")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack("<H", body[24:26])[0]
    kinds = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "<i3", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}
    kind = kinds.get((tag, bits))
    return None if kind is None else _checked(LiveFormat(rate, channels, kind))


def _checked(form: LiveFormat) -> LiveFormat:
    if not MIN_RATE <= form.sample_rate <= MAX_RATE:
        raise MelcodecError(f"{NAME}: a sample rate of {form.sample_rate} Hz is not between {MIN_RATE} and {MAX_RATE} Hz")
    if not 1 <= form.channels <= MAX_CHANNELS:
        raise MelcodecError(f"{NAME}: {form.channels} channels; 1 to {MAX_CHANNELS} are supported")
    return form


def _floats(data: bytes, kind: str) -> np.ndarray:
    """Samples as float32, full scale being 1."""
    if kind == "<i3":  # the low byte of 32 bits stays empty
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / (1 << 31)
    samples = np.frombuffer(data, kind)
    if kind == "u1":
        return (samples.astype(np.float32) - 128) / 128
    return samples.astype(np.float32) / (1 if kind.startswith("<f") else 1 << (8 * samples.itemsize - 1))


def _read_some(stream: IO[bytes], size: int) -> bytes:
    """What is there, at least one byte; nothing at the end."""
    read = getattr(stream, "read1", stream.read)
    return cast(bytes, cast(Any, read)(size)) if size else b""


def _read(stream: IO[bytes], size: int) -> bytes:
    """``size`` bytes, or fewer at the end."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data
