"""What composites share: quantizers that hold quantizers, all alike, one for each part or one for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from melcodec.quantize.base import Quantized, Quantizer


class CompositeQuantizer(Quantizer):
    """``count`` parts, each with a member of its own, or all with the one that they share; Q = count x the inner Q.

    Args:
        parts: a quantizer for each part, all alike.
        shared: only the first is kept, and serves all parts.
    """

    def __init__(self, parts: Sequence[Quantizer], shared: bool) -> None:
        super().__init__()
        self.count = len(parts)
        self.parts = nn.ModuleList(parts[:1] if shared else parts)
        self.sizes = parts[0].sizes * self.count
        self.straight_through = parts[0].straight_through
        self.training_only = frozenset(
            f"parts.{index}.{name}" for index, part in enumerate(self.members) for name in part.training_only
        )

    @property
    def members(self) -> list[Quantizer]:
        """The quantizers that learn."""
        return list(self.parts)  # type: ignore[arg-type]

    def part(self, index: int) -> Quantizer:
        """The quantizer of part ``index``."""
        return self.members[index % len(self.parts)]

    def update(self, moments: Sequence[Any], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Every member learns from the moments of its part, a shared one from those of all.

        ``revived`` is summed over members, other scalars are averaged.
        """
        per_part = [list(each) for each in zip(*moments, strict=True)]  # of each part, those of every forward pass
        if len(self.members) == 1:
            per_part = [[each for part in per_part for each in part]]
        told = [member.update(each, step, generator) for member, each in zip(self.members, per_part, strict=True)]
        together = {name: torch.stack([each[name] for each in told]) for name in told[0]}
        return {name: values.sum() if name == "revived" else values.mean() for name, values in together.items()}

    def forget_training(self) -> None:
        """As every member does."""
        for member in self.members:
            member.forget_training()

    def tables(self) -> list[Tensor]:
        """The codewords of every member."""
        return [table for member in self.members for table in member.tables()]

    def _joined(self, latents: Tensor, results: Sequence[Quantized]) -> Quantized:
        """The result of all parts: codes one after the other, losses as means over parts."""
        codes = torch.cat([each.codes for each in results], dim=1)
        losses = {name: torch.stack([each.losses[name] for each in results]).mean() for name in results[0].losses}
        return Quantized(latents, codes, losses, [each.moments for each in results] if self.training else None)
