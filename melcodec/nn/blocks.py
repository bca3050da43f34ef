"""What several backbones are made of: RMSNorm over channels, SwiGLU, attention with rotary positions.

Sources: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization"; Shazeer 2020, "GLU Variants Improve Transformer";
Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.nn.base import Layer, mask

ROTARY_BASE = 10_000.0  # the slowest pair of channels turns once in 2 pi times this many positions


class ChannelNorm(nn.RMSNorm):
    """RMSNorm over the channels of each position: (B, C, L) -> (B, C, L); zero stays zero."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Norm(ChannelNorm, Layer):
    """``ChannelNorm`` in a ``Stack``."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        return mask(super().forward(x), lengths)


class SwiGLU(nn.Module):
    """out(silu(gate(x)) * value(x)) without biases: (B, C, L) -> (B, C, L); zero stays zero.

    It is 8/3 C channels wide inside, so that it has as many weights as a plain layer 4 C wide.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, 8 * width // 3)
        self.expand = nn.Conv1d(width, 2 * inner, 1, bias=False)
        self.out = nn.Conv1d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.expand(x).chunk(2, dim=1)
        return self.out(F.silu(gate) * value)


class Gated(Layer):
    """x + mixer(norm(x)), then x + swiglu(norm(x)), where the mixer alone mixes time.

    Args:
        width: C.
        mixer: (B, C, L) and lengths -> (B, C, L); what it gives past an item's end is zeroed here.
    """

    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer_norm, self.mixer = ChannelNorm(width), mixer
        self.norm, self.swiglu = ChannelNorm(width), SwiGLU(width)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        x = x + mask(self.mixer(self.mixer_norm(x), lengths), lengths)
        return x + self.swiglu(self.norm(x))  # no biases: what is zero stays zero


class Attention(nn.Module):
    """Self-attention over time: (B, C, L) -> (B, C, L).

    Args:
        width: C.
        heads: C / heads must be even when rotary.
        window: positions on each side that a position sees; 0: all.
        rotary: turn queries and keys by their position, so that only differences of positions count.
    """

    def __init__(self, width: int, heads: int, window: int = 0, rotary: bool = True) -> None:
        super().__init__()
        self.heads, self.window, self.rotary = heads, window, rotary
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Positions from ``lengths`` (B,) on are seen by none; what they get means nothing."""
        batch, width, positions = x.shape
        qkv = self.qkv(x.transpose(1, 2)).view(batch, positions, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, C / heads)
        if self.rotary:
            query, key = rotate(query), rotate(key)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=self._seen(positions, lengths, x.device))
        return self.out(attended.transpose(1, 2).flatten(2)).transpose(1, 2)

    def _seen(self, positions: int, lengths: Tensor | None, device: torch.device) -> Tensor | None:
        """(B or 1, 1, L, L) bool, which keys each query sees; None for all. Each sees itself, or its row would be empty."""
        if lengths is None and not self.window:
            return None
        place = torch.arange(positions, device=device)
        away = (place[:, None] - place).abs()
        seen = torch.ones_like(away, dtype=torch.bool) if not self.window else away <= self.window
        if lengths is None:
            return seen[None, None]
        return (seen & (place < lengths[:, None, None]) | (away == 0))[:, None]


def rotate(x: Tensor) -> Tensor:
    """(..., L, d), d even: the pair of channels i and i + d / 2 turned by position * ROTARY_BASE ** (-2 i / d)."""
    half = x.shape[-1] // 2
    kind = torch.promote_types(x.dtype, torch.float32)  # bfloat16 cannot tell positions beyond 256 apart
    speeds = ROTARY_BASE ** -(torch.arange(half, device=x.device, dtype=kind) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=kind)[:, None] * speeds
    cos, sin = angles.cos(), angles.sin()
    first, second = x.to(kind).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)
