"""Settings of the newer backbones; those of the first two are in ``config.model``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from melcodec.config.base import NOT_IN_CODES, Settings

LONGEST = "mel frames; a model that sees all of a sound at once refuses a longer one"


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError unless ``heads`` divide ``width`` into pairs of channels, which rotary positions turn."""
    if width % (2 * heads):
        raise ValueError(f"{width} channels have no {heads} heads of an even width")


class ConvNeXtConfig(Settings):
    """ConvNeXt blocks at two rates of time: depthwise convolutions, RMSNorm, SwiGLU. The inner width is twice ``hidden``."""

    kind: Literal["convnext"] = "convnext"
    hidden: int = Field(128, ge=1, description="channels; twice as many at the innermost", json_schema_extra=NOT_IN_CODES)
    num_blocks: int = Field(
        2, ge=0, description="blocks at each rate of time, in the encoder and in the decoder", json_schema_extra=NOT_IN_CODES
    )
    attention: bool = Field(
        False, description="a transformer layer before and one after the quantizer; the model then sees all of a sound at once"
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
