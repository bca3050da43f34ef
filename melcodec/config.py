"""Every setting that melcodec persists, as typed and validated models.

Presets are TOML files in ``melcodec/presets``; checkpoints carry a ``ModelConfig`` as JSON; a training run
carries a ``RunConfig`` as TOML. An unknown key is an error everywhere, with the nearest known name as a hint.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from melcodec.errors import MelcodecError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

N_MELS = 80
CONFIG_VERSION = 1


# json_schema_extra of a setting of the model that the fingerprint leaves out: what only training uses, and sizes that the
# shapes of the tensors already tell (``formats.fingerprint``)
NOT_IN_CODES: dict[str, Any] = {"decides_codes": False}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MelConfig(_Settings):
    """The XTTS mel front end (``XTTS.md``): HTK scale, Slaney area norm, power spectrogram, natural log."""

    sample_rate: int = Field(22_050, ge=1_000, description="Hz")
    n_fft: int = Field(1024, ge=16, description="samples; also the window length")
    hop_length: int = Field(256, ge=1, description="samples")
    n_mels: int = Field(N_MELS, ge=1, description="M, bands")
    f_min: float = Field(0.0, ge=0, description="Hz")
    f_max: float = Field(8_000.0, gt=0, description="Hz")
    floor: float = Field(1e-5, gt=0, description="mel power below this counts as silence")

    @model_validator(mode="after")
    def _bands_fit(self) -> MelConfig:
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError("f_min < f_max <= sample_rate / 2 must hold")
        if self.hop_length >= self.n_fft // 2:  # or a stream would lose the samples that its end reflects
            raise ValueError("hop_length < n_fft / 2 must hold")
        return self


class ConvConfig(_Settings):
    """The XTTS convolution stack. The inner width is twice ``hidden``."""

    kind: Literal["conv"] = "conv"
    hidden: int = Field(256, ge=1, description="channels; twice as many at the innermost", json_schema_extra=NOT_IN_CODES)
    num_blocks: int = Field(
        3, ge=0, description="residual blocks, in the encoder and in the decoder", json_schema_extra=NOT_IN_CODES
    )


class EMAConfig(_Settings):
    """The XTTS codebook: nearest neighbour, learned by exponential moving averages."""

    kind: Literal["ema"] = "ema"
    dim: int = Field(512, ge=1, description="D, latent width", json_schema_extra=NOT_IN_CODES)
    codebook_size: int = Field(1024, ge=2, le=65_536, description="K", json_schema_extra=NOT_IN_CODES)
    decay: float = Field(0.99, gt=0, lt=1, description="of the moving averages, per step", json_schema_extra=NOT_IN_CODES)
    eps: float = Field(1e-5, gt=0, description="smooths the counts that divide the averages", json_schema_extra=NOT_IN_CODES)


class ModelConfig(_Settings):
    """What a checkpoint is built from: load = build(config) + strict load."""

    mel: MelConfig = MelConfig()
    backbone: ConvConfig = ConvConfig()
    quantizer: EMAConfig = EMAConfig()


class GriffinLimConfig(_Settings):
    """Fast Griffin-Lim after an inversion of the mel filter bank; ``docs/sound.md`` has the figures behind the numbers."""

    kind: Literal["griffin-lim"] = "griffin-lim"
    iterations: int = Field(32, ge=1, description="projections between magnitudes and consistent spectrograms")
    momentum: float = Field(0.99, ge=0, le=1, description="0 is the classic algorithm")
    nmf_iterations: int = Field(20, ge=0, description="updates of the mel inversion")
    seed: int = Field(0, ge=0, description="of the phases it starts from")


class LearnedVocoderConfig(_Settings):
    """A vocoder from a file that ``melcodec vocoder train`` wrote."""

    kind: Literal["learned"] = "learned"
    weights: str = Field(description="vocoder file, run folder, or the name of a shipped one")
    refine: int = Field(8, ge=0, description="Griffin-Lim iterations that start from its phases; 0: none")


class VocosConfig(_Settings):
    """The network of a learned vocoder: ConvNeXt blocks at the frame rate and an inverse STFT (``vocoder/network.py``)."""

    kind: Literal["vocos"] = "vocos"
    width: int = Field(256, ge=1, description="channels")
    hidden: int = Field(768, ge=1, description="channels inside a block")
    num_blocks: int = Field(8, ge=1, description="ConvNeXt blocks")
    kernel_size: int = Field(7, ge=1, description="frames that a layer sees; odd")
    nmf_iterations: int = Field(20, ge=0, description="updates of the mel inversion that it starts from")

    @model_validator(mode="after")
    def _centred(self) -> VocosConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size must be odd")
        return self


VocoderConfig = Annotated[GriffinLimConfig | LearnedVocoderConfig, Field(discriminator="kind")]


class DataConfig(_Settings):
    """How speech becomes batches of mel crops."""

    crop_frames: int = Field(128, ge=4, multiple_of=4, description="frames; 128 frames are 1.49 s")
    batch_size: int = Field(32, ge=1, description="crops per step, over all processes")
    valid_fraction: float = Field(0.02, ge=0, lt=1, description="share held out when no validation set is there")
    split: Literal["auto", "speaker", "file"] = Field("auto", description="what is held out; auto: speakers if 10 or more")
    on_device: Literal["auto", "always", "never"] = Field("auto", description="keep all mels in the GPU's memory")
    num_workers: int = Field(0, ge=0, description="processes that build the mel cache; 0 takes every core")


class AugmentConfig(_Settings):
    """What is done to crops before the model sees them; everything is off by default."""

    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field(
        (1.0,), min_length=1, description="every file is learned at each of these speeds, pitch and formants moving along"
    )
    gain_db: float = Field(0.0, ge=0, description="dB; each crop's level moves by a uniform draw from +-gain_db")
    time_scale: float = Field(0.0, ge=0, lt=1, description="each crop is stretched by a uniform draw from 1 +- time_scale")
    time_flip: float = Field(0.0, ge=0, le=1, description="share of crops that run backwards")
    band_masks: int = Field(0, ge=0, description="stripes of bands hidden from the encoder, as in SpecAugment")
    band_mask_size: int = Field(8, ge=1, description="most bands a stripe hides")
    time_masks: int = Field(0, ge=0, description="stripes of time hidden from the encoder")
    time_mask_size: int = Field(16, ge=1, description="most frames a stripe hides")


class CodebookConfig(_Settings):
    """How the codebook starts and how its unused codes are kept alive in training."""

    start: Literal["kmeans", "data", "stock"] = Field(
        "kmeans", description="k-means over encoded speech, encoded speech itself, or XTTS's random start"
    )
    kmeans_iterations: int = Field(10, ge=1, description="passes of the k-means start")
    revive: Literal["batch", "two-sided", "none"] = Field(
        "batch", description="dead codes become latents of the batch; or the seed article's rule: Gaussian noise"
    )
    revive_below: float = Field(0.03, ge=0, description="batch: a code is dead under this share of the mean cluster size")


class OptimizerConfig(_Settings):
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
    step_factor: float = Field(0.5, gt=0, le=1, description="what a drop multiplies the rate by")


class ObjectiveConfig(_Settings):
    """reconstruction + commitment_weight * commitment, both means over all elements of the normalised mel."""

    reconstruction: Literal["mse", "l1", "smooth-l1", "spectral-norm"] = Field(
        "mse", description="spectral-norm: the seed article's largest singular value of each crop's error"
    )
    commitment_weight: float = Field(0.25, ge=0, description="what holding latents to their codes counts")


class TrainConfig(_Settings):
    """How long, how often, how precisely, and which part."""

    steps: int = Field(20_000, ge=1, description="of the optimizer, in all")
    accumulate: int = Field(1, ge=1, description="parts of a batch that go through the model one after the other")
    tune: Literal["full", "decoder", "frozen-codebook"] = Field("full", description="decoder keeps all codes valid")
    init: str = Field("", description="checkpoint to start from")
    weight_ema: float = Field(0.0, ge=0, lt=1, description="decay of averaged weights, which are judged and kept; 0: none")
    valid_every: int = Field(1_000, ge=1, description="steps between validations")
    valid_minutes: float = Field(60.0, gt=0, description="most speech a validation hears, spread over the whole set")
    save_every: int = Field(500, ge=1, description="steps between states for resuming")
    log_every: int = Field(50, ge=1, description="steps between metric lines")
    samples: int = Field(3, ge=0, description="validation clips drawn and sounded at every validation")
    wandb: Literal["off", "offline", "online"] = Field("off", description="logs to Weights & Biases as well")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the device is fast at it")
    seed: int = Field(0, ge=0, lt=1 << 32, description="of first weights, crops and everything else that is drawn")


class RunConfig(_Settings):
    """A model and how it is trained: what a preset holds."""

    version: int = Field(CONFIG_VERSION, ge=1, description="of this layout of settings")
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
        if self.data.batch_size % self.train.accumulate:
            raise ValueError("data.batch_size must be a multiple of train.accumulate")
        return self


def decides_codes(field: FieldInfo) -> bool:
    """Whether a setting of the model can change what a code means without changing the shape of a tensor."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("decides_codes") is False)


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings on one level, in order: ``{"data.crop_frames": 128}``."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return result


