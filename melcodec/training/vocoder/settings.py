"""The settings of ``melcodec vocoder train``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from melcodec.config import MelConfig, OptimizerConfig, VocosConfig
from melcodec.config.base import Settings


class WaveConfig(Settings):
    """How speech becomes batches of crops."""

    crop_frames: int = Field(64, ge=8, description="mel frames of a crop; 64 frames are 0.73 s")
    batch_size: int = Field(16, ge=1, description="crops per step")
    gain_db: float = Field(6.0, ge=0, description="dB; each crop's level moves by a uniform draw from +-gain_db")
    valid_fraction: float = Field(0.02, ge=0, lt=1, description="share held out when no validation set is there")
    split: Literal["auto", "speaker", "file"] = Field("auto", description="what is held out; auto: speakers if 10 or more")


class VocoderObjectiveConfig(Settings):
    """Weights of the terms of the loss; ``losses.py`` and ``discriminator.py`` define them. 0 leaves a term out."""

    magnitude: float = Field(1.0, ge=0, description="L1 of the predicted log-magnitude, and its spectral convergence")
    phase: float = Field(1.0, ge=0, description="phases, group delays and angular frequencies of the predicted spectrogram")
    stft: float = Field(1.0, ge=0, description="log-magnitude L1 and spectral convergence of the wave at three resolutions")
    mel: float = Field(1.0, ge=0, description="log-mel L1 of the wave")
    adversarial: float = Field(0.1, ge=0, description="hinge loss of the spectrogram discriminators")
    feature_matching: float = Field(0.5, ge=0, description="L1 between their features of the wave and of the original")
    adversary_start: int = Field(4_000, ge=0, description="first step in which the discriminators take part")
    adversary_channels: int = Field(12, ge=1, description="channels of the discriminators")
    adversary_lr: float = Field(2e-4, gt=0, description="constant learning rate of the discriminators")


class VocoderTrainConfig(Settings):
    """How long, how often, how precisely."""

    steps: int = Field(20_000, ge=1, description="optimizer steps in all")
    init: str = Field("", description="vocoder to start from: a file, run folder or shipped name")
    valid_every: int = Field(500, ge=1, description="steps between validations")
    valid_clips: int = Field(12, ge=1, description="validation clips, of which the first four seconds are used")
    refine: int = Field(8, ge=0, description="Griffin-Lim iterations before a validation scores the wave")
    save_every: int = Field(250, ge=1, description="steps between states for resuming")
    log_every: int = Field(50, ge=1, description="steps between metric lines")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the device is fast at it")
    seed: int = Field(0, ge=0, lt=1 << 32, description="random seed")


class VocoderRunConfig(Settings):
    """A vocoder and how it is trained."""

    mel: MelConfig = MelConfig()
    network: VocosConfig = VocosConfig()
    data: WaveConfig = WaveConfig()
    optimizer: OptimizerConfig = OptimizerConfig(lr=5e-4, betas=(0.8, 0.99), schedule="wsd", decay_fraction=0.3)
    objective: VocoderObjectiveConfig = VocoderObjectiveConfig()
    train: VocoderTrainConfig = VocoderTrainConfig()
