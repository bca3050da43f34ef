"""What a vocoder is trained by, without discriminators.

Sources: Yamamoto et al. 2020, "Parallel WaveGAN" (log-magnitude L1 and spectral convergence at several resolutions); Ai &
Ling 2023, "APNet" (losses on phases, group delays and instantaneous angular frequencies). Phases are compared by
1 - cos of their difference, which needs no unwrapping, and weighted by the square root of the true magnitude: where there
is no sound they mean nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from melcodec.audio.mel import MelFrontend
from melcodec.training.vocoder.settings import VocoderObjectiveConfig
from melcodec.vocoder.griffin_lim import stft

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))  # n_fft and hop, samples
QUIET = 1e-2  # magnitudes below it count as silence: 94 dB under a full-scale tone


def spectral_terms(
    output: tuple[Tensor, Tensor], made: Tensor | None, wav: Tensor, frontend: MelFrontend, weights: VocoderObjectiveConfig
) -> dict[str, Tensor]:
    """The weighted losses by name, scalars; those of weight 0 are left out.

    Args:
        output: log-magnitude and phases (B, F, T) of the network.
        made: (B, S) the wave that they stand for; may be None when neither ``stft`` nor ``mel`` counts.
        wav: (B, S) the original.
    """
    log_magnitude, phases = output
    target = stft(wav, frontend)
    terms = {}
    if weights.magnitude:
        terms["magnitude"] = weights.magnitude * magnitude_loss(log_magnitude, target.abs())
    if weights.phase:
        terms["phase"] = weights.phase * phase_loss(phases, target)
    if made is not None and weights.stft:
        terms["stft"] = weights.stft * multi_resolution_loss(made, wav)
    if made is not None and weights.mel:
        terms["mel"] = weights.mel * (frontend(made) - frontend(wav)).abs().mean()
    return terms


def magnitude_loss(log_made: Tensor, target: Tensor) -> Tensor:
    """L1 of the log-magnitudes (..., F, T) plus spectral convergence, the relative Frobenius norm of the difference.

    Args:
        log_made: natural logarithm of what was made.
        target: magnitude, not its logarithm.
    """
    logs = (log_made.clamp(min=math.log(QUIET)) - target.clamp(min=QUIET).log()).abs().mean()
    difference = torch.linalg.vector_norm(log_made.exp() - target, dim=(-2, -1))
    # a silent crop has no magnitude to be relative to
    scale = torch.linalg.vector_norm(target, dim=(-2, -1)).clamp(min=1.0)
    return logs + (difference / scale).mean()


def phase_loss(phases: Tensor, target: Tensor) -> Tensor:
    """Mean 1 - cos of the errors of phases, of their differences along frequency and of those along time.

    Args:
        phases: (B, F, T) complex, of length 1.
        target: (B, F, T) complex spectrogram.
    """
    magnitude = target.abs()
    weight = magnitude.sqrt()
    error = torch.view_as_real(phases * (target / magnitude.clamp(min=1e-9)).conj())  # its angle is the error of the phase

    def mean(cosine: Tensor, weight: Tensor) -> Tensor:
        return 1 - (cosine * weight).sum() / weight.sum().clamp(min=1e-3)

    along_frequency = (error[:, 1:] * error[:, :-1]).sum(-1)
    along_time = (error[:, :, 1:] * error[:, :, :-1]).sum(-1)
    terms = [
        mean(error[..., 0], weight),
        mean(along_frequency, torch.minimum(weight[:, 1:], weight[:, :-1])),
        mean(along_time, torch.minimum(weight[..., 1:], weight[..., :-1])),
    ]
    return torch.stack(terms).mean()


def multi_resolution_loss(made: Tensor, target: Tensor) -> Tensor:
    """Mean ``magnitude_loss`` of waves (B, S) over ``RESOLUTIONS``."""
    pairs = [[magnitudes(wav, *resolution) for wav in (made, target)] for resolution in RESOLUTIONS]
    return torch.stack([magnitude_loss(one.log(), other) for one, other in pairs]).mean()


def magnitudes(wav: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """wav (B, S) -> (B, F, T), with a gradient that stays finite in silence."""
    window = torch.hann_window(n_fft, device=wav.device)
    spectrum = torch.stft(wav, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-8).sqrt()


def stft_distance(made: Tensor, target: Tensor) -> float:
    """Mean log-magnitude L1 of waves (B, S) over ``RESOLUTIONS``, in natural log: what a validation goes by."""
    floor = math.log(QUIET)
    pairs = [[magnitudes(wav, *resolution).log().clamp(min=floor) for wav in (made, target)] for resolution in RESOLUTIONS]
    return float(torch.stack([(one - other).abs().mean() for one, other in pairs]).mean())
