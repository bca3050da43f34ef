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
from melcodec.errors import MelcodecError

if TYPE_CHECKING:
    from torchaudio.transforms import Resample

LOWPASS_FILTER_WIDTH = 6  # torchaudio's defaults, which XTTS uses
ROLLOFF = 0.99
BLOCK_SAMPLES = 1 << 20
MAX_KERNEL_ELEMENTS = 1 << 26  # 256 MiB of float32; near-coprime rates such as 22,051 Hz would need gigabytes


def resample_blocks(blocks: Iterable[np.ndarray], source_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Resample a stream of mono blocks.

    Args:
        blocks: float32 (n,) arrays that continue each other.
        source_rate: Hz.
        target_rate: Hz.

    Yields:
        float32 (m,) arrays, ceil(target_rate * samples / source_rate) samples in total.

    Raises:
        MelcodecError: at once, when the rates have so small a common divisor that the filter would not fit in memory.
    """
    if source_rate == target_rate:
        return iter(blocks)
    divisor = math.gcd(source_rate, target_rate)
    orig, new = source_rate // divisor, target_rate // divisor
    width = math.ceil(LOWPASS_FILTER_WIDTH * orig / (min(orig, new) * ROLLOFF))
    if new * (2 * width + orig) > MAX_KERNEL_ELEMENTS:
        raise MelcodecError(
            f"a sample rate of {source_rate} Hz has no simple ratio to {target_rate} Hz",
            f"convert the file to {target_rate} Hz with an audio editor first",
        )
    return _resampled(blocks, orig, new, width)


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
