"""Overlapping windows over a stream that is pushed in blocks of any sizes.

``chunking.windows`` pulls its blocks and cuts windows of one size; here the caller pushes, and takes every output as soon as
the inputs that it depends on are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melcodec.errors import MelcodecError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Window:
    """Inputs (B, ..., n) of one computation, and which of its outputs are new.

    Args:
        first: the input's absolute position at which it begins, a multiple of the stride.
        kept: its outputs that were not given before and saw no artificial edge.
    """

    inputs: Tensor
    first: int
    kept: slice


def checked_state(state: Mapping[str, Any], like: Mapping[str, Tensor]) -> None:
    """MelcodecError unless ``state`` has the tensors of ``like``, of the same types, streams and channels."""
    for name, expected in like.items():
        given = state.get(name)
        fits = isinstance(given, Tensor) and given.dtype == expected.dtype and given.shape[:-1] == expected.shape[:-1]
        if not fits:
            raise MelcodecError(
                f"a stream's state whose '{name}' does not fit", "make the stream with the same arguments", "mismatch"
            )


class Overlap:
    """Holds the inputs that later outputs still need.

    Output t belongs to inputs stride t .. stride t + stride - 1, and depends on stride t - left .. stride t + right.

    Args:
        left, right: how far an output sees, in inputs, counted from its first own one.
        stride: inputs per output; the last output may have fewer.
        empty: (B, ..., 0) inputs: their type, shape and device.
    """

    def __init__(self, left: int, right: int, stride: int, empty: Tensor) -> None:
        self.left, self.right, self.stride, self.buffer = left, right, stride, empty
        self.first = self.done = 0  # absolute position of the buffer's first input; outputs given

    @property
    def length(self) -> int:
        """Inputs that were pushed."""
        return self.first + self.buffer.shape[-1]

    def push(self, inputs: Tensor) -> None:
        """Add inputs (B, ..., n), n >= 0."""
        if inputs.shape[-1]:
            self.buffer = torch.cat([self.buffer, inputs.to(self.buffer)], dim=-1)

    def ready(self, final: bool = False) -> int:
        """Outputs that can be computed and were not given; ``final``: no inputs will follow."""
        whole = -(-self.length // self.stride) if final else (self.length - 1 - self.right) // self.stride + 1
        return max(0, whole - self.done)

    def take(self, count: int, final: bool = False) -> Window:
        """The window of the next ``count`` outputs, at least one and at most ``ready``.

        It ends where its last output's right reach ends, or with the stream.
        """
        first = (self.done - self._lead()) * self.stride
        last = min(self.length, (self.done + count - 1) * self.stride + self.right + 1)
        if final and count == self.ready(final):
            last = self.length
        inputs = self.buffer[..., first - self.first : last - self.first]
        window = Window(inputs, first, slice(self._lead(), self._lead() + count))
        self.done += count
        kept = (self.done - self._lead()) * self.stride
        self.buffer, self.first = self.buffer[..., kept - self.first :].clone(), kept
        return window

    def _lead(self) -> int:
        """Outputs before the next one whose inputs it sees, rounded up."""
        return min(self.done, -(-self.left // self.stride))

    def state_dict(self, prefix: str) -> State:
        """Everything that was not given yet, under names that begin with ``prefix``."""
        return {f"{prefix}buffer": self.buffer.clone(), f"{prefix}position": torch.tensor([self.first, self.done])}

    def load_state_dict(self, state: State, prefix: str) -> None:
        """Resume from what ``state_dict`` returned."""
        self.buffer = state[f"{prefix}buffer"].to(self.buffer).clone()
        self.first, self.done = state[f"{prefix}position"].tolist()