ConfigT = TypeVar("ConfigT", bound=_Settings)


def parse(kind: type[ConfigT], data: dict[str, Any], where: str) -> ConfigT:
    """Validate ``data`` as ``kind``; a wrong key or value raises MelcodecError naming it and ``where`` it stood."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":  # of a group of settings, whose own words say it all
            raise MelcodecError(f"{where}: {key + ': ' if key else ''}{first['ctx']['error']}") from None
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), _known_keys(kind), n=1)
            hint = f"did you mean '{near[0]}'?" if near else None
            raise MelcodecError(f"{where}: unknown setting '{key}'", hint) from None
        raise MelcodecError(f"{where}: {key}: {first['msg']}, not {first['input']!r}") from None


def _known_keys(kind: type[BaseModel]) -> set[str]:
    keys = set(kind.model_fields)
    for field in kind.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= _known_keys(field.annotation)
    return keys


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; MelcodecError when it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MelcodecError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MelcodecError(f"{path}: not readable as TOML: {error}") from None


def preset_texts(group: str = "") -> dict[str, str]:
    """The shipped presets by name, as TOML with comments; or the recipes for one group of settings: ``optimizer``."""
    folder = resources.files("melcodec.presets")
    folder = folder.joinpath(f"{group}s") if group else folder
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")] if folder.is_dir() else []
    return {entry.name[:-5]: entry.read_text(encoding="utf-8") for entry in sorted(found, key=lambda entry: entry.name)}


def preset_names() -> list[str]:
    """The shipped presets, sorted."""
    return list(preset_texts())


def load_preset(name: str) -> RunConfig:
    """The shipped preset ``name``; MelcodecError names the others when there is none."""
    return parse(RunConfig, _shipped(name, "preset", preset_texts()), f"preset {name}")


def _shipped(name: str, noun: str, texts: dict[str, str]) -> dict[str, Any]:
    if name not in texts:
        near = difflib.get_close_matches(name, texts, n=1)
        raise MelcodecError(f"no {noun} '{name}'", f"did you mean '{near[0]}'?" if near else f"{noun}s: {', '.join(texts)}")
    return tomllib.loads(texts[name])


def with_overrides(config: ConfigT, assignments: list[str]) -> ConfigT:
    """``config`` with ``a.b=value`` assignments applied, in order; values are read as TOML, bare words as strings.

    A word where a group of settings stands is the name of a shipped recipe that replaces the group: ``optimizer=finetune``.
    """
    data = config.model_dump()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise MelcodecError(f"--set {assignment}: not of the form key=value")
        *parents, leaf = key.strip().split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise MelcodecError(f"--set {assignment}: '{parent}' is a value, not a group of settings")
        value = _toml_value(text)
        if isinstance(node.get(leaf), dict) and isinstance(value, str):
            recipes = preset_texts(leaf)
            if not recipes:
                raise MelcodecError(f"--set {assignment}: '{leaf}' is a group of settings", f"set one of them: {key}.NAME=VALUE")
            value = _shipped(value, f"{leaf} recipe", recipes)
        node[leaf] = value
    return parse(type(config), data, "--set")


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(config: BaseModel, comments: bool = False) -> str:
    """``config`` as TOML, one table per group, in declaration order; ``comments`` say what each key means."""
    lines: list[str] = []

    def table(name: str, model: BaseModel) -> None:
        values = {key: getattr(model, key) for key in type(model).model_fields}
        plain = {key: value for key, value in values.items() if not isinstance(value, BaseModel)}
        if name and plain:
            lines.append(f"[{name}]")
        # JSON's scalars and arrays are TOML's too
        words = {key: f"{key} = {json.dumps(value)}" for key, value in plain.items()}
        said = {key: _explained(type(model).model_fields[key]) if comments else "" for key in plain}
        lines.extend(f"{line:<24}  # {said[key]}" if said[key] else line for key, line in words.items())
        if plain:
            lines.append("")
        for key, value in values.items():
            if isinstance(value, BaseModel):
                table(f"{name}.{key}" if name else key, value)

    table("", config)
    return "\n".join(lines)


def _explained(field: FieldInfo) -> str:
    """What a field means, and the words it may hold."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return "; ".join(filter(None, [" | ".join(choices), field.description]))


@cache
def xtts_mel_norms() -> tuple[float, ...]:
    """(80,) per-band mean log-mel of XTTS and Tortoise, from tortoise-tts (Apache-2.0, see NOTICE)."""
    text = resources.files("melcodec.presets").joinpath("xtts_mel_norms.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["mel_norms"])
