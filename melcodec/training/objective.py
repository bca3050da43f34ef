"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from melcodec.config import ObjectiveConfig
from melcodec.vqvae import VQVAEOutput


class Losses(NamedTuple):
    """Scalars. total = reconstruction + weight * commitment."""

    total: Tensor
    reconstruction: Tensor
    commitment: Tensor


class Shares(NamedTuple):
    """What a part of a batch weighs beside the others, 1 when all are alike: by its frames and by its codes."""

    frames: float = 1.0
    codes: float = 1.0


EVEN = Shares()


def losses(
    config: ObjectiveConfig, output: VQVAEOutput, mel: Tensor, lengths: Tensor | None = None, shares: Shares = EVEN
) -> Losses:
    """Losses of ``output`` against the normalised mel (B, M, T), both float32.

    Args:
        lengths: (B,) real frames of each item of a padded batch; only they count.
        shares: see ``Shares``: with them, the mean over the parts of a batch is the mean over its frames and codes.
    """
    reconstruction = RECONSTRUCTIONS[config.reconstruction](output.reconstruction.float(), mel, lengths) * shares.frames
    commitment = output.commitment * shares.codes
    return Losses(reconstruction + config.commitment_weight * commitment, reconstruction, commitment)


def _mean_of(distance: Callable[..., Tensor]) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """``distance`` averaged over all elements of the real frames."""

    def mean(output: Tensor, mel: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return distance(output, mel)
        inside = torch.arange(mel.shape[-1], device=mel.device) < lengths[:, None]
        return distance(output.transpose(1, 2)[inside], mel.transpose(1, 2)[inside])

    return mean


def _spectral_norm(output: Tensor, mel: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean over items of the largest singular value of the error (M, T), as the seed article measures it."""
    error = output - mel
    if lengths is not None:
        error = error * (torch.arange(mel.shape[-1], device=mel.device) < lengths[:, None])[:, None]
    return torch.linalg.matrix_norm(error, ord=2).mean()


RECONSTRUCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "mse": _mean_of(F.mse_loss),
    "l1": _mean_of(F.l1_loss),
    "smooth-l1": _mean_of(F.smooth_l1_loss),
    "spectral-norm": _spectral_norm,
}
