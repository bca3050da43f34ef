"""Adam or AdamW and the learning-rate schedule."""

from __future__ import annotations

import math

import torch

from melcodec.config import OptimizerConfig


def build_optimizer(model: torch.nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over every parameter that ``model`` lets train."""
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.kind]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return kind(parameters, config.lr, config.betas, weight_decay=config.weight_decay, fused=True)


def lr_at(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Learning rate of ``step`` (from 0): linear warm-up, then what the schedule says.

    ``wsd`` (warm-up, stable, decay; Hu et al. 2024, "MiniCPM", section 4) does not depend on ``total_steps`` before its
    decay begins, so that a run can be made longer or shorter while it is on its way.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "step":
        return config.lr * config.step_factor ** (step // config.step_every)
    if config.schedule == "cosine":
        progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
        height = (1 + math.cos(math.pi * progress)) / 2
    else:
        height = min(1.0, max(0.0, (total_steps - step) / (config.decay_fraction * total_steps)))
    return config.lr * (config.final_lr_fraction + (1 - config.final_lr_fraction) * height)
