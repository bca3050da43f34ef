"""The VQ-VAE: normalised mel -> latents -> codes -> latents -> normalised mel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from melcodec.config import CodebookConfig, ModelConfig
from melcodec.devices import float32_by_default
from melcodec.nn.base import Backbone
from melcodec.nn.build import build_backbone
from melcodec.quantize.base import Quantized, Quantizer
from melcodec.quantize.build import build_quantizer


@dataclass(frozen=True)
class ModelReach:
    """How a model may be run in chunks.

    Args:
        stride: mel frames of a code.
        encoder_halo: frames before and after a code's own that can change it; None when unbounded.
        decoder_halo: codes before and after a frame's own that can change it; None when unbounded.
        look_ahead: frames after a code's first that it waits for; None when unbounded.
        longest: the most mel frames that a model of unbounded reach accepts; None when any length is fine.
    """

    stride: int
    encoder_halo: int | None
    decoder_halo: int | None
    look_ahead: int | None = None
    longest: int | None = None


class VQVAEOutput(NamedTuple):
    """One training pass: reconstruction (B, M, stride N), latents (B, D, N) before quantisation, and what became of them."""

    reconstruction: Tensor
    latents: Tensor
    quantized: Quantized


class VQVAE(nn.Module):
    """Encoder, quantizer and decoder. T mel frames give N = ceil(T / stride) codes.

    The quantizer's attribute is called ``codebook`` because its name spells the keys of ``dvae.pth``.
    """

    def __init__(self, backbone: Backbone, quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder, self.decoder = backbone.encoder, backbone.decoder
        self.codebook = quantizer
        encoder, decoder, stride = backbone.encoder.reach, backbone.decoder.reach, backbone.stride
        limits = [encoder.longest, None if decoder.longest is None else decoder.longest * stride]
        longest = min((limit for limit in limits if limit is not None), default=None)
        self.reach = ModelReach(stride, encoder.halo, decoder.halo, encoder.right, longest)

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer, by its own name."""
        return self.codebook

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each of the Q codebooks."""
        return self.codebook.sizes

    def num_codes(self, num_frames: int) -> int:
        """N = ceil(T / stride)."""
        return -(-num_frames // self.reach.stride)

    def encode_latents(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """mel (B, M, T) -> latents (B, D, N) before quantisation; ``lengths`` (B,) frames when padded."""
        return self.encoder(mel, lengths)

    def encode(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """mel (B, M, T) -> codes (B, Q, N); codes past an item's own ceil(length / stride) mean nothing."""
        return self.codebook.encode(self.encode_latents(mel, lengths))

    def decode(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """codes (B, Q, N) -> mel (B, M, stride N); ``lengths`` (B,) codes when padded."""
        return self.decoder(self.codebook.decode(codes), lengths)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None) -> VQVAEOutput:
        """mel (B, M, T), T a multiple of stride -> VQVAEOutput.

        Args:
            lengths: (B,) real frames of each item when padded.
            generator: on the CPU, of what the quantizer draws in training.
        """
        latents = self.encode_latents(mel, lengths)
        codes_of = None if lengths is None else -(-lengths // self.reach.stride)
        quantized = self.codebook(latents, codes_of, generator)
        return VQVAEOutput(self.decoder(quantized.latents, codes_of), latents, quantized)


@float32_by_default()
def build_vqvae(config: ModelConfig, upkeep: CodebookConfig | None = None) -> VQVAE:
    """The model that ``config`` describes, with fresh random weights; ``upkeep`` of its codebooks matters in training only."""
    backbone = build_backbone(config.backbone, config.mel.n_mels, config.dim)
    return VQVAE(backbone, build_quantizer(config.quantizer, config.dim, upkeep))
