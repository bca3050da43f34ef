"""What a backbone is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Stack(Protocol):
    """One half of a backbone: a module from (B, C, L) to (B, C', L')."""

    def __call__(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, L) zero-padded on the right; ``lengths`` (B,) real L of each item, None when all are whole."""


@dataclass(frozen=True)
class Reach:
    """How far a backbone sees, which decides whether and how it may be run in chunks.

    Args:
        stride: mel frames per latent.
        encoder_halo: frames before and after a latent's own that can change it; None when unbounded.
        decoder_halo: latents before and after a frame's own that can change it; None when unbounded.
    """

    stride: int
    encoder_halo: int | None
    decoder_halo: int | None
