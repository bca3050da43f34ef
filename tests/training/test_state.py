"""A run's state: everything that changes while training, back bit for bit."""

from __future__ import annotations

import pytest
import torch

from melcodec.config import ConvConfig, EMAConfig, ModelConfig, OptimizerConfig
from melcodec.errors import MelcodecError
from melcodec.training.optimizer import build_optimizer
from melcodec.training.state import TrainState
from melcodec.vqvae import build_vqvae


def state_of(seed: int = 0, hidden: int = 4) -> TrainState:
    torch.manual_seed(seed)
    model = build_vqvae(ModelConfig(backbone=ConvConfig(hidden=hidden), quantizer=EMAConfig(dim=6, codebook_size=10)))
    return TrainState(model, build_optimizer(model, OptimizerConfig()), (-1.0, -2.0))


def train(state: TrainState, steps: int = 2) -> TrainState:
    for _ in range(steps):
        mel = torch.randn(2, 80, 16, generator=torch.Generator().manual_seed(state.step))
        output = state.model.train()(mel)
        ((output.reconstruction - mel).square().mean() + output.commitment).backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step += 1
    return state


def flat(state: TrainState) -> dict[str, torch.Tensor]:
    slots = state.optimizer.state_dict()["state"]
    return state.model.state_dict() | {f"{index}.{name}": value for index in slots for name, value in slots[index].items()}


def test_a_restored_state_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "state.safetensors"
    undisturbed = train(state_of())
    undisturbed.best, undisturbed.sums = 0.75, {"loss": 0.1 + 0.2, "steps": 2}
    undisturbed.save(path)
    restored = state_of(seed=1)
    restored.restore(path)
    assert (restored.step, restored.best, restored.sums) == (2, 0.75, {"loss": 0.1 + 0.2, "steps": 2})
    before = path.read_bytes()
    for state in (train(undisturbed), train(restored)):
        assert state.step == 4
    first, second = flat(undisturbed), flat(restored)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert path.read_bytes() == before  # training on does not write through to the file


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        train(state_of()).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_before_the_first_step(tmp_path):
    state_of().save(tmp_path / "state")
    restored = state_of(seed=1)
    restored.restore(tmp_path / "state")
    assert (restored.step, restored.best, restored.sums) == (0, float("inf"), {})
    assert all(torch.equal(value, flat(state_of())[name]) for name, value in flat(restored).items())


def test_the_learning_rate_is_that_of_the_run_not_of_the_file(tmp_path):
    train(state_of()).save(tmp_path / "state")
    restored = state_of()
    restored.optimizer.param_groups[0]["lr"] = 0.125
    restored.restore(tmp_path / "state")
    assert restored.optimizer.param_groups[0]["lr"] == 0.125


def test_the_state_of_another_model_is_refused(tmp_path):
    state_of(hidden=5).save(tmp_path / "state")
    with pytest.raises(MelcodecError, match="a model with other settings") as caught:
        state_of(hidden=4).restore(tmp_path / "state")
    assert "another folder" in caught.value.hint
    (tmp_path / "other").write_text("not a state")
    with pytest.raises(MelcodecError, match="not a safetensors file"):
        state_of().restore(tmp_path / "other")


def test_other_norms_are_refused(tmp_path):
    state = state_of()
    state.save(tmp_path / "state.safetensors")
    state.mel_norms = (-1.0, -3.0)
    with pytest.raises(MelcodecError, match="other mel norms"):
        state.restore(tmp_path / "state.safetensors")
