"""A network read row by row, with a cache, in float32 or float64.

transformers' modules compute norms and rotations in float32 whatever their weights are. Here every operation is in one
type: float64 makes the probabilities of a whole pass and of single rows agree to 1e-12, which ``coding`` needs, and float32
takes a third less time than the library's own way through its cache. A test holds both to the library's forward pass.

The context is bounded by one rule, the same however rows arrive: a window of C rows; when it is full, the last C / 2 rows are
read again as the beginning of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from melcodec.errors import MelcodecError
from melcodec.tokens import Tokens


class Core(Protocol):
    """The arithmetic of one kind of network."""

    window: int | None  # C; None where the state holds all of the past

    def start(self, batch: int) -> Any:
        """A state that has read nothing, for ``batch`` sequences."""

    def read(self, rows: Tensor, state: Any) -> Tensor:
        """Rows (B, n, W) that continue ``state``, which is changed -> logits (B, n, V) of the row after each."""


def build_core(model: torch.nn.Module, dtype: torch.dtype) -> Core:
    """The core of a transformers model, with weights in ``dtype``."""
    kind = model.config.model_type  # type: ignore[union-attr]
    match kind:
        case "llama":
            return LlamaCore(model, dtype)
        case "mamba":
            return MambaCore(model, dtype)
        case _:
            raise MelcodecError(f"a {kind} model is not known", "melcodec prior train makes llama and mamba models")


class Session:
    """Sequences that grow together, row by row.

    Args:
        core: of the network.
        batch: how many sequences, B.
    """

    def __init__(self, core: Core, batch: int = 1) -> None:
        self.core, self.batch, self.filled = core, batch, 0
        self.state = core.start(batch)
        self.recent: list[Tensor] = []

    def next(self, rows: Tensor) -> Tensor:
        """The next row of each sequence (B, W) -> logits (B, V) of the row after it."""
        window = self.core.window
        if window is not None and self.filled == window:
            self.state, self.filled = self.core.start(self.batch), window // 2
            self.core.read(torch.stack(self.recent[-self.filled :], 1), self.state)
            self.recent = self.recent[-self.filled :]
        if window is not None:
            self.recent.append(rows)
            self.filled += 1
        return self.core.read(rows[:, None], self.state)[:, 0]


@torch.inference_mode()
def whole_logits(core: Core, tokens: Tokens, rows: Tensor, block: int = 256) -> Iterator[Tensor]:
    """Rows (R, W) -> logits of each given those before it, in blocks (n, V) that continue each other; see ``Session``."""
    inputs = torch.cat([torch.full((1, tokens.width), tokens.begin), rows])[:-1]
    if core.window is None:
        state = core.start(1)
        for start in range(0, len(inputs), block):
            yield core.read(inputs[None, start : start + block], state)[0]
        return
    half = core.window // 2
    yield core.read(inputs[None, : core.window], core.start(1))[0]
    for start in range(half, len(inputs) - half, half):
        yield core.read(inputs[None, start : start + core.window], core.start(1))[0, half:]


class LlamaCore:
    """Touvron et al. 2023, "LLaMA": root mean square norms, rotary positions, gated feed-forward."""

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype) -> None:
        config: Any = model.config
        weights = {name: value.detach().to("cpu", dtype) for name, value in model.state_dict().items()}
        self.heads, self.eps = config.num_attention_heads, config.rms_norm_eps
        self.depth = config.hidden_size // self.heads
        self.window: int | None = config.max_position_embeddings
        self.embed, self.head = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
        self.norm = weights["model.norm.weight"]
        self.layers = [self._layer(weights, f"model.layers.{index}.") for index in range(config.num_hidden_layers)]
        # the library's own rounding: frequencies in float32, whatever the weights
        inverse = (1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, self.depth, 2).float() / self.depth)).double()
        angles = (torch.arange(config.max_position_embeddings)[:, None] * inverse).repeat(1, 2)
        sign = torch.ones(self.depth)
        sign[: self.depth // 2] = -1  # of the half that is rotated in
        self.cos, self.sin = angles.cos().to(dtype), (angles.sin() * sign).to(dtype)

    @staticmethod
    def _layer(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        attention, feed = f"{prefix}self_attn.", f"{prefix}mlp."
        return {
            "qkv": torch.cat([weights[f"{attention}{name}_proj.weight"] for name in "qkv"]),
            "out": weights[f"{attention}o_proj.weight"],
            "gate_up": torch.cat([weights[f"{feed}{name}_proj.weight"] for name in ("gate", "up")]),
            "down": weights[f"{feed}down_proj.weight"],
            "norm1": weights[f"{prefix}input_layernorm.weight"],
            "norm2": weights[f"{prefix}post_attention_layernorm.weight"],
        }

    def start(self, batch: int) -> dict[str, Any]:
        """Keys and values (layers, 2, B, heads, C, depth) of no row."""
        shape = (len(self.layers), 2, batch, self.heads, self.window or 0, self.depth)
        return {"cache": torch.zeros(shape, dtype=self.embed.dtype), "filled": 0}

    @torch.inference_mode()
    def read(self, rows: Tensor, state: dict[str, Any]) -> Tensor:
        """See ``Core``."""
        start, count = state["filled"], rows.shape[1]
        stop = state["filled"] = start + count
        hidden = F.embedding(rows, self.embed).sum(2)
        cos, sin = self.cos[start:stop], self.sin[start:stop]
        seen = None if count == 1 else torch.ones(count, stop, dtype=torch.bool).tril(start)
        for layer, cache in zip(self.layers, state["cache"], strict=True):
            hidden = hidden + self._attend(self._normed(hidden, layer["norm1"]), layer, cache[..., :stop, :], (cos, sin), seen)
            gate, up = F.linear(self._normed(hidden, layer["norm2"]), layer["gate_up"]).chunk(2, -1)
            hidden = hidden + F.linear(F.silu(gate) * up, layer["down"])
        return F.linear(self._normed(hidden, self.norm), self.head)

    def _attend(
        self, hidden: Tensor, layer: dict[str, Tensor], cache: Tensor, turn: tuple[Tensor, Tensor], seen: Tensor | None
    ) -> Tensor:
        batch, count, width = hidden.shape
        mixed = F.linear(hidden, layer["qkv"]).view(batch, count, 3, self.heads, self.depth).permute(2, 0, 3, 1, 4)
        turned = mixed[:2] * turn[0] + mixed[:2].roll(self.depth // 2, -1) * turn[1]
        cache[0, :, :, -count:], cache[1, :, :, -count:] = turned[1], mixed[2]
        mixed = F.scaled_dot_product_attention(turned[0], cache[0], cache[1], seen)
        return F.linear(mixed.transpose(1, 2).reshape(batch, count, width), layer["out"])

    def _normed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self.eps)


class MambaCore:
    """Gu and Dao 2023, "Mamba", algorithm 2 and figure 3: a selective state space, one row after the other."""

    window: int | None = None

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype) -> None:
        config: Any = model.config
        weights = {name: value.detach().to("cpu", dtype) for name, value in model.state_dict().items()}
        self.eps, self.inner, self.states = config.layer_norm_epsilon, config.intermediate_size, config.state_size
        self.rank, self.kernel = int(config.time_step_rank), config.conv_kernel
        self.embed, self.head = weights["backbone.embeddings.weight"], weights["lm_head.weight"]
        self.norm = weights["backbone.norm_f.weight"]
        self.layers = []
        for index in range(config.num_hidden_layers):
            prefix = f"backbone.layers.{index}."
            layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            layer["decay"] = -torch.exp(layer["mixer.A_log"])
            self.layers.append(layer)

    def start(self, batch: int) -> list[tuple[Tensor, Tensor]]:
        """Of each layer: the last inputs of its convolution (B, inner, kernel) and its state (B, inner, states), zero."""
        dtype = self.embed.dtype
        return [
            (torch.zeros(batch, self.inner, self.kernel, dtype=dtype), torch.zeros(batch, self.inner, self.states, dtype=dtype))
            for _ in self.layers
        ]

    @torch.inference_mode()
    def read(self, rows: Tensor, state: list[tuple[Tensor, Tensor]]) -> Tensor:
        """See ``Core``."""
        return torch.stack([self._step(rows[:, index], state) for index in range(rows.shape[1])], 1)

    def _step(self, row: Tensor, state: list[tuple[Tensor, Tensor]]) -> Tensor:
        hidden = F.embedding(row, self.embed).sum(1)
        for layer, (past, memory) in zip(self.layers, state, strict=True):
            inner, gate = F.linear(self._normed(hidden, layer["norm.weight"]), layer["mixer.in_proj.weight"]).chunk(2, -1)
            past.copy_(torch.cat([past[..., 1:], inner[..., None]], -1))
            inner = F.silu((past * layer["mixer.conv1d.weight"][:, 0]).sum(-1) + layer["mixer.conv1d.bias"])
            step, into, out = torch.split(
                F.linear(inner, layer["mixer.x_proj.weight"]), [self.rank, self.states, self.states], -1
            )
            step = F.softplus(F.linear(step, layer["mixer.dt_proj.weight"], layer["mixer.dt_proj.bias"]))[..., None]
            memory.copy_(torch.exp(step * layer["decay"]) * memory + step * into[:, None] * inner[..., None])
            seen = (memory * out[:, None]).sum(-1) + layer["mixer.D"] * inner
            hidden = hidden + F.linear(seen * F.silu(gate), layer["mixer.out_proj.weight"])
        return F.linear(self._normed(hidden, self.norm), self.head)

    def _normed(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self.eps)
