from __future__ import annotations

import pytest
import torch

from melcodec.config import OptimizerConfig
from melcodec.training.optimizer import build_optimizer, lr_at


def test_warm_up_is_a_straight_line():
    config = OptimizerConfig(lr=1.0, warmup_steps=4, schedule="constant")
    assert [lr_at(config, step, 100) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert lr_at(config, 99, 100) == 1.0


def test_no_warm_up():
    assert lr_at(OptimizerConfig(lr=2.0, warmup_steps=0, schedule="constant"), 0, 10) == 2.0
    assert lr_at(OptimizerConfig(lr=2.0, warmup_steps=0), 0, 10) == 2.0


def test_half_a_cosine_down_to_its_final_share():
    config = OptimizerConfig(lr=2.0, warmup_steps=10, final_lr_fraction=0.1)
    assert lr_at(config, 10, 110) == 2.0
    assert lr_at(config, 60, 110) == pytest.approx(2 * (0.1 + 0.9 / 2))
    assert lr_at(config, 110, 110) == pytest.approx(0.2)
    assert lr_at(config, 500, 110) == pytest.approx(0.2)  # a run that goes on past its end
    falling = [lr_at(config, step, 110) for step in range(10, 111)]
    assert falling == sorted(falling, reverse=True)
    assert lr_at(OptimizerConfig(final_lr_fraction=0, warmup_steps=0), 9, 9) == pytest.approx(0)


def test_a_run_shorter_than_its_warm_up():
    config = OptimizerConfig(lr=1.0, warmup_steps=200)
    assert lr_at(config, 4, 5) == 5 / 200


def test_adamw_gets_its_settings():
    model = torch.nn.Linear(2, 3)
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.5, betas=(0.1, 0.2), weight_decay=0.3))
    (group,) = optimizer.param_groups
    assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (0.5, (0.1, 0.2), 0.3)
    assert group["params"] == list(model.parameters())
