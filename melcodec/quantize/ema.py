"""The XTTS codebook: nearest codeword, learned by exponential moving averages.

Source: van den Oord et al. 2017, "Neural Discrete Representation Learning", appendix A.1, as Tortoise implements it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcodec import distributed
from melcodec.config import CodebookConfig, EMAConfig
from melcodec.quantize.kmeans import cluster_sums
from melcodec.quantize.vector import Moments, VectorQuantizer


class EMACodebook(VectorQuantizer):
    """Codewords are moving averages of the latents that took them.

    ``rule = "article"`` is the form of the first of the articles that this project follows, as it is written there, to be
    compared with: the smoothed counts are stored as the new counts, the codewords are the averages of the step before
    divided by them, and counts and sums are means over the items of the batch.

    Buffers, named and laid out as in ``dvae.pth``: embed (d, K); cluster_size (K,), the unsmoothed moving count;
    embed_avg (d, K), the moving sum of latents.
    """

    embed_avg: Tensor
    training_only = frozenset({"cluster_size", "embed_avg"})

    def __init__(self, dim: int, config: EMAConfig, upkeep: CodebookConfig | None = None) -> None:
        super().__init__(dim, config, upkeep)
        self.eps, self.as_written = config.eps, config.rule == "article"
        self.register_buffer("embed_avg", self.embed.clone())

    def _register_codewords(self) -> None:
        self.register_buffer("embed", torch.randn(self.code_dim, self.config.codebook_size))

    def _count(self, counts: Tensor, items: Tensor) -> None:
        super()._count(counts / items.clamp(min=1) if self.as_written else counts, items)

    def _learn(self, moments: Sequence[Moments], items: Tensor) -> None:
        parts = [cluster_sums(each.vectors, each.codes, self.sizes[0])[1] for each in moments]
        sums = torch.stack(parts).sum(0)
        distributed.all_reduce_sum(sums)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.sizes[0] * self.eps) * total
        if self.as_written:  # the averages of the step before, and the smoothed counts are kept
            self.embed.copy_(self.embed_avg / smoothed)
            self.cluster_size.copy_(smoothed)
            sums = sums / items.clamp(min=1)
        self.embed_avg.mul_(self.config.decay).add_(sums.T, alpha=1 - self.config.decay)
        if not self.as_written:
            self.embed.copy_(self.embed_avg / smoothed)

    @torch.no_grad()
    def assign(self, chosen: Tensor, codewords: Tensor) -> None:
        """As the base does, with the averages, so that the next update keeps them.

        Forgetting ``embed_avg`` here is a known bug of other codecs: the next update then undoes the change.
        """
        super().assign(chosen, codewords)
        self.embed_avg.copy_(torch.where(chosen, codewords * self.cluster_size, self.embed_avg))

    @torch.no_grad()
    def forget_training(self) -> None:
        """Every code counts once, and its sum is the codeword itself."""
        self.cluster_size.fill_(1)
        self.embed_avg.copy_(self.embed)
