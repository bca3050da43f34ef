"""The configuration of a melcodec model in transformers: config.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from melcodec.config import GriffinLimConfig, ModelConfig, parse, xtts_mel_norms

WHERE = "config.json"


class MelcodecConfig(PreTrainedConfig):
    """What a model is built from.

    Args:
        codec: ``ModelConfig`` as a dict: mel, backbone, quantizer and D; None: those of XTTS.
        mel_norms: (M,) per-band norms of the mel; None: those of XTTS.
        vocoder: ``GriffinLimConfig`` as a dict: what makes sound of the decoded mel; None: its defaults.

    Attributes:
        sampling_rate: Hz.
        codebook_sizes: K of each of the Q codebooks.
        samples_per_code: 1,024 for XTTS.
    """

    model_type = "melcodec"

    def __init__(
        self,
        codec: dict[str, Any] | None = None,
        mel_norms: Sequence[float] | None = None,
        vocoder: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        settings = parse(ModelConfig, codec or {}, WHERE)
        self.codec = settings.model_dump(mode="json")
        self.mel_norms = [float(norm) for norm in (xtts_mel_norms() if mel_norms is None else mel_norms)]
        self.vocoder = parse(GriffinLimConfig, vocoder or {}, WHERE).model_dump(mode="json")
        # for readers of config.json; the settings above decide them
        kwargs |= {
            "sampling_rate": settings.mel.sample_rate,
            "codebook_sizes": list(settings.quantizer.sizes),
            "samples_per_code": settings.mel.hop_length * settings.backbone.stride,
        }
        super().__init__(**kwargs)

    @property
    def model_settings(self) -> ModelConfig:
        """``codec``, typed."""
        return parse(ModelConfig, self.codec, WHERE)

    @property
    def vocoder_settings(self) -> GriffinLimConfig:
        """``vocoder``, typed."""
        return parse(GriffinLimConfig, self.vocoder, WHERE)
