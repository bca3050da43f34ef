"""What a quantizer gives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Quantized(NamedTuple):
    """One pass through a quantizer.

    latents (B, D, N): quantised, with the straight-through gradient; codes (B, Q, N) int64; commitment: scalar.
    """

    latents: Tensor
    codes: Tensor
    commitment: Tensor
