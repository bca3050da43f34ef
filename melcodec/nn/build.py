"""From configuration to backbone."""

from __future__ import annotations

from typing import NamedTuple

from melcodec.config import ConvConfig
from melcodec.nn.base import Reach, Stack
from melcodec.nn.conv import ConvDecoder, ConvEncoder, conv_reach


class Backbone(NamedTuple):
    """An encoder (B, M, T) -> (B, D, N), a decoder (B, D, N) -> (B, M, stride N), and how far they see."""

    encoder: Stack
    decoder: Stack
    reach: Reach


def build_backbone(config: ConvConfig, n_mels: int, dim: int) -> Backbone:
    """The backbone that ``config`` names, between ``n_mels`` bands and D = ``dim``."""
    match config.kind:
        case "conv":
            sizes = (n_mels, config.hidden, dim, config.num_blocks)
            return Backbone(ConvEncoder(*sizes), ConvDecoder(*sizes), conv_reach(config.num_blocks))
