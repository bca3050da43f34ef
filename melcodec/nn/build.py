"""From configuration to backbone."""

from __future__ import annotations

from melcodec.config import (
    BackboneConfig,
    ConvConfig,
    ConvNeXtConfig,
    MambaConfig,
    MLPConfig,
    TransformerConfig,
    VQVAE2018Config,
)
from melcodec.nn.base import Backbone
from melcodec.nn.conv import build_conv
from melcodec.nn.convnext import build_convnext
from melcodec.nn.mamba import build_mamba
from melcodec.nn.patches import build_mlp
from melcodec.nn.transformer import build_transformer
from melcodec.nn.vqvae2018 import build_vqvae2018


def build_backbone(config: BackboneConfig, n_mels: int, dim: int) -> Backbone:
    """The backbone that ``config`` names, between ``n_mels`` bands and latents of width D = ``dim``."""
    match config:
        case ConvConfig():
            return build_conv(config, n_mels, dim)
        case VQVAE2018Config():
            return build_vqvae2018(config, n_mels, dim)
        case ConvNeXtConfig():
            return build_convnext(config, n_mels, dim)
        case TransformerConfig():
            return build_transformer(config, n_mels, dim)
        case MambaConfig():
            return build_mamba(config, n_mels, dim)
        case MLPConfig():
            return build_mlp(config, n_mels, dim)
