"""Grouped quantization: the channels of a latent in equal groups, each quantized by itself.

Source: Yang et al. 2023, "HiFi-Codec: Group-residual Vector quantization for High Fidelity Audio Codec" (with residual
quantizers inside). With one quantizer for all groups, the groups are streams that share a codebook, such as the rows of
the two-dimensional latents of a VQ-VAE on pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcodec.quantize.base import Quantized, Quantizer
from melcodec.quantize.composite import CompositeQuantizer


class GroupedQuantizer(CompositeQuantizer):
    """Q = groups x the inner Q; codes (B, Q, N) list the groups in order, each with all of its codebooks.

    Args:
        parts: the inner quantizers, of D / groups channels each, all alike.
        shared: they are one and the same.
    """

    def _each(self, whole: Tensor) -> list[tuple[Quantizer, Tensor]]:
        """Every group's quantizer with its part of ``whole`` (B, C, N)."""
        return [(self.part(index), part) for index, part in enumerate(whole.chunk(self.count, dim=1))]

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, Q, N) int64."""
        return torch.cat([group.encode(part) for group, part in self._each(latents.float())], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, Q, N) -> latents (B, D, N)."""
        return torch.cat([group.decode(part) for group, part in self._each(codes)], dim=1)

    def forward(self, latents: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None) -> Quantized:
        """See ``Quantizer``. Losses are means over groups."""
        results = [group(part, lengths, generator) for group, part in self._each(latents.float())]
        return self._joined(torch.cat([each.latents for each in results], dim=1), results)

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, per_step: int) -> None:
        """Every group starts on its channels of latents (n, D); a shared quantizer on all of them."""
        parts = list(latents.float().chunk(self.count, dim=1))
        if len(self.members) == 1:
            picked = torch.randperm(len(latents) * self.count, generator=generator)[: len(latents)]
            parts = [torch.cat(parts)[picked.to(latents.device)]]
            per_step *= self.count
        for member, part in zip(self.members, parts, strict=True):
            member.start(part, generator, per_step)
