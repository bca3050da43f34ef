"""What training minimises."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from melcodec.config import ObjectiveConfig
from melcodec.vqvae import VQVAEOutput


class Losses(NamedTuple):
    """Scalars. total = reconstruction + weight * commitment."""

    total: Tensor
    reconstruction: Tensor
    commitment: Tensor


def losses(config: ObjectiveConfig, output: VQVAEOutput, mel: Tensor) -> Losses:
    """Losses of ``output`` against the normalised mel (B, M, T), both float32 means over all elements."""
    distance = {"mse": F.mse_loss, "l1": F.l1_loss}[config.reconstruction]
    reconstruction = distance(output.reconstruction.float(), mel)
    return Losses(reconstruction + config.commitment_weight * output.commitment, reconstruction, output.commitment)
