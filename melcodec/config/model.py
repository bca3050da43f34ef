"""What a model is built from: its mel, its backbone and its quantizer. A checkpoint carries these settings."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from melcodec.config.backbones import ConvNeXtConfig, MambaConfig, MLPConfig, TransformerConfig
from melcodec.config.base import NOT_IN_CODES, Settings, kind_or

N_MELS = 80
MAX_CODEBOOK_SIZE = 65_536  # codes are stored as 16 bits at most


class MelConfig(Settings):
    """The XTTS mel front end (``XTTS.md``): HTK scale, Slaney area norm, power spectrogram, natural log."""

    sample_rate: int = Field(22_050, ge=1_000, description="Hz")
    n_fft: int = Field(1024, ge=16, description="samples; also the window length")
    hop_length: int = Field(256, ge=1, description="samples")
    n_mels: int = Field(N_MELS, ge=1, description="M, bands")
    f_min: float = Field(0.0, ge=0, description="Hz")
    f_max: float = Field(8_000.0, gt=0, description="Hz")
    floor: float = Field(1e-5, gt=0, description="mel power below this is set to it, and counts as silence")

    @model_validator(mode="after")
    def _bands_fit(self) -> MelConfig:
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError("f_min < f_max <= sample_rate / 2 must hold")
        if self.hop_length >= self.n_fft // 2:  # or a stream would lose the samples that its end reflects
            raise ValueError("hop_length < n_fft / 2 must hold")
        return self


class ConvConfig(Settings):
    """The XTTS convolution stack. The inner width is twice ``hidden``."""

    kind: Literal["conv"] = "conv"
    hidden: int = Field(
        256, ge=1, description="channels of the first layer; the innermost has twice as many", json_schema_extra=NOT_IN_CODES
    )
    num_blocks: int = Field(
        3, ge=0, description="residual blocks, in the encoder and in the decoder", json_schema_extra=NOT_IN_CODES
    )

    @property
    def stride(self) -> int:
        """Mel frames of a code."""
        return 4


class VQVAE2018Config(Settings):
    """The network of van den Oord et al. 2017: strided 4-wide convolutions, a residual stack, transposed convolutions."""

    kind: Literal["vqvae-2018"] = "vqvae-2018"
    hidden: int = Field(128, ge=2, multiple_of=2, description="channels", json_schema_extra=NOT_IN_CODES)
    residual: int = Field(32, ge=1, description="channels inside a residual block", json_schema_extra=NOT_IN_CODES)
    num_blocks: int = Field(
        2, ge=0, description="residual blocks, in the encoder and in the decoder", json_schema_extra=NOT_IN_CODES
    )
    axes: Literal["time", "time-and-bands"] = Field(
        "time", description="time: the bands are channels; time-and-bands: the mel is a picture, its latents have M / 4 rows"
    )

    @property
    def stride(self) -> int:
        """Mel frames of a code."""
        return 4


BackboneConfig = Annotated[
    Annotated[ConvConfig, Tag("conv")]
    | Annotated[VQVAE2018Config, Tag("vqvae-2018")]
    | Annotated[ConvNeXtConfig, Tag("convnext")]
    | Annotated[TransformerConfig, Tag("transformer")]
    | Annotated[MambaConfig, Tag("mamba")]
    | Annotated[MLPConfig, Tag("mlp")],
    Discriminator(kind_or("conv")),
]


class _CodebookSettings(Settings):
    """What every quantizer with a table of codewords has."""

    kind: str
    codebook_size: int = Field(1024, ge=2, le=MAX_CODEBOOK_SIZE, description="K", json_schema_extra=NOT_IN_CODES)
    code_dim: int = Field(
        0,
        ge=0,
        description="width of the codewords, behind a learned projection; 0: D, without one",
        json_schema_extra=NOT_IN_CODES,
    )
    normalize: bool = Field(False, description="latents and codewords have length 1, so that the nearest is by cosine")
    temperature: float = Field(
        0.0,
        ge=0,
        description="training: codes are drawn from softmax(-distance / temperature), as in RQ-VAE; 0: the nearest",
        json_schema_extra=NOT_IN_CODES,
    )
    decay: float = Field(0.99, gt=0, lt=1, description="decay of the moving averages, per step", json_schema_extra=NOT_IN_CODES)

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each codebook."""
        return (self.codebook_size,)


