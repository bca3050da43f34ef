"""Codes drawn from a learned distribution, with gradients through a softmax.

Sources: Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax" (the straight-through estimator); Ramesh et
al. 2021, "Zero-Shot Text-to-Image Generation" (falling temperature, divergence from the uniform distribution); Baevski et
al. 2020, "vq-wav2vec", section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.config import GumbelConfig
from melcodec.quantize.base import Quantized, Quantizer, inside


class GumbelQuantizer(Quantizer):
    """One codebook (Q = 1). A projection gives K logits for each latent; the code is the largest.

    In training, Gumbel noise is added to the logits, which draws a code from their softmax. The gradient is that of the
    softmax of the noisy logits at the present temperature, as if it were used instead of the drawn code. The loss ``kl``
    is the divergence of the distribution without noise from the uniform one, in nats. Settings of ``codebook`` do not
    apply: codewords start standard normal and none is revived.

    State: embed (D, K), columns are codewords; temperature, a scalar that only training uses.

    Args:
        dim: D, width of the latents.
        config: K and the schedule of the temperature.
    """

    straight_through = False
    training_only = frozenset({"temperature"})
    temperature: Tensor

    def __init__(self, dim: int, config: GumbelConfig) -> None:
        super().__init__()
        self.config, self.sizes = config, config.sizes
        self.logits = nn.Conv1d(dim, config.codebook_size, 1)
        self.embed = nn.Parameter(torch.randn(dim, config.codebook_size))
        self.register_buffer("temperature", torch.tensor(config.temperature))

    def _scores(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> logits (B, K, N), float32 whatever the surrounding autocast says."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.logits(latents.float())

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, 1, N) int64, the most probable ones."""
        return self._scores(latents).argmax(1, keepdim=True)

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, 1, N) -> latents (B, D, N)."""
        return F.embedding(codes[:, 0], self.embed.T).transpose(1, 2)

    def forward(self, latents: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None) -> Quantized:
        """See ``Quantizer``; the noise is drawn from ``generator``."""
        logits = self._scores(latents)
        losses = {"kl": _divergence(logits, inside(latents, lengths))}
        if not self.training:
            codes = logits.argmax(1, keepdim=True)
            return Quantized(self.decode(codes), codes, losses)
        uniform = torch.rand(logits.shape, generator=generator).clamp(min=1e-20).to(logits.device)
        soft = ((logits - (-uniform.log()).log()) / self.temperature).softmax(1)
        codes = soft.argmax(1, keepdim=True)
        hard = torch.zeros_like(soft).scatter_(1, codes, 1.0)
        weights = hard + (soft - soft.detach())
        with torch.autocast(latents.device.type, enabled=False):
            quantised = torch.einsum("dk,bkn->bdn", self.embed, weights)
        return Quantized(quantised, codes, losses)

    @torch.no_grad()
    def update(self, moments: Sequence[Any], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Set the temperature of the next step; ``moments`` are not needed."""
        first, last = self.config.temperature, self.config.final_temperature
        done = min(1.0, (step + 1) / self.config.anneal_steps)
        self.temperature.fill_(first * (last / first) ** done)
        return {"temperature": self.temperature.clone()}

    @torch.no_grad()
    def forget_training(self) -> None:
        """The temperature of the first step."""
        self.temperature.fill_(self.config.temperature)

    def tables(self) -> list[Tensor]:
        """The codewords (K, D)."""
        return [self.embed.detach().T]


def _divergence(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real positions of sum p log(p K), of logits (B, K, N)."""
    log_p = logits.log_softmax(1)
    each = (log_p.exp() * (log_p + math.log(logits.shape[1]))).sum(1)
    return each.mean() if mask is None else (each * mask).sum() / mask.sum().clamp(min=1)
