"""What a quantizer is."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Quantized(NamedTuple):
    """One pass through a quantizer.

    latents (B, D, N): quantised, with the straight-through gradient; codes (B, Q, N) int64; commitment: scalar.
    """

    latents: Tensor
    codes: Tensor
    commitment: Tensor


class Quantizer(Protocol):
    """A module that also encodes and decodes without learning."""

    @property
    def num_codebooks(self) -> int:
        """Q."""

    @property
    def codebook_size(self) -> int:
        """K."""

    def __call__(self, latents: Tensor) -> Quantized:
        """latents (B, D, N) -> Quantized; learns from the batch in training mode."""

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, Q, N) int64."""

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, Q, N) -> latents (B, D, N)."""
