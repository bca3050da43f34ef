"""Band-limited resampling as XTTS does it, in blocks and still exact.

``torchaudio.functional.resample`` with its defaults is a strided convolution: every ``orig`` input samples give
``new`` output samples and see ``width`` samples on each side. Windows on that grid with that halo give what one pass gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from melcodec.chunking import windows

if TYPE_CHECKING:
    from torchaudio.transforms import Resample

LOWPASS_FILTER_WIDTH = 6  # torchaudio's defaults, which XTTS uses
ROLLOFF = 0.99
BLOCK_SAMPLES = 1 << 20
TAP_SAMPLES = 1 << 15  # outputs that are computed at once tap by tap
# torchaudio's filter holds, for each of ``new`` outputs, ``orig`` samples of which nearly all have no weight. Up to
# 256 MiB of float32 it is used as it is; rates such as 44,056 or 22,051 Hz would need gigabytes, and are resampled tap by tap
MAX_KERNEL_ELEMENTS = 1 << 26


def resample_blocks(blocks: Iterable[np.ndarray], source_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Resample a stream of mono blocks.

    Args:
        blocks: float32 (n,) arrays that continue each other.
        source_rate: Hz.
        target_rate: Hz.

    Yields:
        float32 (m,) arrays, ceil(target_rate * samples / source_rate) samples in total.
    """
    if source_rate == target_rate:
        return iter(blocks)
    orig, new, width = resample_period(source_rate, target_rate)
    if new * (2 * width + orig) <= MAX_KERNEL_ELEMENTS:
        return _resampled(blocks, orig, new, width)
    return _gathered(blocks, orig, new, width)


def resample_without_torch(blocks: Iterable[np.ndarray], source_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """As ``resample_blocks``, with the same filter and in the same windows, but in NumPy.

    Sums are taken in another order than torch takes them: samples of a wave in [-1, 1] differ by at most 1e-6.
    """
    if source_rate == target_rate:
        return iter(blocks)
    orig, new, width = resample_period(source_rate, target_rate)
    if new * (2 * width + orig) <= MAX_KERNEL_ELEMENTS:
        return _multiplied(blocks, orig, new, width)
    return _gathered(blocks, orig, new, width)


def resample_period(source_rate: int, target_rate: int) -> tuple[int, int, int]:
    """Samples in and samples out of a period of the two rates, and the samples that the filter sees on each side of it."""
    divisor = math.gcd(source_rate, target_rate)
    orig, new = source_rate // divisor, target_rate // divisor
    return orig, new, math.ceil(LOWPASS_FILTER_WIDTH * orig / (min(orig, new) * ROLLOFF))


@lru_cache(maxsize=4)  # computing the filter takes longer than using it on some seconds
def _resampler(orig: int, new: int) -> Resample:
    import torch
    from torchaudio.transforms import Resample

    return Resample(orig, new, dtype=torch.float32)  # in which torchaudio.functional.resample computes it, too


def _resampled(blocks: Iterable[np.ndarray], orig: int, new: int, width: int) -> Iterator[np.ndarray]:
    import torch

    from melcodec.devices import exact_float32

    for chunk, samples in windows(blocks, max(1, BLOCK_SAMPLES // orig), width, orig):
        wave = torch.from_numpy(np.ascontiguousarray(samples))
        # torchaudio puts the filter, and an index that it uses, on the default device, which need not be the CPU
        with exact_float32(wave.device), wave.device:
            out = _resampler(orig, new)(wave).numpy()
        yield out[chunk.kept.start * new : chunk.kept.stop * new]


def _multiplied(blocks: Iterable[np.ndarray], orig: int, new: int, width: int) -> Iterator[np.ndarray]:
    """As ``_resampled``: each period of inputs, with ``width`` more on both sides, times the filter."""
    from numpy.lib.stride_tricks import sliding_window_view

    kernel = _kernel(orig, new, width).T
    for chunk, samples in windows(blocks, max(1, BLOCK_SAMPLES // orig), width, orig):
        padded = np.pad(np.asarray(samples, np.float32), (width, width + orig))
        periods = sliding_window_view(padded, 2 * width + orig)[::orig]
        out = (periods @ kernel).reshape(-1)[: -(-len(samples) * new // orig)]
        yield out[chunk.kept.start * new : chunk.kept.stop * new]


@lru_cache(maxsize=4)
def _kernel(orig: int, new: int, width: int) -> np.ndarray:
    """torchaudio's filter (new, 2 width + orig), computed step by step in float32 as it does."""
    base = min(orig, new) * ROLLOFF
    inputs = np.arange(-width, width + orig, dtype=np.float32)[None] / np.float32(orig)
    time = np.arange(0, -new, -1, dtype=np.float32)[:, None] / np.float32(new) + inputs
    time = np.clip(time * np.float32(base), -LOWPASS_FILTER_WIDTH, LOWPASS_FILTER_WIDTH)
    pi = np.float32(math.pi)
    window = np.cos(time * pi / LOWPASS_FILTER_WIDTH / 2) ** 2
    time *= pi
    with np.errstate(invalid="ignore"):
        sinc = np.where(time == 0, np.float32(1), np.sin(time) / time)
    kernel: np.ndarray = sinc * (window * np.float32(base / orig))
    return kernel


def _gathered(blocks: Iterable[np.ndarray], orig: int, new: int, width: int) -> Iterator[np.ndarray]:
    """As ``_resampled``, with the taps that have weight alone."""
    weights, starts = _taps(orig, new, width)
    taps, room = np.arange(weights.shape[1]), width + weights.shape[1]
    for chunk, samples in windows(blocks, max(1, BLOCK_SAMPLES // orig), width, orig):
        padded = np.pad(np.asarray(samples, np.float32), room)
        count = -(-len(samples) * new // orig)
        out = np.empty(count, np.float32)
        for begin in range(0, count, TAP_SAMPLES):
            index = np.arange(begin, min(begin + TAP_SAMPLES, count))
            first = index // new * orig + starts[index % new] + room
            out[index] = np.einsum("nt,nt->n", padded[first[:, None] + taps], weights[index % new])
        yield out[chunk.kept.start * new : chunk.kept.stop * new]


@lru_cache(maxsize=4)
def _taps(orig: int, new: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (new, taps) float32 of each output of a period, and the samples (new,) that they begin with."""
    base = min(orig, new) * ROLLOFF
    reach = LOWPASS_FILTER_WIDTH * orig / base  # samples to each side that have weight
    centers = np.arange(new) * orig / new
    starts = np.floor(centers - reach).astype(np.int64)
    offsets = starts[:, None] + np.arange(math.ceil(2 * reach) + 2) - centers[:, None]
    time = np.clip(offsets * base / orig, -LOWPASS_FILTER_WIDTH, LOWPASS_FILTER_WIDTH)
    window = np.cos(time * np.pi / LOWPASS_FILTER_WIDTH / 2) ** 2
    return (np.sinc(time) * window * base / orig).astype(np.float32), starts
