"""The VQ-VAE: normalised mel -> latents -> codes -> latents -> normalised mel."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from melcodec.config import ModelConfig
from melcodec.devices import float32_by_default
from melcodec.nn.base import Reach
from melcodec.nn.build import Backbone, build_backbone
from melcodec.quantize.build import build_quantizer
from melcodec.quantize.ema import EMACodebook


class VQVAEOutput(NamedTuple):
    """One training pass. reconstruction (B, M, 4 N); latents (B, D, N) before quantisation; codes (B, Q, N)."""

    reconstruction: Tensor
    latents: Tensor
    codes: Tensor
    commitment: Tensor


class VQVAE(nn.Module):
    """Encoder, codebook and decoder, named as in ``dvae.pth``. T mel frames give N = ceil(T / stride) codes."""

    def __init__(self, backbone: Backbone, codebook: EMACodebook) -> None:
        super().__init__()
        self.encoder = backbone.encoder
        self.decoder = backbone.decoder
        self.codebook = codebook
        self.reach: Reach = backbone.reach

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

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> VQVAEOutput:
        """mel (B, M, T), T a multiple of stride, and (B,) real frames of each item when padded -> VQVAEOutput."""
        latents = self.encode_latents(mel, lengths)
        codes_of = None if lengths is None else -(-lengths // self.reach.stride)
        quantized = self.codebook(latents, codes_of)
        reconstruction = self.decoder(quantized.latents, codes_of)
        return VQVAEOutput(reconstruction, latents, quantized.codes, quantized.commitment)


@float32_by_default()
def build_vqvae(config: ModelConfig) -> VQVAE:
    """The model that ``config`` describes, with fresh random weights."""
    backbone = build_backbone(config.backbone, config.mel.n_mels, config.quantizer.dim)
    return VQVAE(backbone, build_quantizer(config.quantizer))
