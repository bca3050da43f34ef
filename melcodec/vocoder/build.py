"""From configuration to vocoder."""

from __future__ import annotations

from melcodec.audio.mel import MelFrontend
from melcodec.config import GriffinLimConfig
from melcodec.vocoder.base import Vocoder
from melcodec.vocoder.griffin_lim import GriffinLim


def build_vocoder(config: GriffinLimConfig, frontend: MelFrontend) -> Vocoder:
    """The vocoder that ``config`` names, for the mel of ``frontend``."""
    match config.kind:
        case "griffin-lim":
            return GriffinLim(frontend, config.iterations, config.momentum, config.nmf_iterations, config.seed)
