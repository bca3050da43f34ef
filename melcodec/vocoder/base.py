"""What a vocoder is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from torch import Tensor


class Vocoder(Protocol):
    """Makes sound of natural log-mel at the mel's sample rate and level; the same input gives the same sound."""

    def __call__(self, mel: Tensor, num_samples: int) -> Tensor:
        """mel (B, M, T) -> wav (B, S) float32, S = ``num_samples`` with S // hop + 1 = T. May overshoot [-1, 1].

        Raises:
            MelcodecError: T frames cannot hold ``num_samples``.
        """

    def stream(self, blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
        """As a call on the whole, but (M, t) arrays in, (n,) arrays out, in bounded memory however long the sound is."""
