"""Keeping codes alive: unused codewords move to where latents are.

It must run after the moving-average update and must set the averages too, or that update undoes it. Nothing here
depends on a value on the device, so that a GPU is never waited for.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from melcodec import distributed


class Table(Protocol):
    """A codebook whose codewords can be replaced: see ``VectorQuantizer``."""

    cluster_size: Tensor
    embed: Tensor

    def assign(self, chosen: Tensor, codewords: Tensor) -> None:
        """Replace the ``chosen`` (K,) bool columns of embed (d, K)."""


@torch.no_grad()
def revive_from_batch(codebook: Table, vectors: Tensor, below: float, generator: torch.Generator) -> Tensor:
    """Replace dead codewords by random latents of the batch.

    Source: Dhariwal et al. 2020, "Jukebox", section 3.1 (random restarts).

    Args:
        codebook: changed in place.
        vectors: (n, d), this process's, of the step whose update just ran.
        below: a code is dead when its moving count is under this share of the mean one.
        generator: on the CPU and alike in every process; decides which latents are taken.

    Returns:
        How many codes were replaced, a scalar.
    """
    first, total = _place(len(vectors), vectors.device)
    mean = codebook.cluster_size.mean()
    dead = codebook.cluster_size < below * mean
    turn = dead.cumsum(0) - 1  # the how manyth of the dead codewords each is
    dead &= turn < total
    picks = torch.randperm(total, generator=generator)[: len(dead)].to(vectors.device)
    taken = picks[turn.clamp(0, len(picks) - 1)] - first
    mine = dead & (taken >= 0) & (taken < len(vectors))
    # each latent is one process's; the others add nothing
    chosen = vectors[taken.clamp(0, len(vectors) - 1)].float() * mine[:, None]
    distributed.all_reduce_sum(chosen)
    codebook.cluster_size.copy_(torch.where(dead, mean, codebook.cluster_size))
    codebook.assign(dead, chosen.T)
    return dead.sum()


@torch.no_grad()
def revive_two_sided(codebook: Table, generator: torch.Generator) -> Tensor:
    """The rule of the first of the articles: codes with more than twice or less than half the uniform share become noise.

    It is here to be compared with: noise is not where the latents are, so few codes stay in use (``docs/training.md``).

    Returns:
        How many codes were replaced, a scalar.
    """
    mean = codebook.cluster_size.mean()
    extreme = (codebook.cluster_size > 2 * mean) | (codebook.cluster_size < mean / 2)
    noise = torch.randn(codebook.embed.shape, generator=generator).to(codebook.embed)
    codebook.cluster_size.copy_(torch.where(extreme, mean, codebook.cluster_size))
    codebook.assign(extreme, noise)
    return extreme.sum()


@torch.no_grad()
def replace_as_written(codebook: Table, shares: Tensor, generator: torch.Generator) -> Tensor:
    """The same rule as the article writes it: by the codes of one batch, and without a change of counts or averages.

    An EMA codebook makes its codewords anew from its averages at every step, so there the noise lasts for one step.

    Args:
        codebook: changed in place, its codewords only.
        shares: (K,) how often each code occurs in the batch, divided by the number of items (as written: with many codes
            in an item nearly every code is then replaced) or by the number of latents.
        generator: on the CPU and alike in every process.

    Returns:
        How many codes were replaced, a scalar.
    """
    size = len(shares)
    extreme = (shares > 2 / size) | (shares < 1 / (2 * size))
    noise = torch.randn(codebook.embed.shape, generator=generator).to(codebook.embed)
    codebook.embed.copy_(torch.where(extreme, noise, codebook.embed))
    return extreme.sum()


def _place(count: int, device: torch.device) -> tuple[int, int]:
    """Where this process's ``count`` latents begin among those of all processes, and how many all are."""
    if distributed.world_size() == 1:
        return 0, count
    counts = torch.zeros(distributed.world_size(), dtype=torch.int64, device=device)
    counts[distributed.rank()] = count
    distributed.all_reduce_sum(counts)
    return int(counts[: distributed.rank()].sum()), int(counts.sum())
