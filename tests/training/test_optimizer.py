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


def test_drops_of_the_step_schedule():
    config = OptimizerConfig(lr=8.0, warmup_steps=0, schedule="step", step_every=3, step_factor=0.5)
    assert [lr_at(config, step, 100) for step in range(7)] == [8, 8, 8, 4, 4, 4, 2]


def test_stable_then_linearly_down():
    config = OptimizerConfig(lr=2.0, warmup_steps=10, schedule="wsd", decay_fraction=0.25, final_lr_fraction=0.1)
    assert {lr_at(config, step, 100) for step in range(10, 76)} == {2.0}
    assert lr_at(config, 88, 100) == pytest.approx(2 * (0.1 + 0.9 * 12 / 25))
    assert lr_at(config, 100, 100) == pytest.approx(0.2)
    assert lr_at(config, 130, 100) == pytest.approx(0.2)


def test_wsd_does_not_know_its_end_before_the_decay():
    config = OptimizerConfig(schedule="wsd")
    assert [lr_at(config, step, 500) for step in range(400)] == [lr_at(config, step, 9_000) for step in range(400)]


def test_only_what_may_train_is_optimised():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].requires_grad_(False)
    (group,) = build_optimizer(model, OptimizerConfig()).param_groups
    assert group["params"] == list(model[1].parameters())


@pytest.mark.parametrize(("kind", "expected"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_the_optimizer_gets_its_settings(kind, expected):
    model = torch.nn.Linear(2, 3)
    optimizer = build_optimizer(model, OptimizerConfig(kind=kind, lr=0.5, betas=(0.1, 0.2), weight_decay=0.3))
    assert type(optimizer) is expected
    (group,) = optimizer.param_groups
    assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (0.5, (0.1, 0.2), 0.3)
    assert group["params"] == list(model.parameters())
