"""Quantizers with a table of codewords: the nearest one stands for a latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec import distributed
from melcodec.config import CodebookConfig, EMAConfig, GradientConfig
from melcodec.quantize.base import Quantized, Quantizer, inside, mean_inside
from melcodec.quantize.kmeans import distances, kmeans, nearest
from melcodec.quantize.revival import replace_as_written, revive_from_batch, revive_two_sided


class Moments(NamedTuple):
    """Of one forward pass: how many latents took each code (K,), the latents (n, d), their codes (n,), and of how many items."""

    counts: Tensor
    vectors: Tensor
    codes: Tensor
    items: Tensor


class VectorQuantizer(Quantizer):
    """One codebook (Q = 1) of K codewords; how they learn is what the members differ in.

    Where the codewords are narrower than the latents, a learned projection leads in and another one out; with
    ``normalize`` the nearest codeword is that of the smallest angle (Yu et al. 2021, "Vector-quantized Image Modeling with
    Improved VQGAN", section 3.1).

    State: embed (d, K), columns are codewords, as in ``dvae.pth``; cluster_size (K,), the moving count of each code.

    Args:
        dim: D, width of the latents.
        config: K, d, and how the codewords learn.
        upkeep: how the codewords start and how unused ones are revived.
    """

    embed: Tensor
    cluster_size: Tensor
    training_only = frozenset({"cluster_size"})

    def __init__(self, dim: int, config: EMAConfig | GradientConfig, upkeep: CodebookConfig | None = None) -> None:
        super().__init__()
        self.config, self.upkeep = config, upkeep or CodebookConfig()
        self.sizes = (config.codebook_size,)
        self.code_dim = config.code_dim or dim
        self.straight_through = not config.code_dim and not config.normalize
        self.into = nn.Conv1d(dim, self.code_dim, 1) if config.code_dim else None
        self.out = nn.Conv1d(self.code_dim, dim, 1) if config.code_dim else None
        self._register_codewords()  # before the counts: the order of ``dvae.pth``
        self.register_buffer("cluster_size", torch.zeros(config.codebook_size))

    def _register_codewords(self) -> None:
        """Make ``embed`` (d, K) with its first, random codewords."""
        raise NotImplementedError

    def codewords(self) -> Tensor:
        """(d, K) float32, as distances and decoding see them."""
        return F.normalize(self.embed, dim=0) if self.config.normalize else self.embed

    def tables(self) -> list[Tensor]:
        """The codewords (K, d)."""
        return [self.codewords().detach().T]

    def _project(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> (B, d, N), where codewords are; float32 whatever the surrounding autocast says."""
        with torch.autocast(latents.device.type, enabled=False):
            narrow = latents.float() if self.into is None else self.into(latents.float())
        return F.normalize(narrow, dim=1) if self.config.normalize else narrow

    def _expand(self, narrow: Tensor) -> Tensor:
        with torch.autocast(narrow.device.type, enabled=False):
            return narrow if self.out is None else self.out(narrow)

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, 1, N) int64; a tie goes to the lowest index."""
        return nearest(_rows(self._project(latents)), self.codewords()).view(latents.shape[0], 1, -1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, 1, N) in 0 .. K - 1 -> latents (B, D, N)."""
        return self._expand(F.embedding(codes[:, 0], self.codewords().T).transpose(1, 2))

    def forward(self, latents: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None) -> Quantized:
        """See ``Quantizer``: the quantised latents are those of the codewords as they are before ``update``."""
        narrow, table = self._project(latents), self.codewords()
        picked = self._pick(_rows(narrow.detach()), table.detach(), generator)
        codes = picked.view(len(latents), 1, -1)
        quantised = F.embedding(codes[:, 0], table.T).transpose(1, 2)
        mask = inside(latents, lengths)
        losses = {"commitment": mean_inside((narrow - quantised.detach()).pow(2), mask)} | self._losses(narrow, quantised, mask)
        through = self._expand(narrow + (quantised - narrow).detach())
        return Quantized(through, codes, losses, self._moments(narrow.detach(), codes[:, 0], mask) if self.training else None)

    def _pick(self, vectors: Tensor, table: Tensor, generator: torch.Generator | None) -> Tensor:
        """The nearest codeword of each row (n, d), or in training one that is drawn by its distance.

        Source: Lee et al. 2022, "Autoregressive Image Generation using Residual Quantization", equation 9. The largest of
        logits plus Gumbel noise is a draw from their softmax.
        """
        temperature = self.config.temperature
        if not (self.training and temperature):
            return nearest(vectors, table)
        uniform = torch.rand(len(vectors), table.shape[1], generator=generator).clamp(min=1e-20).to(vectors.device)
        return (-distances(vectors, table) / temperature - (-uniform.log()).log()).argmax(1)

    def _losses(self, narrow: Tensor, quantised: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Losses beside the commitment."""
        return {}

    def _moments(self, narrow: Tensor, codes: Tensor, mask: Tensor | None) -> Moments:
        vectors = narrow.transpose(1, 2)
        items = torch.tensor(float(len(vectors)), device=codes.device) if mask is None else mask.any(1).sum().float()
        vectors, codes = (vectors.flatten(0, 1), codes.flatten()) if mask is None else (vectors[mask], codes[mask])
        counts = torch.zeros(self.sizes[0], device=codes.device).index_add_(0, codes, torch.ones_like(codes, dtype=torch.float32))
        return Moments(counts, vectors, codes, items)

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, per_step: int) -> None:
        """k-means over latents (n, D), or latents themselves; ``stock`` keeps the random codewords."""
        if self.upkeep.start == "stock":
            return
        vectors = _rows(self._project(latents.T[None]))
        iterations = self.upkeep.kmeans_iterations if self.upkeep.start == "kmeans" else 0  # the centres are then latents
        centres, _ = kmeans(vectors, self.sizes[0], iterations, generator)
        self.cluster_size.fill_(per_step / self.sizes[0])
        self.assign(torch.ones(self.sizes[0], dtype=torch.bool, device=centres.device), centres.T)

    @torch.no_grad()
    def update(self, moments: Sequence[Moments], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Move the counts, then the codewords, then revive those that are not used: in this order, or it is undone."""
        counts = torch.stack([each.counts for each in moments]).sum(0)
        items = torch.stack([each.items for each in moments]).sum(0)
        distributed.all_reduce_sum(counts, items)
        self._count(counts, items)
        self._learn(moments, items)
        if self.upkeep.revive == "batch":
            vectors = torch.cat([each.vectors for each in moments])
            return {"revived": revive_from_batch(self, vectors, self.upkeep.revive_below, generator)}
        if self.upkeep.revive == "two-sided":
            return {"revived": revive_two_sided(self, generator)}
        if self.upkeep.revive in ("article-items", "article-vectors"):
            whole = items if self.upkeep.revive == "article-items" else counts.sum()
            return {"revived": replace_as_written(self, counts / whole.clamp(min=1), generator)}
        return {}

    def _count(self, counts: Tensor, items: Tensor) -> None:
        """Move the counts by those of a batch (K,) of so many items."""
        self.cluster_size.mul_(self.config.decay).add_(counts, alpha=1 - self.config.decay)

    def _learn(self, moments: Sequence[Moments], items: Tensor) -> None:
        """Move the codewords, where gradients do not."""

    @torch.no_grad()
    def assign(self, chosen: Tensor, codewords: Tensor) -> None:
        """Replace the ``chosen`` (K,) bool codewords by those columns of ``codewords`` (d, K), at their present counts."""
        self.embed.copy_(torch.where(chosen, codewords, self.embed))


def _rows(latents: Tensor) -> Tensor:
    """(B, d, N) -> (B N, d)."""
    return latents.transpose(1, 2).flatten(0, 1)
