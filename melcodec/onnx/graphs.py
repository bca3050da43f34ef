"""What is exported: modules whose every step ONNX has, for any batch and length.

There are no complex numbers in them: spectra are products with cosines and sines. Batches carry the length of each item, and
what lies past an item's end does not matter, so that a padded batch gives what its items give alone.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.audio.inverse import invert_mel
from melcodec.audio.mel import MelFrontend
from melcodec.nn.base import mask
from melcodec.vocoder.learned import MOMENTUM
from melcodec.vocoder.network import VocosNetwork
from melcodec.vqvae import VQVAE

TINY = 1e-12  # under the square of any magnitude that matters


class WaveToCodes(nn.Module):
    """Waves -> codes: reflection at each item's own end, spectrum, mel bands, logarithm, norms, encoder, quantizer."""

    basis: Tensor
    filters: Tensor

    def __init__(self, frontend: MelFrontend, model: VQVAE) -> None:
        super().__init__()
        self.frontend, self.model = frontend, model
        used = frontend.filters.sum(1) > 0  # bins that no band needs are not computed
        self.register_buffer("basis", fourier_basis(frontend)[:, used].flatten(0, 1)[:, None])
        self.register_buffer("filters", frontend.filters[used].T.contiguous())

    def forward(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """wave (B, S), lengths (B,) samples of each item -> codes (B, Q, N) and how many codes (B,) each item has."""
        frames, stride = lengths // self.frontend.hop_length + 1, self.model.reach.stride
        mel = self.mel(wave, lengths)
        mel = F.pad(mel, (0, -mel.shape[-1] % stride))
        return self.model.encode(self.frontend.normalize(mel), frames), (frames + stride - 1) // stride

    def mel(self, wave: Tensor, lengths: Tensor) -> Tensor:
        """wave (B, S), lengths (B,) samples -> natural log-mel (B, M, S // hop + 1)."""
        padded = self.frontend.reflected(wave.clamp(-1, 1), lengths)
        spectrum = F.conv1d(padded[:, None], self.basis, stride=self.frontend.hop_length)
        real, imaginary = spectrum.chunk(2, dim=1)
        power = real.square() + imaginary.square()
        return torch.log(torch.clamp(self.filters @ power, min=self.frontend.floor))


class CodesToMel(nn.Module):
    """Codes -> natural log-mel."""

    def __init__(self, frontend: MelFrontend, model: VQVAE) -> None:
        super().__init__()
        self.frontend, self.model = frontend, model

    def forward(self, codes: Tensor, lengths: Tensor) -> Tensor:
        """codes (B, Q, N), lengths (B,) codes of each item -> natural log-mel (B, M, stride N), zero past an item's end."""
        return self.frontend.denormalize(self.model.decode(codes, lengths))


class MelToMagnitude(nn.Module):
    """Natural log-mel -> linear magnitudes, from which Griffin-Lim starts."""

    def __init__(self, frontend: MelFrontend, iterations: int) -> None:
        super().__init__()
        self.frontend, self.iterations = frontend, iterations

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, M, T) -> magnitude (B, F, T)."""
        mel = torch.minimum(mel, self.frontend.loudest[:, None])
        return invert_mel(mel, self.frontend.filters, self.frontend.floor, self.iterations).sqrt()


class MelToWave(nn.Module):
    """Natural log-mel -> waves, by a learned vocoder with its Griffin-Lim iterations.

    Args:
        network: in eval mode.
        refine: Griffin-Lim iterations, each of which becomes a part of the graph.
    """

    analysis: Tensor
    synthesis: Tensor
    squares: Tensor

    def __init__(self, network: VocosNetwork, refine: int) -> None:
        super().__init__()
        self.network, self.refine = network, refine
        basis = fourier_basis(network.frontend)  # (2, F, n_fft)
        self.register_buffer("analysis", basis.flatten(0, 1)[:, None])
        size = network.frontend.n_fft
        # the inverse transform counts every bin twice but the first and the last, and windows a second time
        weights = torch.full((basis.shape[1], 1), 2.0 / size)
        weights[[0, -1]] = 1.0 / size
        self.register_buffer("synthesis", (basis * weights).flatten(0, 1)[:, None])
        self.register_buffer("squares", network.frontend.window.square()[None, None])

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """mel (B, M, T), lengths (B,) samples of each item -> wave (B, T hop - 1), zero past an item's end."""
        frontend = self.network.frontend
        mel = torch.minimum(mel, frontend.loudest[:, None])
        log_magnitude, real, imaginary = self.network.spectrum(mel, lengths // frontend.hop_length + 1)
        magnitude = log_magnitude.exp()
        previous_real = previous_imaginary = torch.zeros_like(real)
        for _ in range(self.refine):
            wave = self.waves(magnitude * real, magnitude * imaginary, lengths)
            padded = F.pad(wave[:, None], (frontend.n_fft // 2, frontend.n_fft // 2))
            new_real, new_imaginary = F.conv1d(padded, self.analysis, stride=frontend.hop_length).chunk(2, dim=1)
            real = new_real + MOMENTUM * (new_real - previous_real)
            imaginary = new_imaginary + MOMENTUM * (new_imaginary - previous_imaginary)
            length = (real.square() + imaginary.square() + TINY * TINY).sqrt()
            real, imaginary = real / length, imaginary / length
            previous_real, previous_imaginary = new_real, new_imaginary
        return self.waves(magnitude * real, magnitude * imaginary, lengths)

    def waves(self, real: Tensor, imaginary: Tensor, lengths: Tensor) -> Tensor:
        """The inverse STFT of a spectrum (B, F, T), zero past ``lengths`` (B,): (B, T hop - 1)."""
        frontend = self.network.frontend
        inside = mask(torch.ones_like(real[:, :1]), lengths // frontend.hop_length + 1)
        spectrum = torch.cat([real, imaginary], dim=1) * inside
        summed = F.conv_transpose1d(spectrum, self.synthesis, stride=frontend.hop_length)
        envelope = F.conv_transpose1d(inside, self.squares, stride=frontend.hop_length)
        half = frontend.n_fft // 2
        stop = half + real.shape[-1] * frontend.hop_length - 1
        return mask((summed / envelope.clamp(min=TINY))[:, 0, half:stop], lengths)


def fourier_basis(frontend: MelFrontend) -> Tensor:
    """(2, F, n_fft) windowed cosines and negative sines of every bin, computed in float64 and rounded once."""
    size = frontend.n_fft
    turns = np.outer(np.arange(size // 2 + 1), np.arange(size)) % size / size
    window = frontend.window.double().numpy()
    basis = np.stack([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)]) * window
    return torch.from_numpy(basis.astype(np.float32))
