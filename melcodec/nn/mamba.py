"""Mamba-2 over patches of the mel: x + mamba(norm(x)), then x + swiglu(norm(x)).

Source: Dao and Gu 2024, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
Duality". In both directions, each layer has a second copy of all its parts that reads from the end; its result is turned
back before the two are added.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.config import MambaConfig
from melcodec.nn.base import Backbone, Conv, Layer, Reach
from melcodec.nn.blocks import Gated, Norm
from melcodec.nn.patches import PatchDecoder, PatchEncoder

BLOCK = 32  # positions that ``scan`` reads at once
KERNEL = 4  # of the causal convolution before the scan
STEPS = (1e-3, 1e-1)  # range of the first step sizes, and
DECAYS = (1.0, 16.0)  # of the first rates of decay, as in the paper's code


def scan(x: Tensor, decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """The states S_t = exp(decay_t) S_(t-1) + x_t write_t^T of each head, and y_t = S_t read_t.

    Blocks of positions are read at once by products of matrices, and the state is carried from block to block.

    Args:
        x: (B, L, heads, P).
        decay: (B, L, heads), not positive.
        write: (B, L, R), the same for all heads.
        read: (B, L, R), the same for all heads.

    Returns:
        y (B, L, heads, P).
    """
    state = x.new_zeros(len(x), x.shape[2], x.shape[3], write.shape[-1])
    outputs = []
    for begin in range(0, x.shape[1], BLOCK):
        inputs, log_decay, key, query = (item[:, begin : begin + BLOCK] for item in (x, decay, write, read))
        total = log_decay.cumsum(1).transpose(1, 2)  # (B, heads, l), from the block's begin
        size = total.shape[-1]
        past = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()
        between = (total[..., :, None] - total[..., None, :]).masked_fill(~past, -torch.inf).exp()
        weights = (query @ key.transpose(1, 2))[:, None] * between  # (B, heads, l, l)
        value = inputs.transpose(1, 2)  # (B, heads, l, P)
        carried = total.exp()[..., None] * (query[:, None] @ state.transpose(2, 3))
        outputs.append((weights @ value + carried).transpose(1, 2))
        left = (total[..., -1:] - total).exp()[..., None]  # of each position at the block's end
        state = total[..., -1, None, None].exp() * state + (left * value).transpose(2, 3) @ key[:, None]
    return torch.cat(outputs, dim=1)


class Mamba2(nn.Module):
    """Reads time forwards: (B, C, L) -> (B, C, L), where position t depends on 0 .. t.

    Args:
        width: C; it is twice as wide inside.
        heads: of the inner width.
        state: R, numbers that each inner channel remembers.
    """

    def __init__(self, width: int, heads: int, state: int) -> None:
        super().__init__()
        self.inner, self.heads, self.state = 2 * width, heads, state
        mixed = self.inner + 2 * state
        self.enter = nn.Linear(width, self.inner + mixed + heads, bias=False)
        self.conv = nn.Conv1d(mixed, mixed, KERNEL, groups=mixed)
        low, high = (torch.tensor(step).log() for step in STEPS)
        steps = (torch.rand(heads) * (high - low) + low).exp()
        self.step_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # softplus gives the steps
        self.log_rate = nn.Parameter(torch.empty(heads).uniform_(*DECAYS).log())
        self.skip = nn.Parameter(torch.ones(heads))
        self.norm = nn.RMSNorm(self.inner, eps=1e-6)
        self.out = nn.Linear(self.inner, width, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths`` do not matter: what follows an item's end is never seen before it."""
        mixed = self.inner + 2 * self.state
        gate, values, steps = torch.split(self.enter(x.transpose(1, 2)), [self.inner, mixed, self.heads], dim=-1)
        values = F.silu(self.conv(F.pad(values.transpose(1, 2), (KERNEL - 1, 0)))).transpose(1, 2)
        values, write, read = torch.split(values, [self.inner, self.state, self.state], dim=-1)
        values = values.view(*values.shape[:-1], self.heads, -1)
        steps = F.softplus(steps + self.step_bias)  # (B, L, heads)
        y = scan(values * steps[..., None], -self.log_rate.exp() * steps, write, read)
        y = (y + self.skip[:, None] * values).flatten(2)
        return self.out(self.norm(y * F.silu(gate))).transpose(1, 2)


def turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, C, L) from each item's last position to its first; what lies past an item's end stays there."""
    if lengths is None:
        return x.flip(-1)
    place = torch.arange(x.shape[-1], device=x.device)
    source = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    return x.gather(-1, source[:, None].expand_as(x))


class Bidirectional(Layer):
    """The sum of a layer that reads forwards and of one that reads from the end: (B, C, L) -> (B, C, L)."""

    def __init__(self, forwards: Layer, backwards: Layer) -> None:
        super().__init__()
        self.forwards, self.backwards = forwards, backwards

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        return self.forwards(x, lengths) + turned(self.backwards(turned(x, lengths), lengths), lengths)


def build_mamba(config: MambaConfig, n_mels: int, dim: int) -> Backbone:
    """Both halves, between ``n_mels`` bands and latents of width D = ``dim``."""
    width = config.hidden

    def layer() -> Layer:
        return Gated(width, Mamba2(width, config.heads, config.state))

    def layers() -> list[Layer]:
        both = (Bidirectional(layer(), layer()) if config.bidirectional else layer() for _ in range(config.num_blocks))
        return [*both, Norm(width)]

    longest = -(-config.longest // config.patch) * config.patch
    context = Reach(None, None if config.bidirectional else 0, longest)
    return Backbone(
        PatchEncoder(config, n_mels, [*layers(), Conv(width, dim, 1)], context),
        PatchDecoder(config, n_mels, [Conv(dim, width, 1), *layers()], context),
        config.stride,
    )
