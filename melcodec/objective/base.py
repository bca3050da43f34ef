"""What a term of the loss is."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from melcodec.vqvae import VQVAEOutput


class Sample(NamedTuple):
    """What a term compares.

    output: of the model, its reconstruction in float32; mel (B, M, T): the normalised target, float32; lengths (B,): real
    frames of each item of a padded batch, None when all are whole; norms (M,): of the mel front end.
    """

    output: VQVAEOutput
    mel: Tensor
    lengths: Tensor | None
    norms: Tensor

    @property
    def inside(self) -> Tensor | None:
        """Which frames (B, T) are real; None when all are."""
        if self.lengths is None:
            return None
        return torch.arange(self.mel.shape[-1], device=self.mel.device) < self.lengths[:, None]


class Term(Protocol):
    """A term of the loss: a scalar that is smaller the better the reconstruction is."""

    def __call__(self, sample: Sample) -> Tensor:
        """The mean over the real frames of ``sample``."""
