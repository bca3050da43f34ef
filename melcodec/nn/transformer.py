"""ViT-VQGAN over time: patches, transformer layers, a head with tanh, and the same back.

Source: Yu et al. 2021, "Vector-quantized Image Modeling with Improved VQGAN", where a patch has all bands of a few frames,
and the layers have RMSNorm and SwiGLU. With a window each layer sees that many codes to each side, so that the reach is
the sum over the layers, and rotary positions make chunks equal the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcodec.config import TransformerConfig
from melcodec.nn.base import Backbone, Conv, Layer, Reach, mask
from melcodec.nn.blocks import Attention, Gated, Norm
from melcodec.nn.patches import PatchDecoder, PatchEncoder


class Positions(Layer):
    """Adds a learned vector to each position: (B, C, L) -> (B, C, L), L at most ``longest``."""

    def __init__(self, width: int, longest: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(width, longest) * 0.02)  # as small as in ViT

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        return mask(x + self.table[:, : x.shape[-1]], lengths)


class Head(Layer):
    """tanh between two linear layers, F -> 4 F -> C, behind RMSNorm: (B, F, L) -> (B, C, L)."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm, self.first, self.last = Norm(width), Conv(width, 4 * width, 1), Conv(4 * width, out_width, 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        return self.last(torch.tanh(self.first(self.norm(x))), lengths)


def build_transformer(config: TransformerConfig, n_mels: int, dim: int) -> Backbone:
    """Both halves, between ``n_mels`` bands and latents of width D = ``dim``."""
    width, rotary = config.hidden, config.positions == "rotary"
    longest = -(-config.longest // config.patch)  # codes

    def layers(out_width: int) -> list[Layer]:
        positions = [] if rotary else [Positions(width, longest)]
        mixers = (Attention(width, config.heads, config.window, rotary) for _ in range(config.num_blocks))
        return [*positions, *(Gated(width, mixer) for mixer in mixers), Head(width, out_width)]

    side = config.window * config.num_blocks
    context = Reach(side, side) if config.window else Reach(None, None, longest * config.patch)
    return Backbone(
        PatchEncoder(config, n_mels, layers(dim), context),
        PatchDecoder(config, n_mels, [Conv(dim, width, 1), *layers(width)], context),
        config.stride,
    )
