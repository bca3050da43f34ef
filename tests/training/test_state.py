"""A run's state: everything that changes while training, back bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melcodec.config import ConvConfig, EMAConfig, ModelConfig, OptimizerConfig
from melcodec.errors import MelcodecError
from melcodec.training.optimizer import build_optimizer
from melcodec.training.state import Progress, TrainState, state_paths
from melcodec.vqvae import build_vqvae


def state_of(seed: int = 0, hidden: int = 4, averaged: bool = True) -> TrainState:
    torch.manual_seed(seed)
    model = build_vqvae(ModelConfig(backbone=ConvConfig(hidden=hidden), dim=6, quantizer=EMAConfig(codebook_size=10)))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5)) if averaged else None
    return TrainState(model, build_optimizer(model, OptimizerConfig()), average, (-1.0, -2.0), "corpus")


def train(state: TrainState, steps: int = 2) -> TrainState:
    for _ in range(steps):
        mel = torch.randn(2, 80, 16, generator=torch.Generator().manual_seed(state.step))
        output = state.model.train()(mel)
        ((output.reconstruction - mel).square().mean() + output.quantized.losses["commitment"]).backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.model.quantizer.update([output.quantized.moments], state.step, torch.Generator().manual_seed(state.step))
        if state.average is not None:
            state.average.update_parameters(state.model)
        state.progress.step += 1
    return state


def flat(state: TrainState) -> dict[str, torch.Tensor]:
    slots = state.optimizer.state_dict()["state"]
    averages = {f"average.{name}": value for name, value in state.average.state_dict().items()} if state.average else {}
    optimizer = {f"{index}.{name}": value for index in slots for name, value in slots[index].items()}
    return state.model.state_dict() | averages | optimizer


def test_a_restored_state_goes_on_bit_for_bit(tmp_path):
    undisturbed = train(state_of())
    undisturbed.progress = Progress(2, 0.75, {"loss": 0.1 + 0.2, "steps": 2}, revived=5)
    undisturbed.save(tmp_path)
    (path,) = state_paths(tmp_path)
    restored = state_of(seed=1)
    assert restored.restore(tmp_path) == []
    assert restored.progress == Progress(2, 0.75, {"loss": 0.1 + 0.2, "steps": 2}, revived=5)
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
    assert state_paths(tmp_path / "a")[0].read_bytes() == state_paths(tmp_path / "b")[0].read_bytes()


def test_before_the_first_step(tmp_path):
    state_of().save(tmp_path)
    restored = state_of(seed=1)
    restored.restore(tmp_path)
    assert restored.progress == Progress()
    assert restored.best == float("inf")
    assert all(torch.equal(value, flat(state_of())[name]) for name, value in flat(restored).items())


def test_the_last_two_are_kept(tmp_path):
    state = state_of()
    for _ in range(4):
        train(state, 1).save(tmp_path)
    assert [path.stem for path in state_paths(tmp_path)] == ["step-00000004", "step-00000003"]


def test_a_damaged_state_is_passed_over_and_named(tmp_path):
    state = state_of()
    for _ in range(2):
        train(state, 1).save(tmp_path)
    newest, older = state_paths(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-100])
    restored = state_of(seed=1)
    (note,) = restored.restore(tmp_path)
    assert str(newest) in note
    assert "the state before it is taken" in note
    assert restored.step == 1
    older.write_bytes(b"")
    with pytest.raises(MelcodecError, match=older.name) as caught:
        restored.restore(tmp_path)
    assert "no saved state of this run can be read" in caught.value.hint


def test_the_judged_model_is_the_average_where_there_is_one():
    state = train(state_of())
    assert state.judged is state.average.module
    assert not torch.equal(state.judged.decoder[0].weight, state.model.decoder[0].weight)
    without = train(state_of(averaged=False))
    assert without.judged is without.model


def test_the_learning_rate_is_that_of_the_run_not_of_the_file(tmp_path):
    train(state_of()).save(tmp_path)
    restored = state_of()
    restored.optimizer.param_groups[0]["lr"] = 0.125
    restored.restore(tmp_path)
    assert restored.optimizer.param_groups[0]["lr"] == 0.125


def test_the_state_of_another_model_is_refused(tmp_path):
    state_of(hidden=5).save(tmp_path)
    with pytest.raises(MelcodecError, match="a model with other settings") as caught:
        state_of(hidden=4).restore(tmp_path)
    assert "another folder" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "words", "hint"),
    [({"mel_norms": (-1.0, -3.0)}, "other mel norms", "--mel-stats"), ({"corpus": "grown"}, "the corpus has changed", "--init")],
)
def test_what_a_run_belongs_to_must_stay(tmp_path, change, words, hint):
    state = state_of()
    state.save(tmp_path)
    for name, value in change.items():
        setattr(state, name, value)
    with pytest.raises(MelcodecError, match=words) as caught:
        state.restore(tmp_path)
    assert hint in caught.value.hint
