"""From a name or settings to a vocoder."""

from __future__ import annotations

from melcodec.audio.mel import MelFrontend
from melcodec.config import GriffinLimConfig, LearnedVocoderConfig, VocoderConfig
from melcodec.vocoder.base import Vocoder
from melcodec.vocoder.griffin_lim import GriffinLim
from melcodec.vocoder.learned import LearnedVocoder


def build_vocoder(config: VocoderConfig, frontend: MelFrontend) -> Vocoder:
    """The vocoder that ``config`` describes, for the mel of ``frontend`` and on its device.

    Raises:
        MelcodecError: no such file, a damaged one, or one that was made for another mel.
    """
    match config:
        case GriffinLimConfig():
            return GriffinLim(frontend, config.iterations, config.momentum, config.nmf_iterations, config.seed)
        case LearnedVocoderConfig():
            return LearnedVocoder.load(config, frontend)
