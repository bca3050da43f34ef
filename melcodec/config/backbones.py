"""Settings of the newer backbones; those of the first two are in ``config.model``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from melcodec.config.base import NOT_IN_CODES, Settings

LONGEST = "longest sound in mel frames; a model that needs the whole sound at once refuses a longer one"


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError unless ``heads`` divide ``width`` into pairs of channels, which rotary positions turn."""
    if width % (2 * heads):
        raise ValueError(f"{width} channels cannot be divided into {heads} heads of an even width")


class ConvNeXtConfig(Settings):
    """ConvNeXt blocks at two rates of time: depthwise convolutions, RMSNorm, SwiGLU. The inner width is twice ``hidden``."""

    kind: Literal["convnext"] = "convnext"
    hidden: int = Field(
        128, ge=1, description="channels of the first layer; the innermost has twice as many", json_schema_extra=NOT_IN_CODES
    )
    num_blocks: int = Field(
        2, ge=0, description="blocks at each rate of time, in the encoder and in the decoder", json_schema_extra=NOT_IN_CODES
    )
    attention: bool = Field(
        False, description="a transformer layer before and one after the quantizer; the model then needs the whole sound at once"
    )
    heads: int = Field(4, ge=1, description="of the transformer layers")
    longest: int = Field(2048, ge=4, multiple_of=4, description=LONGEST, json_schema_extra=NOT_IN_CODES)

    @model_validator(mode="after")
    def _heads_fit(self) -> ConvNeXtConfig:
        if self.attention:
            check_heads(2 * self.hidden, self.heads)
        return self

    @property
    def stride(self) -> int:
        """Mel frames of a code."""
        return 4


class PatchSettings(Settings):
    """What every backbone has that cuts the mel into patches of all bands and a few frames."""

    kind: str
    hidden: int = Field(256, ge=1, description="F, width of a patch in the layers", json_schema_extra=NOT_IN_CODES)
    num_blocks: int = Field(4, ge=1, description="layers, in the encoder and in the decoder", json_schema_extra=NOT_IN_CODES)
    patch: int = Field(4, ge=1, le=64, description="mel frames of a patch; a patch becomes one code")
    overlap: int = Field(0, ge=0, le=64, description="frames on each side of a patch that it shares with its neighbours")
    smooth: bool = Field(
        False, description="a last 3x3 convolution over bands and frames of the output", json_schema_extra=NOT_IN_CODES
    )

    @property
    def stride(self) -> int:
        """Mel frames of a code."""
        return self.patch


class MLPConfig(PatchSettings):
    """Patches, each of which goes through residual layers of its own: nothing is seen outside of a patch."""

    kind: Literal["mlp"] = "mlp"


class TransformerConfig(PatchSettings):
    """ViT-VQGAN over time: patches, transformer layers, a head with tanh."""

    kind: Literal["transformer"] = "transformer"
    heads: int = Field(4, ge=1, description="of each layer")
    positions: Literal["rotary", "learned"] = Field("rotary", description="how layers encode the position of a patch")
    window: int = Field(
        0,
        ge=0,
        le=1024,
        description="codes on each side that attention reaches, for sound of any length; 0: the whole sound",
    )
    longest: int = Field(2048, ge=1, description=LONGEST + "; not with a window", json_schema_extra=NOT_IN_CODES)

    @model_validator(mode="after")
    def _fits(self) -> TransformerConfig:
        check_heads(self.hidden, self.heads)
        if self.window and self.positions == "learned":
            raise ValueError("a window needs rotary positions, because learned positions have a longest length")
        return self


class MambaConfig(PatchSettings):
    """Patches and Mamba-2 layers, which read time forwards, or in both directions."""

    kind: Literal["mamba"] = "mamba"
    bidirectional: bool = Field(False, description="a second scan in each layer, from end to start, with separate weights")
    heads: int = Field(8, ge=1, description="of each layer; 2 F must be a multiple of it", json_schema_extra=NOT_IN_CODES)
    state: int = Field(
        64, ge=1, description="size of the recurrent state of each channel of a head", json_schema_extra=NOT_IN_CODES
    )
    longest: int = Field(2048, ge=1, description=LONGEST, json_schema_extra=NOT_IN_CODES)

    @model_validator(mode="after")
    def _fits(self) -> MambaConfig:
        if 2 * self.hidden % self.heads:
            raise ValueError(f"{2 * self.hidden} channels are not a multiple of {self.heads} heads")
        return self
