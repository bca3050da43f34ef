"""What a quantizer is: latents (B, D, N) -> codes (B, Q, N) -> latents (B, D, N)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Quantized(NamedTuple):
    """One pass through a quantizer.

    latents (B, D, N): quantised, with the straight-through gradient; codes (B, Q, N) int64; losses: scalars by their own
    names (``commitment``, ``codebook``, ...), not weighted; moments: what ``update`` needs, None outside of training.
    """

    latents: Tensor
    codes: Tensor
    losses: dict[str, Tensor]
    moments: Any = None


class Quantizer(nn.Module):
    """The base of all quantizers. Composites (residual, grouped) hold quantizers and are quantizers.

    ``forward`` changes nothing. The training loop collects the ``moments`` of every part of a batch and calls ``update``
    once after the optimizer's step, so that parts and processes add up to one batch.

    Attributes:
        sizes: K of each codebook; Q = len(sizes).
        straight_through: the gradient of the quantised latents is handed to the latents unchanged.
        training_only: names in ``state_dict()`` of what only training needs: not part of what a code means.
    """

    sizes: tuple[int, ...]
    straight_through = True
    training_only: frozenset[str] = frozenset()

    @property
    def decodable(self) -> tuple[int, ...]:
        """How many of the first codebooks can be decoded; all of them, unless the kind allows fewer."""
        return (len(self.sizes),)

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, Q, N) int64."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, Q', N), the first Q' <= Q of them where the kind allows fewer -> latents (B, D, N) float32."""
        raise NotImplementedError

    def forward(self, latents: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None) -> Quantized:
        """latents (B, D, N) -> Quantized, all float32.

        Args:
            lengths: (B,) real N of each item of a padded batch; what lies past it counts nowhere.
            generator: on the CPU; of whatever is random in training (sampling, dropout).
        """
        raise NotImplementedError

    def start(self, latents: Tensor, generator: torch.Generator, per_step: int) -> None:
        """Set the first codewords from encoded speech; by default they stay as they were made.

        Args:
            latents: (n, D).
            generator: on the CPU.
            per_step: latents in a training step, which weighs the start against what is learned from the first steps.
        """

    def update(self, moments: Sequence[Any], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Learn what gradients do not teach, after the optimizer's step; by default nothing.

        Args:
            moments: of every forward pass of the step in this process; sums are taken over processes.
            step: finished steps before this one.
            generator: on the CPU and alike in every process.

        Returns:
            Scalars to log, by name: ``revived`` codewords, ``temperature``.
        """
        return {}

    def forget_training(self) -> None:
        """Set the ``training_only`` state from the codewords, for weights that come without it."""

    def tables(self) -> list[Tensor]:
        """The codewords (K, d) of each codebook that is stored, for pictures."""
        return []

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The state that decides what a code means."""
        return {key: value for key, value in self.state_dict().items() if key not in self.training_only}


def inside(latents: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Which positions (B, N) of latents (B, D, N) are real; None when all are."""
    if lengths is None:
        return None
    return torch.arange(latents.shape[-1], device=latents.device) < lengths[:, None]


def mean_inside(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of values (B, D, N) over all elements, or over those of the real positions (B, N)."""
    if mask is None:
        return values.mean()
    return (values.mean(1) * mask).sum() / mask.sum().clamp(min=1)
