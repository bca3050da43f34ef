"""From configuration to objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from melcodec.config import ObjectiveConfig
from melcodec.objective import reconstruction
from melcodec.objective.base import Sample, Term
from melcodec.vqvae import VQVAEOutput

# losses of the quantizer and of the adversary, which only have their weights here
GIVEN = ("commitment", "codebook", "kl", "entropy", "adversarial", "feature_matching")


class Shares(NamedTuple):
    """The weight of a part of a batch beside the others, by its frames and by its codes; 1 when all parts are alike."""

    frames: float = 1.0
    codes: float = 1.0


EVEN = Shares()


def build_term(name: str) -> Term:
    """The term of the loss that a setting of ``ObjectiveConfig`` weighs."""
    match name:
        case "l1":
            return reconstruction.elementwise(F.l1_loss)
        case "mse":
            return reconstruction.elementwise(F.mse_loss)
        case "smooth_l1":
            return reconstruction.elementwise(F.smooth_l1_loss)
        case "log_mel_l1":
            return reconstruction.log_mel_l1
        case "spectral_norm":
            return reconstruction.spectral_norm
        case "commitment_spectral_norm":
            return reconstruction.commitment_spectral_norm
    raise ValueError(f"no term '{name}'")


class Objective:
    """A weighted sum of terms. What the quantizer loses is among them by its own names.

    Args:
        config: the weight of each term.
        norms: (M,) of the mel front end.
    """

    def __init__(self, config: ObjectiveConfig, norms: Tensor) -> None:
        self.norms = norms
        self.weights = {name: value for name, value in config.model_dump().items() if isinstance(value, float)}
        self.terms = {name: build_term(name) for name, weight in self.weights.items() if weight and name not in GIVEN}

    def __call__(
        self, output: VQVAEOutput, mel: Tensor, lengths: Tensor | None = None, shares: Shares = EVEN
    ) -> dict[str, Tensor]:
        """The terms by name, not weighted, of ``output`` against the normalised mel (B, M, T), all in float32.

        Args:
            lengths: (B,) real frames of each item of a padded batch; only they count.
            shares: see ``Shares``: with them, the mean over the parts of a batch is the mean over its frames and codes.
        """
        sample = Sample(output._replace(reconstruction=output.reconstruction.float()), mel, lengths, self.norms)
        terms = {name: term(sample) * shares.frames for name, term in self.terms.items()}
        return terms | {name: loss * shares.codes for name, loss in output.quantized.losses.items()}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Their weighted sum, which is minimised."""
        weighted = [self.weights[name] * value for name, value in terms.items()]
        return sum(weighted[1:], start=weighted[0])
