"""What a backbone is: an encoder and a decoder, each of which says how far it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Reach:
    """What one output of a coder depends on, which decides whether and how it may be run in chunks.

    Args:
        left: inputs before its own that can change it; None when unbounded.
        right: inputs after its own first that can change it; None when unbounded.
        longest: the most inputs that a coder of unbounded reach accepts, since it must see all of them at once.
    """

    left: int | None
    right: int | None
    longest: int | None = None

    @property
    def halo(self) -> int | None:
        """Inputs on each side; None when unbounded."""
        return None if self.left is None or self.right is None else max(self.left, self.right)


class Coder(nn.Module):
    """Encoder or decoder of a backbone: (B, C, L) -> (B, C', L').

    Attributes:
        reach: in its own inputs, mel frames for an encoder and latents for a decoder.
    """

    reach: Reach

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, L), zero-padded on the right -> (B, C', L').

        Args:
            lengths: (B,) real L of each item; None when all are whole. What lies past an item's end must be zero again
                after every layer that mixes time, so that a padded batch gives what its items give alone.
        """
        raise NotImplementedError


class Backbone(NamedTuple):
    """An encoder (B, M, T) -> (B, D, ceil(T / stride)) and a decoder (B, D, N) -> (B, M, stride N)."""

    encoder: Coder
    decoder: Coder
    stride: int


def mask(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero x (B, ..., L) from each item's length on."""
    if lengths is None:
        return x
    inside = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
    return x * inside.view(x.shape[0], *(1,) * (x.ndim - 2), -1)


class Layer(nn.Module):
    """A layer of a ``Stack``; one that changes the rate of time declares it in ``rescaled``."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, L), zero past each item's length -> (B, C', L'), zero past each item's new length."""
        raise NotImplementedError

    def rescaled(self, lengths: Tensor) -> Tensor:
        """Lengths behind this layer."""
        return lengths


class Stack(nn.Sequential):
    """Layers in a row, each of which is called with the lengths of its items."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Coder.forward``."""
        x = mask(x, lengths)
        for layer in self:
            x = layer(x, lengths)
            lengths = None if lengths is None else layer.rescaled(lengths)  # type: ignore[operator]
        return x


class Down(nn.Sequential, Layer):
    """Modules that halve the rate of time, rounding up."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        x = super().forward(x)  # type: ignore[no-untyped-call]
        return mask(x, None if lengths is None else self.rescaled(lengths))

    def rescaled(self, lengths: Tensor) -> Tensor:
        """Half, rounded up."""
        return (lengths + 1) // 2


class Up(nn.Sequential, Layer):
    """Modules that double the rate of time."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        x = super().forward(x)  # type: ignore[no-untyped-call]
        return mask(x, None if lengths is None else self.rescaled(lengths))

    def rescaled(self, lengths: Tensor) -> Tensor:
        """Twice."""
        return lengths * 2


class Conv(nn.Conv1d, Layer):
    """A convolution that keeps the rate of time: zero past each item's end."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        return mask(super().forward(x), lengths)
