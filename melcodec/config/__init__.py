"""Every setting that melcodec persists, as typed and validated models.

Presets and recipes are TOML files in ``melcodec/presets``; checkpoints carry a ``ModelConfig`` as JSON; a training run
carries a ``RunConfig`` as TOML. An unknown key is an error everywhere, with the nearest known name as a hint.
"""

from melcodec.config.backbones import ConvNeXtConfig, MambaConfig, MLPConfig, TransformerConfig
from melcodec.config.base import decides_codes, flat, members, parse
from melcodec.config.files import (
    RECIPE_GROUPS,
    kinds_of,
    load_preset,
    preset_names,
    preset_texts,
    read_toml,
    to_toml,
    with_overrides,
)
from melcodec.config.model import (
    N_MELS,
    BackboneConfig,
    ConvConfig,
    EMAConfig,
    FSQConfig,
    GradientConfig,
    GroupedConfig,
    GumbelConfig,
    LibraryConfig,
    MelConfig,
    ModelConfig,
    QuantizerConfig,
    ResidualConfig,
    VQVAE2018Config,
    xtts_mel_norms,
)
from melcodec.config.run import (
    AugmentConfig,
    CodebookConfig,
    DataConfig,
    DiscriminatorConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from melcodec.config.vocoder import GriffinLimConfig, LearnedVocoderConfig, VocoderConfig, VocosConfig

__all__ = [
    "N_MELS",
    "RECIPE_GROUPS",
    "AugmentConfig",
    "BackboneConfig",
    "CodebookConfig",
    "ConvConfig",
    "ConvNeXtConfig",
    "DataConfig",
    "DiscriminatorConfig",
    "EMAConfig",
    "FSQConfig",
    "GradientConfig",
    "GriffinLimConfig",
    "GroupedConfig",
    "GumbelConfig",
    "LearnedVocoderConfig",
    "LibraryConfig",
    "MLPConfig",
    "MambaConfig",
    "MelConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "QuantizerConfig",
    "ResidualConfig",
    "RunConfig",
    "TrainConfig",
    "TransformerConfig",
    "VQVAE2018Config",
    "VocoderConfig",
    "VocosConfig",
    "decides_codes",
    "flat",
    "kinds_of",
    "load_preset",
    "members",
    "parse",
    "preset_names",
    "preset_texts",
    "read_toml",
    "to_toml",
    "with_overrides",
    "xtts_mel_norms",
]
