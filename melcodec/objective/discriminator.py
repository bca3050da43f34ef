"""Discriminators: networks that learn to tell mels of speech from reconstructions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.config import DiscriminatorConfig

KERNEL, HALVINGS = 5, 3  # the first convolutions halve both axes
SLOPE = 0.2  # of leaky ReLU below zero
CENTRE, SCALE = -5.0, 4.0  # natural log power of speech lies around the one, within about the other


class PatchDiscriminator(nn.Module):
    """Two-dimensional convolutions on a mel; every value of their output judges one region of it.

    Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", section 3.2.2. A second
    input channel says which band a place belongs to, since low bands look different from high ones.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        widths = (2, *config.channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, width, KERNEL, stride=2 if index < HALVINGS else 1, padding=KERNEL // 2)
            for index, (before, width) in enumerate(zip(widths[:-1], config.channels, strict=True))
        )
        self.judge = nn.Conv2d(config.channels[-1], 1, KERNEL, padding=KERNEL // 2)

    def forward(self, mel: Tensor) -> list[Tensor]:
        """Natural log-mel (B, M, T) -> features of every layer (B, C, M', T'); the last are the judgements (B, 1, M', T')."""
        place = torch.linspace(-1, 1, mel.shape[1], device=mel.device).view(1, 1, -1, 1)
        mel = (mel[:, None] - CENTRE) / SCALE
        x, features = torch.cat([mel, place.expand_as(mel)], dim=1), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [*features, self.judge(x)]


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """The discriminator that ``config`` names."""
    match config.kind:
        case "patch":
            return PatchDiscriminator(config)
