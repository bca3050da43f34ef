"""The XTTS / Tortoise convolution stack; attribute names spell the keys of ``dvae.pth``.

Source: ``DiscreteVAE`` as XTTS v2 builds it: kernel 3, two strided layers, residual blocks, ReLU, no normalisation.
Every convolution pads with zeros, which is not silence, so what lies past an item's end must be zero again before the
next convolution; ``lengths`` does that and makes a padded batch equal to its items alone.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.config import ConvConfig
from melcodec.nn.base import Backbone, Coder, Conv, Down, Layer, Reach, Stack, Up, mask


class ResBlock(Layer):
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
        """See ``Layer.forward``."""
        if lengths is None:
            return x + self.net(x)
        hidden = x
        for layer in self.net:
            hidden = mask(layer(hidden), lengths)
        return x + hidden


class UpsampleConv(nn.Module):
    """Nearest-neighbour doubling, then a convolution: (B, C, L) -> (B, C', 2 L)."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_width, out_width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ConvEncoder(Stack, Coder):
    """mel (B, M, T), normalised -> latents (B, D, ceil(T / 4)).

    Code t sees frames 4t - 27 .. 4t + 27 with three blocks: 1 + 2 frames in the strided layers, and two 3-wide
    convolutions in each block at 4 frames per step.
    """

    def __init__(self, n_mels: int, hidden: int, dim: int, num_blocks: int) -> None:
        width = 2 * hidden
        super().__init__(
            Down(nn.Conv1d(n_mels, hidden, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
            Down(nn.Conv1d(hidden, width, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
            *(ResBlock(width) for _ in range(num_blocks)),
            Conv(width, dim, 1),
        )
        self.reach = Reach(3 + 8 * num_blocks, 3 + 8 * num_blocks)


class ConvDecoder(Stack, Coder):
    """latents (B, D, N) -> mel (B, M, 4 N), normalised.

    A frame sees 7 codes to each side with three blocks: two 3-wide convolutions in each block, and 1/2 + 1/4 code in the
    upsampling layers.
    """

    def __init__(self, n_mels: int, hidden: int, dim: int, num_blocks: int) -> None:
        width = 2 * hidden
        super().__init__(
            Conv(dim, width, 1),
            *(ResBlock(width) for _ in range(num_blocks)),
            Up(UpsampleConv(width, width), nn.ReLU(inplace=True)),
            Up(UpsampleConv(width, hidden), nn.ReLU(inplace=True)),
            Conv(hidden, n_mels, 1),
        )
        self.reach = Reach(2 * num_blocks + 1, 2 * num_blocks + 1)


def build_conv(config: ConvConfig, n_mels: int, dim: int) -> Backbone:
    """Both halves, between ``n_mels`` bands and latents of width D = ``dim``."""
    sizes = (n_mels, config.hidden, dim, config.num_blocks)
    return Backbone(ConvEncoder(*sizes), ConvDecoder(*sizes), config.stride)
