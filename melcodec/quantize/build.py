"""From configuration to quantizer."""

from __future__ import annotations

from melcodec.config import (
    CodebookConfig,
    EMAConfig,
    FSQConfig,
    GradientConfig,
    GroupedConfig,
    GumbelConfig,
    LibraryConfig,
    QuantizerConfig,
    ResidualConfig,
)
from melcodec.errors import MelcodecError
from melcodec.quantize.base import Quantizer
from melcodec.quantize.ema import EMACodebook
from melcodec.quantize.fsq import FSQuantizer
from melcodec.quantize.gradient import GradientCodebook
from melcodec.quantize.grouped import GroupedQuantizer
from melcodec.quantize.gumbel import GumbelQuantizer
from melcodec.quantize.library import LibraryQuantizer
from melcodec.quantize.residual import ResidualQuantizer


def build_quantizer(config: QuantizerConfig, dim: int, upkeep: CodebookConfig | None = None) -> Quantizer:  # noqa: PLR0911
    """The quantizer that ``config`` names, for latents of width D = ``dim``; ``upkeep`` matters in training only."""
    match config:
        case EMAConfig():
            return EMACodebook(dim, config, upkeep)
        case GradientConfig():
            return GradientCodebook(dim, config, upkeep)
        case FSQConfig():
            return FSQuantizer(dim, config)
        case GumbelConfig():
            return GumbelQuantizer(dim, config)
        case LibraryConfig():
            return LibraryQuantizer(dim, config)
        case ResidualConfig():
            stages = [build_quantizer(config.inner, dim, upkeep) for _ in range(config.stages)]
            return ResidualQuantizer(stages, config.shared, config.dropout)
        case GroupedConfig():
            if dim % config.groups:
                raise MelcodecError(f"{dim} channels do not make {config.groups} equal groups", "set model.dim to a multiple")
            groups = [build_quantizer(config.inner, dim // config.groups, upkeep) for _ in range(config.groups)]
            return GroupedQuantizer(groups, config.shared)
