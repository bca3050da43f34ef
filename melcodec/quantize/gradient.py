"""A codebook that learns by gradients.

Source: van den Oord et al. 2017, "Neural Discrete Representation Learning", equation 3: the codebook loss moves the
codewords to their latents, the commitment loss the latents to their codewords.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcodec.config import CodebookConfig, GradientConfig
from melcodec.quantize.base import mean_inside
from melcodec.quantize.vector import VectorQuantizer


class GradientCodebook(VectorQuantizer):
    """Codewords (d, K) are parameters; the loss ``codebook`` is the mean of (sg(latents) - codewords)^2."""

    def __init__(self, dim: int, config: GradientConfig, upkeep: CodebookConfig | None = None) -> None:
        self.init = config.init
        super().__init__(dim, config, upkeep)

    def _register_codewords(self) -> None:
        size = self.config.codebook_size
        shape = (self.code_dim, size)
        first = torch.randn(shape) if self.init == "normal" else torch.empty(shape).uniform_(-1 / size, 1 / size)
        self.embed = nn.Parameter(first)

    def _losses(self, narrow: Tensor, quantised: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        return {"codebook": mean_inside((narrow.detach() - quantised).pow(2), mask)}

    @torch.no_grad()
    def forget_training(self) -> None:
        """Every code counts once."""
        self.cluster_size.fill_(1)
