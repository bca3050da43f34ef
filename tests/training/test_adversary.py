"""Runs with a discriminator: delayed start, exact resuming, and the decoder alone on frozen codes."""

from __future__ import annotations

import pytest
import torch

from melcodec.formats.checkpoint import load_checkpoint
from melcodec.formats.container import read_container
from melcodec.training.loop import LAST, Callbacks
from melcodec.training.state import KIND, state_paths
from tests.training.test_loop import corpus, equal_runs, metrics, train  # noqa: F401 - a fixture

ADVERSARY = (
    *("objective.adversarial=0.1", "objective.feature_matching=0.5", "objective.discriminator.channels=[4, 4]"),
    *("train.log_every=1", "train.steps=4", "train.save_every=1", "train.valid_every=4"),
)
LOSSES = {"adversarial", "feature_matching", "discriminator"}


def test_it_starts_at_its_step(corpus, tmp_path):  # noqa: F811
    train(tmp_path, corpus, *ADVERSARY, "objective.discriminator.start_step=2")
    lines = metrics(tmp_path, "train")
    assert [line.keys() >= LOSSES for line in lines] == [False, False, True, True]
    assert lines[-1]["loss"] == pytest.approx(
        lines[-1]["mse"] + 0.25 * lines[-1]["commitment"] + 0.1 * lines[-1]["adversarial"] + 0.5 * lines[-1]["feature_matching"],
        rel=1e-5,
    )


def test_a_stopped_run_with_a_discriminator_ends_with_the_same_bytes(corpus, tmp_path):  # noqa: F811
    train(tmp_path / "whole", corpus, *ADVERSARY)
    for _ in range(4):
        steps = iter(range(1))
        calls = Callbacks(should_stop=lambda steps=steps: next(steps, None) is None)
        train(tmp_path / "parts", corpus, *ADVERSARY, calls=calls)
    equal_runs(tmp_path / "parts", tmp_path / "whole")
    _, tensors = read_container(state_paths(tmp_path / "whole")[0], KIND)
    assert any(name.startswith("adversary.layers") for name in tensors)
    assert any(name.startswith("adversary_optimizer.0.") for name in tensors)


def test_accumulated_parts_are_one_batch_for_the_discriminator_too(corpus, tmp_path):  # noqa: F811
    settings = (*ADVERSARY, "train.steps=1", "train.valid_every=1", "data.batch_size=4", "data.crop_frames=96")
    train(tmp_path / "whole", corpus, *settings)
    train(tmp_path / "parts", corpus, *settings, "train.accumulate=4")
    one, other = (read_container(state_paths(tmp_path / name)[0], KIND)[1] for name in ("whole", "parts"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=2e-3, atol=3e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_tuning_the_decoder_keeps_the_fingerprint(corpus, tmp_path, decay):  # noqa: F811
    train(tmp_path / "first", corpus)
    first = load_checkpoint(tmp_path / "first" / LAST)
    train(tmp_path / "tuned", corpus, *ADVERSARY, "train.tune=decoder", f"train.weight_ema={decay}", init=first)
    tuned = load_checkpoint(tmp_path / "tuned" / LAST)
    assert tuned.fingerprint == first.fingerprint
    changed = {name for name in first.tensors if not torch.equal(first.tensors[name], tuned.tensors[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    assert all(line["agreement"] == 1 for line in metrics(tmp_path / "tuned", "valid"))
