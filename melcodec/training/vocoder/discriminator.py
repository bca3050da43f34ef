"""Cheap discriminators that look at spectrograms of several resolutions.

Source: Jang et al. 2021, "UnivNet" (multi-resolution spectrogram discriminators); hinge losses of Lim & Ye 2017,
"Geometric GAN"; feature matching of Kumar et al. 2019, "MelGAN".
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.training.vocoder.losses import RESOLUTIONS, magnitudes

POWER = 0.3  # magnitudes are raised to it, which brings loud and soft near each other
Judged = list[tuple[Tensor, list[Tensor]]]  # of each discriminator: scores, and the features before them


class SpectrogramDiscriminator(nn.Module):
    """wav (B, S) -> scores (B, 1, F', T') of patches of a spectrogram, high for an original, and features.

    The second input channel is the height of a bin, so that a patch knows its frequency.
    """

    def __init__(self, n_fft: int, hop_length: int, channels: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        sizes = [2, channels, channels, 2 * channels, 2 * channels]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(a, b, (5, 3), stride=(2, 1), padding=(2, 1)))
            for a, b in pairwise(sizes)
        )
        self.score = nn.utils.parametrizations.weight_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores and the features of every layer."""
        x = magnitudes(wav, self.n_fft, self.hop_length).pow(POWER)[:, None]
        height = torch.linspace(-1, 1, x.shape[2], device=x.device)[:, None].expand(len(x), 1, -1, x.shape[3])
        x = torch.cat([x, height], dim=1)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.score(x), features


class Discriminators(nn.Module):
    """One for each of ``losses.RESOLUTIONS``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(SpectrogramDiscriminator(*resolution, channels) for resolution in RESOLUTIONS)

    def forward(self, wav: Tensor) -> Judged:
        """wav (B, S) -> what each makes of it."""
        return [member(wav) for member in self.members]


def discriminator_loss(real: Judged, made: Judged) -> Tensor:
    """Hinge: originals above 1, what was made below -1."""
    terms = [F.relu(1 - r).mean() + F.relu(1 + m).mean() for (r, _), (m, _) in zip(real, made, strict=True)]
    return torch.stack(terms).float().mean()


def adversarial_loss(made: Judged) -> Tensor:
    """Generator loss: its output shall get a high score."""
    return -torch.stack([score.mean() for score, _ in made]).float().mean()


def feature_loss(real: Judged, made: Judged) -> Tensor:
    """L1 between features, relative to the size of the originals' features."""
    terms = [
        (a.detach() - b).abs().mean() / a.detach().abs().mean().clamp(min=1e-3)
        for (_, one), (_, other) in zip(real, made, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    return torch.stack(terms).float().mean()