class EMAConfig(_CodebookSettings):
    """The XTTS codebook: nearest codeword, learned by exponential moving averages."""

    kind: Literal["ema"] = "ema"
    eps: float = Field(1e-5, gt=0, description="smooths the counts that divide the averages", json_schema_extra=NOT_IN_CODES)
    rule: Literal["xtts", "article"] = Field(
        "xtts",
        description="article: smoothed counts are kept and divide the averages of the step before (docs/training.md)",
        json_schema_extra=NOT_IN_CODES,
    )


class GradientConfig(_CodebookSettings):
    """Nearest codeword, learned by gradients of the codebook loss (van den Oord et al. 2017, equation 3)."""

    kind: Literal["gradient"] = "gradient"
    init: Literal["uniform", "normal"] = Field(
        "uniform", description="first codewords: within +-1/K, or standard normal", json_schema_extra=NOT_IN_CODES
    )


class FSQConfig(Settings):
    """Finite scalar quantization: a few projected channels, each rounded to one of a few levels (Mentzer et al. 2023)."""

    kind: Literal["fsq"] = "fsq"
    levels: tuple[Annotated[int, Field(ge=3, le=65_536)], ...] = Field(
        (8, 5, 5, 5), min_length=1, max_length=64, description="values of each channel; their product is K, up to 65,536"
    )

    @property
    def books(self) -> tuple[tuple[int, ...], ...]:
        """The levels of each codebook: as many channels in a row as give at most 65,536 codewords."""
        books: list[tuple[int, ...]] = [()]
        for levels in self.levels:
            fits = math.prod(books[-1]) * levels <= MAX_CODEBOOK_SIZE
            books = [*books[:-1], (*books[-1], levels)] if fits else [*books, (levels,)]
        return tuple(books)

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each codebook."""
        return tuple(math.prod(levels) for levels in self.books)


class GumbelConfig(Settings):
    """A codeword drawn from a learned distribution, by the straight-through Gumbel softmax (Jang et al. 2017)."""

    kind: Literal["gumbel"] = "gumbel"
    codebook_size: int = Field(1024, ge=2, le=MAX_CODEBOOK_SIZE, description="K", json_schema_extra=NOT_IN_CODES)
    temperature: float = Field(
        1.0, gt=0, description="temperature of the softmax at the first step", json_schema_extra=NOT_IN_CODES
    )
    final_temperature: float = Field(
        0.0625, gt=0, description="temperature from step anneal_steps on", json_schema_extra=NOT_IN_CODES
    )
    anneal_steps: int = Field(
        10_000,
        ge=1,
        description="steps over which the temperature goes from the first to the last value, by the same factor in each",
        json_schema_extra=NOT_IN_CODES,
    )

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each codebook."""
        return (self.codebook_size,)


# which settings of ``LibraryConfig`` each module of vector-quantize-pytorch takes
LIBRARY_SETTINGS = {
    "VectorQuantize": {"codebook_size", "decay", "kmeans"},
    "ResidualVQ": {"codebook_size", "decay", "kmeans", "num_quantizers"},
    "GroupedResidualVQ": {"codebook_size", "decay", "kmeans", "num_quantizers", "groups"},
    "FSQ": {"levels"},
    "LFQ": {"codebook_size"},
    "SimVQ": {"codebook_size"},
}


