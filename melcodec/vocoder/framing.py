"""Short-time spectra and waves, there and back many times: what an iteration of Griffin-Lim consists of.

``torch.stft`` and ``torch.istft`` say what is computed; on a CPU they take several times as long as the Fourier transforms
in them. Here frames come first, so that a transform reads and writes memory in order; frames are added in whole hops; and
spectra are two real tensors, because operations on complex numbers are not vectorised.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from melcodec.audio.mel import MelFrontend


class Framing:
    """Between a wave of S samples and its T = S // hop + 1 frames, centred and zero-padded.

    Args:
        frontend: whose window and hop are used.
        num_samples: S.
    """

    def __init__(self, frontend: MelFrontend, num_samples: int) -> None:
        self.n_fft, self.hop, self.window = frontend.n_fft, frontend.hop_length, frontend.window
        self.num_frames = num_samples // self.hop + 1
        self.hops = -(-self.n_fft // self.hop)
        self.inside = slice(self.n_fft // 2, self.n_fft // 2 + num_samples)
        power = self._added(self.window.square().expand(1, self.num_frames, self.n_fft))
        self.gain = power[..., self.inside].reciprocal()  # every sample is in a frame, and n_fft > 2 hop

    def wave(self, real: Tensor, imag: Tensor) -> Tensor:
        """Spectrum (B, T, F) -> the wave (B, n_fft // 2 + S + the rest) between zeros, as ``spectrum`` takes it."""
        frames = torch.fft.irfft(torch.complex(real, imag), self.n_fft).mul_(self.window)
        wave = self._added(frames)
        wave[..., : self.inside.start] = 0
        wave[..., self.inside] *= self.gain
        wave[..., self.inside.stop :] = 0
        return wave

    def spectrum(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """What ``wave`` gives -> real and imaginary parts (B, T, F)."""
        frames = wave.unfold(-1, self.n_fft, self.hop)[:, : self.num_frames] * self.window
        spectrum = torch.view_as_real(torch.fft.rfft(frames))
        return spectrum[..., 0].contiguous(), spectrum[..., 1].contiguous()

    def _added(self, frames: Tensor) -> Tensor:
        """Frames (B, T, n_fft), a hop apart -> their sum (B, (T + hops - 1) * hop)."""
        batch, num_frames = frames.shape[:2]
        parts = F.pad(frames, (0, self.hops * self.hop - self.n_fft)).view(batch, num_frames, self.hops, self.hop)
        added = parts.new_zeros(batch, num_frames + self.hops - 1, self.hop)
        for first in range(self.hops):
            added[:, first : first + num_frames] += parts[:, :, first]
        return added.flatten(1)
