"""AdamW and its learning-rate schedule."""

from __future__ import annotations

import math

import torch

from melcodec.config import OptimizerConfig


def build_optimizer(model: torch.nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over every trainable parameter."""
    return torch.optim.AdamW(model.parameters(), config.lr, config.betas, weight_decay=config.weight_decay, fused=True)


def lr_at(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Learning rate of ``step`` (from 0): linear warm-up, then constant or half a cosine down to its final share."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    share = config.final_lr_fraction + (1 - config.final_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2
    return config.lr * share
