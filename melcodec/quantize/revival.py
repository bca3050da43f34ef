"""Keeping codes alive: unused codewords move to where latents are.

It must run after the moving-average update and must set the averages too, or that update undoes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcodec import distributed
from melcodec.quantize.ema import EMACodebook


@torch.no_grad()
def revive_from_batch(
    codebook: EMACodebook, latents: Tensor, below: float, generator: torch.Generator, place: tuple[int, int] | None = None
) -> int:
    """Replace dead codewords by random latents of the batch.

    Source: Dhariwal et al. 2020, "Jukebox", section 3.1 (random restarts).

    Args:
        codebook: changed in place.
        latents: (n, D), this rank's, of the step whose update just ran.
        below: a code is dead when its moving count is under this share of the mean one.
        generator: on the CPU and alike on every rank; decides which latents are taken.
        place: (where ``latents`` begin, how many there are) in the batch of all ranks; None when alone.

    Returns:
        How many codes were replaced.
    """
    mean = codebook.cluster_size.mean()
    dead = (codebook.cluster_size < below * mean).nonzero()[:, 0]
    if len(dead) == 0:
        return 0
    first, total = place or (0, len(latents))
    dead = dead[:total]
    picks = torch.randperm(total, generator=generator)[: len(dead)].to(latents.device) - first
    mine = (picks >= 0) & (picks < len(latents))
    chosen = torch.zeros(len(dead), codebook.dim, device=latents.device)
    chosen[mine] = latents[picks[mine]].float()
    distributed.all_reduce_sum(chosen)  # each is some rank's; the others add nothing
    codebook.assign(dead, chosen, mean)
    return len(dead)


@torch.no_grad()
def revive_two_sided(codebook: EMACodebook, generator: torch.Generator) -> int:
    """The seed article's rule: codes with more than twice or less than half the uniform share become Gaussian noise.

    It is here to be compared with: noise is not where the latents are, so few codes stay in use (``docs/training.md``).

    Returns:
        How many codes were replaced.
    """
    mean = codebook.cluster_size.mean()
    extreme = ((codebook.cluster_size > 2 * mean) | (codebook.cluster_size < mean / 2)).nonzero()[:, 0]
    noise = torch.randn(len(extreme), codebook.dim, generator=generator)
    codebook.assign(extreme, noise.to(codebook.embed), mean)
    return len(extreme)
