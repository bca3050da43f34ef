"""Settings of a prior and of its training; presets are in ``melcodec/presets/priors``."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from melcodec.config import OptimizerConfig, parse, preset_texts, read_toml
from melcodec.config.base import Settings
from melcodec.errors import MelcodecError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GROUP = "prior"  # melcodec/presets/priors/*.toml
DEFAULT_PRESET = "small"


class NoNetwork(Settings):
    """Only the n-grams: a prior that is a table and trains in seconds."""

    kind: Literal["ngram"] = "ngram"


class LlamaSettings(Settings):
    """A small Llama (Touvron et al. 2023) of the transformers library."""

    kind: Literal["llama"] = "llama"
    layers: int = Field(6, ge=1, description="transformer layers")
    width: int = Field(384, ge=2, description="width of the hidden state")
    heads: int = Field(6, ge=1, description="attention heads")
    feed_forward: int = Field(1024, ge=1, description="inner width of the feed-forward part")
    context: int = Field(512, ge=8, multiple_of=2, description="rows of tokens seen at once; 512 codes are 23.8 s for Q = 1")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of each layer's outputs that is dropped in training")

    @model_validator(mode="after")
    def _heads_fit(self) -> LlamaSettings:
        if self.width % (2 * self.heads):
            raise ValueError("width must be a multiple of 2 * heads")
        return self


class MambaSettings(Settings):
    """A small Mamba (Gu and Dao 2023) of the transformers library. Without its CUDA kernels it trains slowly."""

    kind: Literal["mamba"] = "mamba"
    layers: int = Field(6, ge=1, description="Mamba layers")
    width: int = Field(384, ge=2, description="width of the hidden state")
    state: int = Field(16, ge=1, description="size of the recurrent state per channel")
    context: int = Field(512, ge=8, multiple_of=2, description="rows of tokens of a training sequence")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of each layer's outputs that is dropped in training")


class PriorDataConfig(Settings):
    """How codes become training sequences."""

    batch_size: int = Field(16, ge=1, description="sequences of model.context rows per step, over all processes")
    valid_fraction: float = Field(0.05, ge=0, lt=1, description="share held out when the corpus names no validation set")
    split: Literal["auto", "speaker", "file"] = Field("auto", description="what is held out; auto: speakers if 10 or more")
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of input tokens hidden by padding, against overfitting")


class NGramConfig(Settings):
    """The n-gram baselines; the highest order is also the prior of kind ngram."""

    order: int = Field(3, ge=1, le=3, description="codes per n-gram")
    min_count: int = Field(1, ge=1, description="n-grams of the highest order that occurred less often are dropped")


class PriorTrainConfig(Settings):
    """How long, how often and how precisely."""

    steps: int = Field(4_000, ge=1, description="optimizer steps")
    valid_every: int = Field(200, ge=1, description="steps between validations")
    save_every: int = Field(200, ge=1, description="steps between states for resuming")
    log_every: int = Field(20, ge=1, description="steps between metric lines")
    samples: int = Field(2, ge=0, description="audio samples made at some validations")
    sample_seconds: float = Field(6.0, gt=0, description="length of each sample")
    sample_every: int = Field(1_000, ge=1, description="steps between samples; the last step has some as well")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the device is fast at it")
    weights: Literal["float32", "float16"] = Field("float32", description="type of the saved weights; float16 halves the file")
    seed: int = Field(0, ge=0, lt=1 << 32, description="random seed")


class PriorConfig(Settings):
    """A prior and how it is trained."""

    pattern: Literal["flat", "delay"] = Field("flat", description="how Q > 1 codebooks become one sequence")
    model: Annotated[NoNetwork | LlamaSettings | MambaSettings, Field(discriminator="kind")] = LlamaSettings()
    ngram: NGramConfig = NGramConfig()
    data: PriorDataConfig = PriorDataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: PriorTrainConfig = PriorTrainConfig()


def prior_presets() -> list[str]:
    """Names of the shipped presets."""
    return list(preset_texts(GROUP))


def load_prior_preset(name: str) -> PriorConfig:
    """The shipped preset ``name``; MelcodecError names the others when there is none."""
    texts = preset_texts(GROUP)
    if name not in texts:
        near = difflib.get_close_matches(name, texts, n=1)
        raise MelcodecError(f"no preset '{name}'", f"did you mean '{near[0]}'?" if near else f"presets: {', '.join(texts)}")
    return parse(PriorConfig, tomllib.loads(texts[name]), f"preset {name}")


def read_prior_config(path: Path) -> PriorConfig:
    """Settings from a TOML file."""
    return parse(PriorConfig, read_toml(path), str(path))
