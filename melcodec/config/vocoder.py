"""Which vocoder makes sound of a mel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from melcodec.config.base import Settings, kind_or


class GriffinLimConfig(Settings):
    """Fast Griffin-Lim after an inversion of the mel filter bank; ``docs/sound.md`` has the figures behind the numbers."""

    kind: Literal["griffin-lim"] = "griffin-lim"
    iterations: int = Field(32, ge=1, description="projections between magnitudes and consistent spectrograms")
    momentum: float = Field(0.99, ge=0, le=1, description="0 is the classic algorithm")
    nmf_iterations: int = Field(20, ge=0, description="updates of the mel inversion")
    seed: int = Field(0, ge=0, description="random seed of the first phases")


class LearnedVocoderConfig(Settings):
    """A vocoder from a file that ``melcodec vocoder train`` wrote."""

    kind: Literal["learned"] = "learned"
    weights: str = Field(description="vocoder file, run folder, or the name of a shipped one")
    refine: int = Field(8, ge=0, description="Griffin-Lim iterations that start from its phases; 0: none")


class VocosConfig(Settings):
    """The network of a learned vocoder: ConvNeXt blocks at the frame rate and an inverse STFT (``vocoder/network.py``)."""

    kind: Literal["vocos"] = "vocos"
    width: int = Field(256, ge=1, description="channels")
    hidden: int = Field(768, ge=1, description="channels inside a block")
    num_blocks: int = Field(8, ge=1, description="ConvNeXt blocks")
    kernel_size: int = Field(7, ge=1, description="frames in the kernel of a layer; odd")
    nmf_iterations: int = Field(10, ge=0, description="updates of the mel inversion that it starts from")

    @model_validator(mode="after")
    def _centred(self) -> VocosConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size must be odd")
        return self


VocoderConfig = Annotated[
    Annotated[GriffinLimConfig, Tag("griffin-lim")] | Annotated[LearnedVocoderConfig, Tag("learned")],
    Discriminator(kind_or("griffin-lim")),
]
