"""A spectrogram from a mel: ConvNeXt blocks at the frame rate; an inverse STFT makes the wave.

Sources: Siuzdak 2023, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders" (blocks at the
frame rate, magnitudes and phases as outputs); Du et al. 2023, "APNet2", and Lv et al. 2024, "FreeV" (the inverted mel
as a first estimate of the magnitudes, which the network corrects); Liu et al. 2022, "A ConvNet for the 2020s".
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.audio.inverse import invert_mel
from melcodec.audio.mel import MelFrontend, build_frontend
from melcodec.config import MelConfig, VocosConfig

FEATURE_SCALE = 5.0  # natural log power above the floor is divided by it, which brings speech to about 0 .. 3


class Block(nn.Module):
    """A ConvNeXt block over x (B, T, width): depthwise convolution, norm of each frame, two linear layers, residual."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        width, size = config.width, config.kernel_size
        self.mix = nn.Conv1d(width, width, size, padding=size // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.hidden)
        self.reduce = nn.Linear(config.hidden, width)
        self.scale = nn.Parameter(torch.full((width,), 1 / config.num_blocks))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """mask (B, T, 1): 0 past an item's end, where the result is 0 again."""
        mixed = self.norm(self.mix(x.transpose(1, 2)).transpose(1, 2))
        x = x + self.scale * self.reduce(F.gelu(self.expand(mixed)))
        return x if mask is None else x * mask


class VocosNetwork(nn.Module):
    """Natural log-mel (B, M, T) -> log-magnitude (B, F, T) and phases (B, F, T).

    The magnitudes are those of the inverted mel, corrected; the phases come from the mel alone.

    Args:
        config: sizes.
        mel: what the mel was made with: its filters, floor and window are used.
    """

    def __init__(self, config: VocosConfig, mel: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend: MelFrontend = build_frontend(mel, [1.0] * mel.n_mels)
        self.log_floor = math.log(mel.floor)
        num_bins, width, size = mel.n_fft // 2 + 1, config.width, config.kernel_size
        self.from_mel = nn.Conv1d(mel.n_mels, width, size, padding=size // 2)
        self.from_magnitude = nn.Linear(num_bins, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3 * num_bins)  # correction of the log-magnitude, and a point whose angle is the phase
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def reach(self) -> int:
        """Frames that a frame of the spectrogram depends on, on each side."""
        return (len(self.blocks) + 1) * (self.config.kernel_size // 2)

    def prior(self, mel: Tensor) -> Tensor:
        """mel (B, M, T) -> (B, F, T) log-magnitude of the inverted mel, never below half the log of the floor."""
        filters, floor = self.frontend.filters, self.frontend.floor
        power = invert_mel(mel, filters, floor, self.config.nmf_iterations)
        return power.clamp(min=floor).log() / 2

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-magnitude (B, F, T) and complex phases of length 1 (B, F, T); see ``spectrum``."""
        log_magnitude, real, imaginary = self.spectrum(mel, lengths)
        return log_magnitude, torch.complex(real, imaginary)

    def spectrum(self, mel: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-magnitude, and cosine and sine of the phases, each (B, F, T) and float32 also under autocast.

        Args:
            mel: (B, M, T) natural.
            lengths: (B,) frames of each item of a right-padded batch. What lies past them does not count.
        """
        mask = None
        if lengths is not None:
            mask = (torch.arange(mel.shape[-1], device=mel.device) < lengths[:, None])[..., None].to(mel.dtype)
        prior = self.prior(mel.detach()).clone()  # out of inference mode, so that a gradient may pass what comes of it
        # silence is 0, as what convolutions put around the ends
        features = (mel - self.log_floor) / FEATURE_SCALE
        shape = (2 * prior - self.log_floor).transpose(1, 2) / FEATURE_SCALE
        if mask is not None:
            features, shape = features * mask.transpose(1, 2), shape * mask
        x = self.norm(self.from_mel(features).transpose(1, 2) + self.from_magnitude(shape))
        if mask is not None:
            x = x * mask
        for block in self.blocks:
            x = block(x, mask)
        head = self.head(self.last(x)).float().transpose(1, 2)
        correction, real, imaginary = head.chunk(3, dim=1)
        loudest = math.log(self.frontend.n_fft)  # twice what a full-scale tone has
        log_magnitude = (prior + correction).clamp(max=loudest)
        length = (real.square() + imaginary.square() + 1e-12).rsqrt()
        return log_magnitude, real * length, imaginary * length


def iteration_reach(n_fft: int, hop_length: int) -> int:
    """Frames on each side whose windows overlap a frame's own: what one Griffin-Lim iteration sees. 3 for XTTS."""
    return (n_fft - 1) // hop_length
