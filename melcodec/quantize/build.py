"""From configuration to quantizer."""

from __future__ import annotations

from melcodec.config import EMAConfig
from melcodec.quantize.ema import EMACodebook


def build_quantizer(config: EMAConfig) -> EMACodebook:
    """The quantizer that ``config`` names."""
    match config.kind:
        case "ema":
            return EMACodebook(config.dim, config.codebook_size, config.decay, config.eps)
