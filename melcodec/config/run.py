"""How a model is trained: data, augmentation, codebook upkeep, optimizer, objective, and the run itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from melcodec.config.base import Settings
from melcodec.config.model import ModelConfig
from melcodec.config.vocoder import GriffinLimConfig, VocoderConfig

CONFIG_VERSION = 1
RECONSTRUCTIONS = ("l1", "mse", "smooth_l1", "spectral_norm")  # the values that ``objective.reconstruction`` had until 0.1.0


class DataConfig(Settings):
    """How speech becomes batches of mel crops."""

    crop_frames: int = Field(128, ge=4, description="frames, a multiple of those of a code; 128 frames are 1.49 s")
    batch_size: int = Field(32, ge=1, description="crops per step, over all processes")
    speaker_power: float = Field(
        1.0, ge=0, le=1, description="a speaker with L seconds is drawn in proportion to L ** power; 0: all speakers alike"
    )
    valid_fraction: float = Field(0.02, ge=0, lt=1, description="share held out when no validation set is there")
    split: Literal["auto", "speaker", "file"] = Field("auto", description="what is held out; auto: speakers if 10 or more")
    on_device: Literal["auto", "always", "never"] = Field("auto", description="keep all mels in the memory of the GPU")
    num_workers: int = Field(0, ge=0, description="processes that build the mel cache; 0 takes every core")


class AugmentConfig(Settings):
    """What is done to crops before the model sees them; everything is off by default."""

    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field(
        (1.0,), min_length=1, description="every file is used at each of these speeds, which also change pitch and formants"
    )
    probability: float = Field(
        1.0, ge=0, le=1, description="share of crops to which band_warp, time_scale, equalize, gain_db and noise apply"
    )
    band_warp: float = Field(
        0.0, ge=0, le=1, description="frequencies are multiplied by a draw from 1 / (1 + band_warp) to 1 + band_warp (VTLP)"
    )
    time_scale: float = Field(0.0, ge=0, lt=1, description="crops are stretched by a uniform draw from 1 +- time_scale")
    equalize: float = Field(
        0.0, ge=0, description="a smooth random equalisation: four cosines over the bands, of this deviation in natural log power"
    )
    gain_db: float = Field(0.0, ge=0, description="dB; the level is changed by a uniform draw from +-gain_db")
    noise: float = Field(
        0.0, ge=0, le=1, description="share of the changed crops that get a noise floor, 15 to 45 dB below speech"
    )
    time_flip: float = Field(0.0, ge=0, le=1, description="share of crops that are reversed in time")
    band_masks: int = Field(0, ge=0, description="stripes of bands hidden from the encoder, as in SpecAugment")
    band_mask_size: int = Field(8, ge=1, description="most bands a stripe hides")
    time_masks: int = Field(0, ge=0, description="stripes of time hidden from the encoder")
    time_mask_size: int = Field(16, ge=1, description="most frames a stripe hides")


class CodebookConfig(Settings):
    """How the codebook starts and how unused codes are replaced in training."""

    start: Literal["kmeans", "data", "stock"] = Field(
        "kmeans", description="k-means over encoded speech, encoded speech itself, or XTTS's random start"
    )
    kmeans_iterations: int = Field(10, ge=1, description="passes of the k-means start")
    revive: Literal["batch", "two-sided", "article-items", "article-vectors", "none"] = Field(
        "batch",
        description="batch: dead codes become latents of the batch; two-sided: too rare and too frequent ones become noise; "
        "article-items, article-vectors: the same by one batch's codes per item or per latent (docs/training.md)",
    )
    revive_below: float = Field(0.03, ge=0, description="batch: a code is dead under this share of the mean cluster size")


class OptimizerConfig(Settings):
    """Adam or AdamW, clipping and a learning-rate schedule."""

    kind: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(3e-4, gt=0, description="learning rate at its highest")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.99), description="decays of the averaged gradients and of their squares"
    )
    weight_decay: float = Field(0.01, ge=0, description="share of lr by which weights shrink in a step; adam: L2 penalty")
    grad_clip: float = Field(1.0, gt=0, description="largest gradient norm")
    warmup_steps: int = Field(200, ge=0, description="steps over which the rate rises to lr")
    schedule: Literal["cosine", "constant", "step", "wsd"] = Field("cosine", description="wsd: constant, then linearly down")
    final_lr_fraction: float = Field(0.02, ge=0, le=1, description="cosine and wsd end at this share of lr")
    decay_fraction: float = Field(0.2, gt=0, le=1, description="the share of the steps over which wsd goes down")
    step_every: int = Field(10_000, ge=1, description="steps between two drops of the step schedule")
    step_factor: float = Field(0.5, gt=0, le=1, description="factor by which a drop changes the rate")


class DiscriminatorConfig(Settings):
    """A patch discriminator on mels: two-dimensional convolutions that judge every region of a mel by itself."""

    kind: Literal["patch"] = "patch"
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (24, 48, 64, 96), min_length=1, description="channels of its convolutions; one more convolution gives its output"
    )
    start_step: int = Field(0, ge=0, description="first step in which it is trained and its loss counts")
    lr: float = Field(2e-4, gt=0, description="constant learning rate of its AdamW")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.8, 0.99), description="decays of the averaged gradients and of their squares"
    )


class ObjectiveConfig(Settings):
    """The weight of each term of the loss; 0 leaves a term out. Terms are means over all elements of the real frames."""

    l1: float = Field(0.0, ge=0, description="absolute error of the normalised mel")
    mse: float = Field(1.0, ge=0, description="squared error of the normalised mel")
    smooth_l1: float = Field(0.0, ge=0, description="squared error of the normalised mel up to 1, absolute beyond")
    log_mel_l1: float = Field(0.0, ge=0, description="absolute error in natural log power, all bands alike")
    spectral_norm: float = Field(
        0.0, ge=0, description="largest singular value of each crop's error, as in the first of the articles (docs/laboratory.md)"
    )
    commitment: float = Field(0.25, ge=0, description="squared distance that pulls latents towards their codewords")
    commitment_spectral_norm: float = Field(0.0, ge=0, description="the same distance, as its largest singular value")
    codebook: float = Field(1.0, ge=0, description="squared distance that pulls codewords towards their latents (gradient)")
    kl: float = Field(5e-4, ge=0, description="divergence of the distribution over codes from the uniform one (gumbel)")
    entropy: float = Field(0.1, ge=0, description="entropy of each code less that of all codes (library: LFQ)")
    adversarial: float = Field(0.0, ge=0, description="hinge loss of the discriminator's output; 0: no discriminator")
    feature_matching: float = Field(0.5, ge=0, description="difference of the discriminator's features, where there is one")
    discriminator: DiscriminatorConfig = DiscriminatorConfig()

    @model_validator(mode="before")
    @classmethod
    def _names_of_old_files(cls, data: Any) -> Any:
        """Until 0.1.0 there was one ``reconstruction`` term and a ``commitment_weight``."""
        if not isinstance(data, dict) or not {"reconstruction", "commitment_weight"} & data.keys():
            return data
        rest = {key: value for key, value in data.items() if key not in ("reconstruction", "commitment_weight")}
        if "commitment_weight" in data:
            rest["commitment"] = data["commitment_weight"]
        if "reconstruction" in data:
            chosen = str(data["reconstruction"]).replace("-", "_")
            if chosen not in RECONSTRUCTIONS:
                raise ValueError(f"reconstruction: '{data['reconstruction']}' is none of {', '.join(RECONSTRUCTIONS)}")
            rest |= {name: float(name == chosen) for name in RECONSTRUCTIONS}
        return rest


class TrainConfig(Settings):
    """How long, how often, how precisely, and which part."""

    steps: int = Field(20_000, ge=1, description="optimizer steps of the whole run")
    accumulate: int = Field(1, ge=1, description="parts of a batch that go through the model one after the other, to save memory")
    tune: Literal["full", "decoder", "frozen-codebook"] = Field("full", description="decoder keeps all codes valid")
    init: str = Field("", description="checkpoint to start from")
    weight_ema: float = Field(0.0, ge=0, lt=1, description="decay of averaged weights, which are validated and saved; 0: none")
    valid_every: int = Field(1_000, ge=1, description="steps between validations")
    valid_minutes: float = Field(60.0, gt=0, description="most minutes of speech in a validation, spread over the whole set")
    save_every: int = Field(500, ge=1, description="steps between states for resuming")
    keep_every: Annotated[int, Field(ge=0)] | Literal["epoch"] = Field(
        0,
        description="steps between checkpoints that are kept, or 'epoch': once per pass over the corpus; 0: none",
    )
    log_every: int = Field(50, ge=1, description="steps between metric lines")
    samples: int = Field(3, ge=0, description="validation clips of which pictures and sounds are made")
    wandb: Literal["off", "offline", "online"] = Field("off", description="logs to Weights & Biases as well")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the device is fast at it")
    compile: bool = Field(False, description="compile the model with torch.compile, which takes minutes and then saves time")
    seed: int = Field(0, ge=0, lt=1 << 32, description="random seed")


class RunConfig(Settings):
    """A model and how it is trained: what a preset holds."""

    version: int = Field(CONFIG_VERSION, ge=1, description="version of the layout of these settings")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    codebook: CodebookConfig = CodebookConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    vocoder: VocoderConfig = GriffinLimConfig()

    @model_validator(mode="before")
    @classmethod
    def _not_newer(cls, data: Any) -> Any:
        version = data.get("version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > CONFIG_VERSION:  # before its unknown keys are called mistakes
            raise ValueError(f"version {version} was made by a newer melcodec; this one reads up to {CONFIG_VERSION}")
        return data

    @model_validator(mode="after")
    def _batch_divides(self) -> RunConfig:
        stride = self.model.backbone.stride
        if self.data.crop_frames % stride:
            raise ValueError(f"data.crop_frames must be a multiple of {stride}, the frames of a code")
        if self.data.batch_size % self.train.accumulate:
            raise ValueError("data.batch_size must be a multiple of train.accumulate")
        return self