class LibraryConfig(Settings):
    """A quantizer of the package vector-quantize-pytorch, to compare with; melcodec[library] installs it."""

    kind: Literal["library"] = "library"
    module: Literal["VectorQuantize", "ResidualVQ", "GroupedResidualVQ", "FSQ", "LFQ", "SimVQ"] = Field(
        "VectorQuantize", description="class of the library"
    )
    codebook_size: int = Field(1024, ge=2, le=MAX_CODEBOOK_SIZE, description="K; FSQ has none, LFQ needs a power of 2")
    num_quantizers: int = Field(4, ge=1, le=64, description="stages of ResidualVQ and GroupedResidualVQ")
    groups: int = Field(2, ge=1, le=256, description="groups of GroupedResidualVQ; D must be a multiple of it")
    levels: tuple[Annotated[int, Field(ge=3)], ...] = Field((8, 5, 5, 5), min_length=1, description="of FSQ")
    decay: float = Field(
        0.8, gt=0, lt=1, description="decay of the moving averages (VectorQuantize, residual)", json_schema_extra=NOT_IN_CODES
    )
    kmeans: bool = Field(False, description="k-means start (VectorQuantize, residual)", json_schema_extra=NOT_IN_CODES)

    @model_validator(mode="after")
    def _fits_the_module(self) -> LibraryConfig:
        taken = LIBRARY_SETTINGS[self.module]
        for name, field in type(self).model_fields.items():
            if name not in taken | {"kind", "module"} and getattr(self, name) != field.default:
                raise ValueError(f"{name} is not a setting of {self.module}, which has {', '.join(sorted(taken))}")
        if self.module == "LFQ" and self.codebook_size & (self.codebook_size - 1):
            raise ValueError(f"codebook_size {self.codebook_size}: LFQ needs a power of 2")
        if self.module == "FSQ" and math.prod(self.levels) > MAX_CODEBOOK_SIZE:
            raise ValueError(f"levels {self.levels}: more than {MAX_CODEBOOK_SIZE:,} codewords")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each codebook: those of every stage in order, of every group in order."""
        taken = LIBRARY_SETTINGS[self.module]
        stages = self.num_quantizers if "num_quantizers" in taken else 1
        groups = self.groups if "groups" in taken else 1
        return (math.prod(self.levels) if self.module == "FSQ" else self.codebook_size,) * (stages * groups)


class ResidualConfig(Settings):
    """Stages that each quantize what the stages before them left over (Q = stages x the inner Q)."""

    kind: Literal["residual"] = "residual"
    stages: int = Field(4, ge=1, le=64, description="quantizers, each of which quantises what the one before it left")
    shared: bool = Field(False, description="all stages use one codebook, as in RQ-VAE")
    dropout: float = Field(
        0.0, ge=0, le=1, description="share of training items that use only their first stages", json_schema_extra=NOT_IN_CODES
    )
    inner: QuantizerConfig = Field(default_factory=EMAConfig, description="the quantizer of each stage")

    @model_validator(mode="after")
    def _learns_outside_of_forward(self) -> ResidualConfig:
        if self.dropout and self.inner.kind == "library":  # it would learn from the items that leave the stage out
            raise ValueError("dropout cannot be combined with a quantizer of the library")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each codebook, those of every stage in order."""
        return self.inner.sizes * self.stages


class GroupedConfig(Settings):
    """The channels of a latent in equal groups, each with a quantizer of its own (Q = groups x the inner Q)."""

    kind: Literal["grouped"] = "grouped"
    groups: int = Field(2, ge=1, le=256, description="groups; D must be a multiple of their number")
    shared: bool = Field(False, description="all groups use one quantizer")
    inner: QuantizerConfig = Field(default_factory=EMAConfig, description="the quantizer of each group")

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each codebook, those of every group in order."""
        return self.inner.sizes * self.groups


QuantizerConfig = Annotated[
    Annotated[EMAConfig, Tag("ema")]
    | Annotated[GradientConfig, Tag("gradient")]
    | Annotated[FSQConfig, Tag("fsq")]
    | Annotated[GumbelConfig, Tag("gumbel")]
    | Annotated[LibraryConfig, Tag("library")]
    | Annotated[ResidualConfig, Tag("residual")]
    | Annotated[GroupedConfig, Tag("grouped")],
    Discriminator(kind_or("ema")),
]
ResidualConfig.model_rebuild()
GroupedConfig.model_rebuild()


class ModelConfig(Settings):
    """What a checkpoint is built from: load = build(config) + strict load."""

    dim: int = Field(
        512, ge=1, description="D, width of the latents between encoder, quantizer and decoder", json_schema_extra=NOT_IN_CODES
    )
    mel: MelConfig = MelConfig()
    backbone: BackboneConfig = ConvConfig()
    quantizer: QuantizerConfig = EMAConfig()

    @model_validator(mode="before")
    @classmethod
    def _dim_of_old_files(cls, data: Any) -> Any:
        """Until 0.1.0 the quantizer held D; checkpoints, run folders and ``--set`` of that time still do."""
        quantizer = data.get("quantizer") if isinstance(data, dict) else None
        if isinstance(quantizer, dict) and "dim" in quantizer:
            rest = {key: value for key, value in quantizer.items() if key != "dim"}
            return {**data, "dim": quantizer["dim"], "quantizer": rest}
        return data


@cache
def xtts_mel_norms() -> tuple[float, ...]:
    """(80,) per-band mean log-mel of XTTS and Tortoise, from tortoise-tts (Apache-2.0, see NOTICE)."""
    text = resources.files("melcodec.presets").joinpath("xtts_mel_norms.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["mel_norms"])
