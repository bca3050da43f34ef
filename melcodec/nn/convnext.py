"""ConvNeXt blocks over time, at a half and at a quarter of the frame rate.

Source: Liu et al. 2022, "A ConvNet for the 2020s", with RMSNorm for LayerNorm and SwiGLU (Shazeer 2020) for the
pointwise layers: x + depthwise7(norm(x)), then x + swiglu(norm(x)). The bands of the mel are channels. Optionally one
transformer layer (``nn.blocks``) before and one after the quantizer.
"""

from __future__ import annotations

from torch import nn

from melcodec.config import ConvNeXtConfig
from melcodec.nn.base import Backbone, Coder, Conv, Down, Layer, Reach, Stack, Up
from melcodec.nn.blocks import Attention, ChannelNorm, Gated, Norm
from melcodec.nn.conv import UpsampleConv

KERNEL = 7
SIDE = KERNEL // 2


class Depthwise(Conv):
    """A convolution of each channel alone, 7 wide: (B, C, L) -> (B, C, L)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, KERNEL, padding=SIDE, groups=width)


def _blocks(width: int, count: int) -> list[Layer]:
    return [Gated(width, Depthwise(width)) for _ in range(count)]


def _attention(config: ConvNeXtConfig) -> list[Layer]:
    width = 2 * config.hidden
    return [Gated(width, Attention(width, config.heads))] if config.attention else []


class ConvNeXtEncoder(Stack, Coder):
    """mel (B, M, T), normalised -> latents (B, D, ceil(T / 4)).

    With b blocks at each rate, code t sees frames 4t - 3 - 18b .. 4t + 3 + 18b: 1 + 2 frames in the strided layers, and
    3 positions of 2 and of 4 frames in each block. With attention it sees all.
    """

    def __init__(self, config: ConvNeXtConfig, n_mels: int, dim: int) -> None:
        hidden, width, count = config.hidden, 2 * config.hidden, config.num_blocks
        super().__init__(
            Down(nn.Conv1d(n_mels, hidden, 3, stride=2, padding=1)),
            *_blocks(hidden, count),
            Down(ChannelNorm(hidden), nn.Conv1d(hidden, width, 3, stride=2, padding=1)),
            *_blocks(width, count),
            *_attention(config),
            Norm(width),
            Conv(width, dim, 1),
        )
        halo = 3 + (2 + 4) * SIDE * count
        self.reach = Reach(None, None, config.longest) if config.attention else Reach(halo, halo)


class ConvNeXtDecoder(Stack, Coder):
    """latents (B, D, N) -> mel (B, M, 4 N), normalised.

    A frame sees 1 code to each side in the upsampling layers, and 3 and 3/2 codes in the blocks of each rate. With
    attention it sees all.
    """

    def __init__(self, config: ConvNeXtConfig, n_mels: int, dim: int) -> None:
        hidden, width, count = config.hidden, 2 * config.hidden, config.num_blocks
        super().__init__(
            Conv(dim, width, 1),
            *_attention(config),
            *_blocks(width, count),
            Up(ChannelNorm(width), UpsampleConv(width, hidden)),
            *_blocks(hidden, count),
            Up(ChannelNorm(hidden), UpsampleConv(hidden, hidden), nn.SiLU()),
            Conv(hidden, n_mels, 1),
        )
        halo = 1 + SIDE * count + (SIDE * count + 1) // 2
        self.reach = Reach(None, None, config.longest // config.stride) if config.attention else Reach(halo, halo)


def build_convnext(config: ConvNeXtConfig, n_mels: int, dim: int) -> Backbone:
    """Both halves, between ``n_mels`` bands and latents of width D = ``dim``."""
    return Backbone(ConvNeXtEncoder(config, n_mels, dim), ConvNeXtDecoder(config, n_mels, dim), config.stride)
