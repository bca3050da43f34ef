"""Exact chunking, integers only: what to read, what to keep.

A long input is processed in windows that overlap by a *halo*, the reach of the processing on each side. Outputs
that saw the artificial edge of a window are dropped, so the kept ones equal those of a single pass. The real ends of
the input stay ends: the first window starts at 0 and the last one stops at the length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LIKE_LENGTH = 0.8  # items shorter than this share of a batch's longest go into another batch


@dataclass(frozen=True)
class Chunk:
    """One window. ``read_*`` count inputs, ``keep_*`` and ``drop`` count outputs (one per ``stride`` inputs).

    Processing inputs ``read_start:read_stop`` gives outputs from ``read_start // stride`` on; the first ``drop`` of
    them are discarded and ``keep_stop - keep_start`` are kept.
    """

    read_start: int
    read_stop: int
    keep_start: int
    keep_stop: int
    drop: int

    @property
    def kept(self) -> slice:
        """Where the kept outputs stand among the window's outputs."""
        return slice(self.drop, self.drop + self.keep_stop - self.keep_start)


def chunk_at(index: int, length: int, chunk: int, halo: int, stride: int = 1) -> Chunk:
    """The ``index``-th window over ``length`` inputs.

    Args:
        chunk: outputs to keep per window.
        halo: inputs that an output may see beyond its own ``stride`` inputs, on each side.
        stride: inputs per output; the last output may have fewer (ceil).
    """
    num_outputs = -(-length // stride)
    keep_start = index * chunk
    keep_stop = min(keep_start + chunk, num_outputs)
    # windows start on an output boundary: round the halo up to whole outputs
    lead = min(keep_start, -(-halo // stride))
    read_stop = min(length, (keep_start + chunk) * stride + halo)
    return Chunk((keep_start - lead) * stride, read_stop, keep_start, keep_stop, lead)


def plan(length: int, chunk: int, halo: int, stride: int = 1) -> list[Chunk]:
    """All windows over ``length`` inputs; see ``chunk_at``. Together they keep every output once, in order."""
    num_outputs = -(-length // stride)
    return [chunk_at(index, length, chunk, halo, stride) for index in range(-(-num_outputs // chunk))]


def windows(blocks: Iterable[np.ndarray], chunk: int, halo: int, stride: int = 1) -> Iterator[tuple[Chunk, np.ndarray]]:
    """The windows over a stream whose length is not known beforehand, each with its inputs.

    Args:
        blocks: arrays (..., n) that continue each other on the last axis, of any sizes.

    Yields:
        (Chunk, array (..., read_stop - read_start)). Holds one window and one block in memory.
    """
    import numpy as np

    buffer: np.ndarray | None = None
    start = index = 0  # absolute position of buffer[..., 0]; number of windows yielded

    def take(length: int) -> tuple[Chunk, np.ndarray]:
        nonlocal buffer, start
        assert buffer is not None
        item = chunk_at(index, length, chunk, halo, stride)
        buffer, start = buffer[..., item.read_start - start :], item.read_start
        return item, buffer[..., : item.read_stop - start]

    for block in blocks:
        buffer = block if buffer is None else np.concatenate([buffer, block], axis=-1)
        while start + buffer.shape[-1] >= ((index + 1) * chunk) * stride + halo:
            yield take(start + buffer.shape[-1])
            index += 1
    if buffer is None:
        return
    length = start + buffer.shape[-1]
    while index * chunk < -(-length // stride):
        yield take(length)
        index += 1


def gathered(parts: Iterable[np.ndarray]) -> np.ndarray | None:
    """Arrays (R, n_i) that continue each other as one array (R, N); None when there is none.

    One array that doubles, not a list: each little array kept among the large ones that come and go would pin a window's
    worth of heap, which was 100 MB for every hour of speech.
    """
    import numpy as np

    whole, filled = None, 0
    for part in parts:
        if whole is None:
            whole = np.empty((len(part), max(1 << 16, part.shape[-1])), part.dtype)
        while filled + part.shape[-1] > whole.shape[-1]:
            whole = np.concatenate([whole, np.empty_like(whole)], axis=-1)
        whole[:, filled : filled + part.shape[-1]] = part
        filled += part.shape[-1]
    return None if whole is None else whole[:, :filled]


def group_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of items of like length, longest first, at most ``budget`` padded frames to a group (but always one item)."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[groups[-1][0]] if groups else 0
        fits = groups and (len(groups[-1]) + 1) * longest <= budget and lengths[index] >= LIKE_LENGTH * longest
        if fits:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
