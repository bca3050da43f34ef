"""The XTTS / Tortoise convolution stack; attribute names spell the keys of ``dvae.pth``.

Source: ``DiscreteVAE`` as XTTS v2 builds it: kernel 3, two strided layers, residual blocks, ReLU, no normalisation.
Every convolution pads with zeros, which is not silence, so what lies past an item's end must be zero again before the
next convolution; ``lengths`` does that and makes a padded batch equal to its items alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.nn.base import Reach

DOWNSAMPLE = 2  # strided layers; each halves the frame rate
STRIDE = 2**DOWNSAMPLE


def conv_reach(num_blocks: int) -> Reach:
    """The stack's reach: code t sees frames 4t - 27 .. 4t + 27 with three blocks, a frame 7 codes to each side."""
    # encoder: 1 + 2 frames in the strided layers, two 3-wide convolutions per block at 4 frames per step;
    # decoder: two 3-wide convolutions per block, and 1/2 + 1/4 code in the upsampling layers
    return Reach(STRIDE, encoder_halo=3 + 2 * num_blocks * STRIDE, decoder_halo=2 * num_blocks + 1)


def _mask(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero x (B, C, L) from each item's length on."""
    if lengths is None:
        return x
    inside = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
    return x * inside[:, None]


class ResBlock(nn.Module):
    """x + conv1(relu(conv3(relu(conv3(x))))), width C; (B, C, L) -> (B, C, L)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            return x + self.net(x)
        hidden = x
        for layer in self.net:
            hidden = _mask(layer(hidden), lengths) if isinstance(layer, nn.Conv1d) else layer(hidden)
        return x + hidden


class UpsampleConv(nn.Module):
    """Nearest-neighbour doubling, then a convolution: (B, C, L) -> (B, C', 2 L)."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_width, out_width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _MaskedStack(nn.Sequential):
    """Layers in a row. Between them, what lies past an item's end is zeroed again, at every resolution."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, L), ``lengths`` (B,) real L of each item of a right-padded batch -> (B, C', L')."""
        x = _mask(x, lengths)
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, lengths)
                continue
            if lengths is not None and isinstance(layer, nn.Sequential):
                lengths = self.rescaled(lengths)
            x = _mask(layer(x), lengths)
        return x

    def rescaled(self, lengths: Tensor) -> Tensor:
        """Lengths behind a layer that changes the rate."""
        raise NotImplementedError


class ConvEncoder(_MaskedStack):
    """mel (B, M, T), normalised -> latents (B, D, ceil(T / 4))."""

    def __init__(self, n_mels: int, hidden: int, dim: int, num_blocks: int) -> None:
        width = 2 * hidden
        super().__init__(
            nn.Sequential(nn.Conv1d(n_mels, hidden, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Conv1d(hidden, width, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
            *(ResBlock(width) for _ in range(num_blocks)),
            nn.Conv1d(width, dim, 1),
        )

    def rescaled(self, lengths: Tensor) -> Tensor:
        """Half, rounded up."""
        return (lengths + 1) // 2


class ConvDecoder(_MaskedStack):
    """latents (B, D, N) -> mel (B, M, 4 N), normalised."""

    def __init__(self, n_mels: int, hidden: int, dim: int, num_blocks: int) -> None:
        width = 2 * hidden
        super().__init__(
            nn.Conv1d(dim, width, 1),
            *(ResBlock(width) for _ in range(num_blocks)),
            nn.Sequential(UpsampleConv(width, width), nn.ReLU(inplace=True)),
            nn.Sequential(UpsampleConv(width, hidden), nn.ReLU(inplace=True)),
            nn.Conv1d(hidden, n_mels, 1),
        )

    def rescaled(self, lengths: Tensor) -> Tensor:
        """Twice."""
        return lengths * 2
