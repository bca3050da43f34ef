"""Residual quantization: every stage quantizes what the stages before it left over.

Sources: Zeghidour et al. 2021, "SoundStream", section III-C (and its quantizer dropout); Lee et al. 2022,
"Autoregressive Image Generation using Residual Quantization" (RQ-VAE: one codebook for all stages).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcodec.quantize.base import Quantized, Quantizer
from melcodec.quantize.composite import CompositeQuantizer


class ResidualQuantizer(CompositeQuantizer):
    """Q = stages x the inner Q; codes (B, Q, N) list the stages in order. Fewer of them decode too, coarser.

    Args:
        stages: the inner quantizers, all alike.
        shared: they are one and the same.
        dropout: share of training items that use only their first stages, how many being drawn uniformly.
    """

    def __init__(self, stages: Sequence[Quantizer], shared: bool = False, dropout: float = 0.0) -> None:
        super().__init__(stages, shared)
        self.dropout = dropout

    @property
    def decodable(self) -> tuple[int, ...]:
        """Any number of whole stages."""
        width = len(self.members[0].sizes)
        return tuple(range(width, len(self.sizes) + 1, width))

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, Q, N) int64."""
        residual, codes = latents.float(), []
        for index in range(self.count):
            codes.append(self.part(index).encode(residual))
            residual = residual - self.part(index).decode(codes[-1])
        return torch.cat(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, Q', N) of the first stages -> latents (B, D, N): the sum of what the stages give."""
        width = len(self.members[0].sizes)
        parts = torch.split(codes, width, dim=1)
        return torch.stack([self.part(index).decode(part) for index, part in enumerate(parts)]).sum(0)

    def forward(self, latents: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None) -> Quantized:
        """See ``Quantizer``. Losses are means over stages; an item's unused stages count nowhere."""
        residual = latents = latents.float()
        used = self._used(latents, generator)
        results = []
        for index in range(self.count):
            active = None if used is None else used > index
            real = lengths
            if active is not None:  # a stage that an item does not use sees none of its latents
                real = torch.where(active, latents.shape[-1] if lengths is None else lengths, 0)
            part = self.part(index)(residual, real, generator)
            given = part.latents if active is None else part.latents * active[:, None, None]
            results.append(part._replace(latents=given))
            residual = residual - given.detach()
        quantised = torch.stack([each.latents for each in results]).sum(0)
        if self.straight_through:  # every stage passes the gradient on; together they must pass it once
            quantised = latents + (quantised - latents).detach()
        return self._joined(quantised, results)

    def _used(self, latents: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """How many stages each item (B,) uses; None when all use all."""
        if not (self.training and self.dropout):
            return None
        size = len(latents)
        fewer = torch.rand(size, generator=generator) < self.dropout
        count = torch.where(fewer, torch.randint(1, self.count + 1, (size,), generator=generator), self.count)
        return count.to(latents.device)

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, per_step: int) -> None:
        """Every stage starts on what those before it leave of latents (n, D); a shared one on the latents themselves."""
        residual = latents.float().T[None]
        for index, member in enumerate(self.members):
            member.start(residual[0].T, generator, per_step)
            if index + 1 < len(self.members):
                residual = residual - member.decode(member.encode(residual))
