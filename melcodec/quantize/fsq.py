"""Finite scalar quantization: a few channels, each rounded to one of a few levels; nothing but projections is learned.

Source: Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505), section 3 and appendix A.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcodec.config import FSQConfig
from melcodec.quantize.base import Quantized, Quantizer

MARGIN = 1e-3  # the outermost levels are reached before tanh is 1


class FSQuantizer(Quantizer):
    """Channels z of a projection become round(f(z)), with f(z) = half tanh(z + shift) - offset between the outermost levels.

    With L levels, half = (L - 1) / 2 and offset = 1/2 for an even L, else 0. The shift makes f(0) = 0, with the inverse of
    tanh. The values are divided by floor(L / 2), so that they lie in -1 .. 1. A codeword's index counts its levels from
    their lowest, the first channel fastest. Where K would exceed 65,536, further channels make further codebooks.

    There is no codebook to start, to update or to revive, and no loss of its own.

    Args:
        dim: D, width of the latents.
        config: the levels of each channel.
    """

    straight_through = False  # the gradient passes the projections and f
    levels: Tensor
    basis: Tensor

    def __init__(self, dim: int, config: FSQConfig) -> None:
        super().__init__()
        self.sizes, self.widths = config.sizes, [len(levels) for levels in config.books]
        basis = [_strides(levels) for levels in config.books]
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)
        self.register_buffer("basis", torch.tensor([stride for book in basis for stride in book]), persistent=False)
        self.into = nn.Conv1d(dim, len(config.levels), 1)
        self.out = nn.Conv1d(len(config.levels), dim, 1)

    def bounded(self, channels: Tensor) -> Tensor:
        """f of channels (B, C, N): between the outermost levels of each, and not yet rounded."""
        levels = self.levels[:, None]
        half = (levels - 1) * (1 + MARGIN) / 2
        offset = 0.5 * (levels % 2 == 0)
        return (channels + torch.atanh(offset / half)).tanh() * half - offset

    def indices(self, values: Tensor) -> Tensor:
        """Rounded values (B, C, N) of the channels -> codes (B, Q, N)."""
        digits = (values.long() + self.levels[:, None] // 2) * self.basis[:, None]
        return torch.stack([book.sum(1) for book in torch.split(digits, self.widths, dim=1)], dim=1)

    def values(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, N) -> the rounded values (B, C, N) of the channels."""
        spread = torch.cat([codes[:, [book]].expand(-1, width, -1) for book, width in enumerate(self.widths)], dim=1)
        return (spread // self.basis[:, None] % self.levels[:, None] - self.levels[:, None] // 2).float()

    def _project(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            return self.bounded(self.into(latents.float()))

    def _expand(self, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            return self.out(values / (self.levels[:, None] // 2))

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, Q, N) int64."""
        return self.indices(self._project(latents).round())

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, Q, N) -> latents (B, D, N) float32."""
        return self._expand(self.values(codes))

    def forward(self, latents: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None) -> Quantized:
        """See ``Quantizer``: rounding passes the gradient on unchanged."""
        bounded = self._project(latents)
        rounded = bounded.detach().round()
        return Quantized(self._expand(bounded + (rounded - bounded).detach()), self.indices(rounded), {})


def _strides(levels: tuple[int, ...]) -> list[int]:
    """What a step of each channel adds to the index: the product of the levels before it."""
    strides = [1]
    for count in levels[:-1]:
        strides.append(strides[-1] * count)
    return strides
