"""Terms that compare the reconstruction with the mel, element by element or crop by crop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from melcodec.objective.base import Sample, Term


def elementwise(distance: Callable[[Tensor, Tensor], Tensor]) -> Term:
    """``distance``, which averages two tensors of one shape, over all elements of the real frames."""

    def term(sample: Sample) -> Tensor:
        made, mel, inside = sample.output.reconstruction, sample.mel, sample.inside
        if inside is None:
            return distance(made, mel)
        return distance(made.transpose(1, 2)[inside], mel.transpose(1, 2)[inside])

    return term


def log_mel_l1(sample: Sample) -> Tensor:
    """Mean absolute error in natural log power, as validation measures it: every band counts alike."""
    error = (sample.output.reconstruction - sample.mel).abs() * sample.norms.abs()[:, None]
    return error.mean() if sample.inside is None else error.transpose(1, 2)[sample.inside].mean()


def spectral_norm(sample: Sample) -> Tensor:
    """Mean over crops of the largest singular value of the error (M, T); the first of the articles in docs/laboratory.md."""
    error = sample.output.reconstruction - sample.mel
    inside = sample.inside
    return torch.linalg.matrix_norm(error if inside is None else error * inside[:, None], ord=2).mean()


def commitment_spectral_norm(sample: Sample) -> Tensor:
    """The same norm of latents (D, N) minus what they were quantised to; padding past an item's end is left out."""
    latents, quantised = sample.output.latents.float(), sample.output.quantized.latents
    error = latents - quantised.detach()
    if sample.lengths is not None:
        stride = sample.mel.shape[-1] // latents.shape[-1]
        codes = torch.arange(latents.shape[-1], device=latents.device) < -(-sample.lengths // stride)[:, None]
        error = error * codes[:, None]
    return torch.linalg.matrix_norm(error, ord=2).mean()
