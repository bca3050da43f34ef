"""Keeping codes alive: unused codewords move to where latents are.

Source: Dhariwal et al. 2020, "Jukebox", section 3.1 (random restarts). It must run after the moving-average update and
must set the averages too, or that update undoes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcodec import distributed
from melcodec.quantize.ema import EMACodebook


@torch.no_grad()
def revive_from_batch(codebook: EMACodebook, latents: Tensor, below: float, generator: torch.Generator) -> int:
    """Replace dead codewords by random latents of the batch.

    Args:
        codebook: changed in place.
        latents: (B, D, N), of the step whose update just ran.
        below: a code is dead when its moving count is under this share of the mean one.
        generator: on the CPU; decides which latents are taken.

    Returns:
        How many codes were replaced.
    """
    mean = codebook.cluster_size.mean()
    dead = (codebook.cluster_size < below * mean).nonzero()[:, 0]
    flat = latents.detach().float().transpose(1, 2).reshape(-1, codebook.dim)
    if len(dead) == 0:
        return 0
    dead = dead[: len(flat)]
    picks = torch.randperm(len(flat), generator=generator)[: len(dead)].to(flat.device)
    chosen = flat[picks].contiguous()
    distributed.broadcast(chosen)
    codebook.assign(dead, chosen, mean)
    return len(dead)
