"""An adversary: a discriminator that learns beside the model, and what the model loses to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec import distributed
from melcodec.config import DiscriminatorConfig
from melcodec.objective.discriminator import build_discriminator


class Adversary:
    """A discriminator with its own optimizer. Call ``losses`` and ``learn`` for every part of a batch, then ``step``.

    Source: the hinge loss of Lim & Ye 2017, "Geometric GAN"; feature matching of Salimans et al. 2016, "Improved
    Techniques for Training GANs", section 3.1.

    Args:
        config: the discriminator, its optimizer and its start.
        norms: (M,) of the mel front end, on the device: discriminators see natural log power.
        seed: of its first weights.
    """

    def __init__(self, config: DiscriminatorConfig, norms: Tensor, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model: nn.Module = build_discriminator(config).to(norms.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), config.lr, config.betas, weight_decay=0.0, fused=True)
        self.start_step, self.norms = config.start_step, norms[:, None]

    def _natural(self, mel: Tensor, lengths: Tensor | None) -> Tensor:
        """Normalised mel (B, M, T) -> natural log power, the same past every item's end."""
        natural = mel.float() * self.norms
        if lengths is None:
            return natural
        return natural * (torch.arange(mel.shape[-1], device=mel.device) < lengths[:, None])[:, None]

    def losses(self, made: Tensor, mel: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """What the model loses with its reconstruction ``made`` (B, M, T) of the normalised ``mel``."""
        self.model.requires_grad_(False)  # the model's loss teaches the model alone
        fake = self.model(self._natural(made, lengths))
        with torch.no_grad():
            real = self.model(self._natural(mel, lengths))
        self.model.requires_grad_(True)
        matching = torch.stack([F.l1_loss(f.float(), r.float()) for f, r in zip(fake[:-1], real[:-1], strict=True)]).mean()
        return {"adversarial": -fake[-1].float().mean(), "feature_matching": matching}

    def learn(self, made: Tensor, mel: Tensor, lengths: Tensor | None, share: float) -> Tensor:
        """Add to the gradients what telling ``made`` from ``mel`` teaches, ``share`` of a batch; the hinge loss."""
        fake = self.model(self._natural(made.detach(), lengths))[-1].float()
        real = self.model(self._natural(mel, lengths))[-1].float()
        loss = F.relu(1 + fake).mean() + F.relu(1 - real).mean()
        (loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def step(self) -> None:
        """One step of the discriminator's optimizer with the gradients of all parts and processes."""
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
        distributed.all_reduce_sum(*gradients)
        torch._foreach_div_(gradients, distributed.world_size())
        self.optimizer.step()
        self.optimizer.zero_grad()
