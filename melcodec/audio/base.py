"""What an open audio file is, whichever library decodes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

READ_FRAMES = 1 << 18  # per block, at the source rate


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds. ``num_samples`` is per channel at ``sample_rate`` (Hz), None when only decoding can tell."""

    path: str
    sample_rate: int
    channels: int
    num_samples: int | None
    format: str
    subtype: str

    @property
    def seconds(self) -> float | None:
        """Duration."""
        return None if self.num_samples is None else self.num_samples / self.sample_rate


@dataclass
class OpenAudio:
    """An open file: its header, and its blocks (n, channels) float32 from ``position`` on.

    The number of channels may change from block to block, the sample rate may not.

    After the last good block ``blocks`` raises MelcodecError when the file is damaged there, ends too early, or holds
    more sound that is not read. ``fault`` is that error where it is known before anything is decoded.

    ``seek`` moves to a sample exactly; it is None where that is not possible, and what lies before is decoded and dropped.
    """

    info: AudioInfo
    blocks: Iterator[np.ndarray]
    seek: Callable[[int], int] | None = None
    position: int = 0
    most: int = READ_FRAMES  # that the next block should hold
    rest: np.ndarray | None = None  # of a block that a stretch ended in
    fault: Exception | None = None

    def read(self, stop: int | None) -> np.ndarray | None:
        """The next block, cut at sample ``stop``; None at the end of the file."""
        self.most = READ_FRAMES if stop is None else min(READ_FRAMES, stop - self.position)
        block = next(self.blocks, None) if self.rest is None else self.rest
        self.rest = None
        if block is None:
            return None
        if stop is not None and len(block) > stop - self.position:
            block, self.rest = np.split(block, [stop - self.position])
        self.position += len(block)
        return block
