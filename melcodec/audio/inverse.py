"""From mel bands back to frequency bins, for listening.

The mel filter bank is a fixed non-negative matrix, so its inversion is half of a non-negative matrix factorisation.
Source: Lee & Seung 2001, "Algorithms for Non-negative Matrix Factorization", the update for the divergence
(Kullback-Leibler); ``docs/sound.md`` compares it with the Euclidean and Itakura-Saito ones and with a pseudo-inverse.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from melcodec.devices import exact_float32

TINY = 1e-12  # far under the floor: keeps a division by an estimate of zero finite


@torch.no_grad()
def invert_mel(mel: Tensor, filters: Tensor, floor: float, iterations: int) -> Tensor:
    """The power spectrogram whose mel bands come closest to ``mel``.

    Args:
        mel: (B, M, T) natural log-mel power.
        filters: (F, M) the filter bank that made it.
        floor: mel power that stands for silence; bands at or under it hold nothing.
        iterations: multiplicative updates.

    Returns:
        (B, F, T) linear power, non-negative; zero in bins that no filter reaches.
    """
    # sqrt(v^2 - floor^2) leaves speech as it is and goes to zero without a step, or the floor would be heard as hiss;
    # 0.1 % more than the floor because its own logarithm does not come back exactly
    target = (mel.exp().square() - (1.001 * floor) ** 2).clamp(min=0).sqrt()
    reached = filters.sum(dim=1) > 0
    spread = filters[reached]  # (F', M): from bands to bins; transposed, from bins to bands
    reach = spread.sum(dim=1)[:, None]
    with exact_float32(mel.device):
        # what each bin would hold if its bands were flat: positive wherever a band is, so that every bin can still move
        power = (spread @ target) / (spread @ spread.sum(dim=0))[:, None]
        for _ in range(iterations):
            power = power * (spread @ (target / (spread.T @ power + TINY))) / reach
    # bins that no filter reaches take the row of zeros behind the others
    rows = torch.where(reached, reached.cumsum(0) - 1, reached.sum())
    return F.pad(power, (0, 0, 0, 1))[:, rows]
