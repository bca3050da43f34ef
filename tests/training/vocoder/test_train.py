"""A tiny vocoder is trained, stopped, resumed, loaded and used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from melcodec.config import MelConfig, with_overrides
from melcodec.errors import MelcodecError
from melcodec.manifests.build import find_utterances
from melcodec.training.loop import Callbacks
from melcodec.training.vocoder.loop import VocoderTrainer
from melcodec.training.vocoder.run import train_vocoder
from melcodec.training.vocoder.settings import VocoderRunConfig
from melcodec.training.vocoder.waves import INDEX, WaveCrops, cache_waves
from melcodec.vocoder.file import load_vocoder
from melcodec.vocoder.learned import LearnedVocoder

TINY = [
    *("network.width=16", "network.hidden=32", "network.num_blocks=2", "network.nmf_iterations=2"),
    *("data.batch_size=2", "data.crop_frames=16", "train.steps=20", "train.valid_every=10", "train.save_every=5"),
    *("train.log_every=4", "train.valid_clips=1", "train.refine=1", "train.precision=float32"),
    *("optimizer.warmup_steps=2", "optimizer.lr=2e-3", "objective.adversary_start=10", "objective.adversary_channels=2"),
]


def settings(*more):
    return with_overrides(VocoderRunConfig(), [*TINY, *more])


def metrics(folder, kind):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("time", "audio_per_second")}
        for line in lines
        if line["kind"] == kind
    ]


@pytest.fixture(scope="module")
def run(speech_folder, tmp_path_factory):
    """The folder of an undisturbed run of 20 steps; the discriminators join after 10."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train_vocoder([speech_folder], settings(), folder, "cpu")
    return folder


def test_a_run_reports_every_term(run):
    lines = metrics(run, "train")
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20]
    names = {"magnitude", "phase", "stft", "mel"}
    assert set(lines[0]) == {"kind", "step", "loss", "grad_norm", "lr"} | names
    assert set(lines[-1]) == set(lines[0]) | {"adversarial", "feature_matching", "discriminator"}
    assert [line["step"] for line in metrics(run, "valid")] == [10, 20]


def test_stopped_and_resumed_is_the_same_to_the_byte(run, speech_folder, tmp_path):
    """Also from between two states and two metric lines, and with the discriminators under way."""
    for steps in (7, 5):
        count = 0

        def stop(steps=steps):
            nonlocal count
            count += 1
            return count > steps

        state = train_vocoder([speech_folder], settings(), tmp_path, "cpu", Callbacks(should_stop=stop))
        assert state.progress.step < 20
    train_vocoder([speech_folder], settings(), tmp_path, "cpu")
    for name in ("best.safetensors", "last.safetensors", "states/step-00000020.safetensors"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes(), name
    assert metrics(tmp_path, "train") == metrics(run, "train")
    assert metrics(tmp_path, "valid") == metrics(run, "valid")


def test_a_killed_run_goes_on_from_its_last_state(run, speech_folder, tmp_path):
    class KilledError(Exception):
        pass

    def die(kind, step, values):
        if step == 12:
            raise KilledError

    with pytest.raises(KilledError):
        train_vocoder([speech_folder], settings(), tmp_path, "cpu", Callbacks(report=die))
    assert [path.name for path in sorted((tmp_path / "states").iterdir())] == [
        "step-00000005.safetensors",
        "step-00000010.safetensors",
    ]
    (tmp_path / "states/step-00000010.safetensors").write_bytes(b"damaged")
    said = []
    train_vocoder([speech_folder], settings(), tmp_path, "cpu", Callbacks(say=said.append))
    assert any("the state before it is taken" in line for line in said)
    assert (tmp_path / "last.safetensors").read_bytes() == (run / "last.safetensors").read_bytes()
    assert metrics(tmp_path, "train") == metrics(run, "train")


def test_what_was_trained_makes_sound(run, golden):
    made = load_vocoder(run / "last.safetensors")
    assert made.mel == MelConfig()
    assert made.provenance["steps"] == 20
    assert made.provenance["objective"]["adversary_start"] == 10
    network = made.build()
    wav = torch.from_numpy(golden["0.wav"])[None, :20_000]
    output = LearnedVocoder(network, 4)(network.frontend(wav), 20_000)
    assert output.shape == wav.shape
    assert 0.3 < output.square().mean().sqrt() / wav.square().mean().sqrt() < 1.5
    restored = torch.cat([value.flatten() for value in made.tensors.values()])
    assert torch.equal(restored, restored.half().float())


def test_other_settings_and_another_corpus_are_refused(run, speech_folder):
    with pytest.raises(MelcodecError, match=r"other settings: network.width 16 -> 8"):
        train_vocoder([speech_folder], settings("network.width=8"), run, "cpu")
    with pytest.raises(MelcodecError, match="corpus has changed"):
        train_vocoder([speech_folder / "a"], settings(), run, "cpu")


def test_a_run_begins_with_the_weights_of_another(run, speech_folder, tmp_path):
    still = ("train.steps=1", "optimizer.lr=1e-12", "optimizer.weight_decay=0")
    train_vocoder([speech_folder], settings(f'train.init="{run}"', *still), tmp_path / "a", "cpu")
    began = load_vocoder(tmp_path / "a" / "last.safetensors")
    for key, value in load_vocoder(run / "best.safetensors").tensors.items():
        torch.testing.assert_close(began.tensors[key], value, atol=1e-3, rtol=1e-3)
    assert began.provenance["init"]["steps"] in (10, 20)
    with pytest.raises(MelcodecError, match=r"a vocoder with other settings: network.width 16 -> 8"):
        train_vocoder([speech_folder], settings(f'train.init="{run}"', "network.width=8"), tmp_path / "b", "cpu")


@pytest.fixture(scope="module")
def waves(speech_folder):
    return cache_waves(find_utterances([speech_folder]), 22_050)


def first_steps(waves, *more, steps=1):
    """Scalars of each of the first steps, without a run folder."""
    config = settings("objective.adversary_start=0", *more)
    trainer = VocoderTrainer(config, waves, waves, Path(), torch.device("cpu"), Callbacks())
    return [trainer.step() for _ in range(steps)]


@pytest.fixture(scope="module")
def plain(waves):
    return first_steps(waves, steps=2)


def test_it_learns(waves, monkeypatch):
    """One batch again and again: every term falls."""
    config = settings("objective.adversary_start=99", "network.width=32", "optimizer.lr=1e-2")
    trainer = VocoderTrainer(config, waves, waves, Path(), torch.device("cpu"), Callbacks())
    batch = trainer.crops.batch(3)
    monkeypatch.setattr(trainer.crops, "batch", lambda step: batch)
    first, *_, last = [trainer.step() for _ in range(30)]
    for name in ("magnitude", "phase", "stft", "mel"):
        assert last[name] < 0.9 * first[name], name


@pytest.mark.parametrize("name", ["magnitude", "phase", "stft", "mel", "adversarial", "feature_matching"])
def test_every_term_has_its_weight(waves, plain, name):
    [small] = first_steps(waves, f"objective.{name}=0.05")
    assert small[name] == pytest.approx(plain[0][name] * 0.05 / getattr(VocoderRunConfig().objective, name), rel=1e-3)
    assert small["loss"] - small[name] == pytest.approx(plain[0]["loss"] - plain[0][name], rel=1e-4)


def test_without_an_adversary_there_is_none(waves):
    [scalars] = first_steps(waves, "objective.adversarial=0", "objective.feature_matching=0")
    assert "discriminator" not in scalars
    before, after = first_steps(waves, "objective.adversary_start=1", steps=2)
    assert "discriminator" not in before
    assert "discriminator" in after
    # magnitudes and phases alone need no wave
    [scalars] = first_steps(waves, "objective.stft=0", "objective.mel=0", "objective.adversary_start=9")
    assert set(scalars) == {"loss", "magnitude", "phase", "grad_norm", "lr"}


@pytest.mark.parametrize(
    "change",
    [
        *("data.gain_db=0", "train.seed=1", "train.precision=bfloat16", "data.batch_size=3", "data.crop_frames=24"),
        *("objective.adversary_lr=1e-2", "objective.adversary_channels=3", "optimizer.lr=1e-2"),
    ],
)
def test_every_setting_changes_the_training(waves, plain, change):
    assert first_steps(waves, change, steps=2)[1]["loss"] != plain[1]["loss"]


def test_validation_hears_as_many_clips_and_iterations_as_asked(speech_folder, tmp_path):
    found = {}
    for change in ("train.refine=1", "train.refine=6", "train.valid_clips=3"):
        train_vocoder([speech_folder], settings("train.steps=1", "data.valid_fraction=0.5", change), tmp_path / change, "cpu")
        found[change] = metrics(tmp_path / change, "valid")[0]
    one, six, three = found.values()
    assert six["stft_refined"] < one["stft_refined"]
    assert six["stft_alone"] == one["stft_alone"] != three["stft_alone"]


def test_waves_are_decoded_once_and_a_stopped_build_goes_on(speech_folder, golden, tmp_path, monkeypatch):
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path))
    utterances = find_utterances([speech_folder])
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nonsense")
    utterances.insert(2, find_utterances([bad])[0])

    def stop(done, total):
        assert total == 7
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_waves(utterances, 22_050, stop)
    [folder] = (tmp_path / "waves").iterdir()
    with (folder / "waves.i16").open("ab") as waves, (folder / INDEX).open("a") as index:
        waves.write(b"half an utterance ")
        index.write('{"id": "cut sh')
    seen = []
    cache = cache_waves(utterances, 22_050, lambda done, total: seen.append(done))
    assert seen == [5, 6, 7]
    assert list(cache.failures) == ["bad"]
    assert "bad.wav" in cache.failures["bad"]
    whole = np.concatenate([golden[f"{index}.wav"] for index in range(3)])
    np.testing.assert_allclose(np.concatenate([cache.wave(index) for index in range(6)]), whole, atol=2 / 32_767)
    seen.clear()
    cache_waves(utterances, 22_050, lambda done, total: seen.append(done))
    assert seen == []
    with pytest.raises(MelcodecError, match="no file of the corpus could be read"):
        cache_waves([utterances[2]], 22_050)


def test_crops_are_a_function_of_seed_and_step(waves):
    cache = waves
    crops = WaveCrops(cache, 4_000, 8, gain_db=6.0, seed=3)
    assert torch.equal(crops.batch(5), WaveCrops(cache, 4_000, 8, gain_db=6.0, seed=3).batch(5))
    for other in (WaveCrops(cache, 4_000, 8, gain_db=6.0, seed=4).batch(5), crops.batch(6)):
        assert not torch.equal(crops.batch(5), other)
    as_they_are = WaveCrops(cache, 4_000, 8, seed=3).batch(5)
    ratio = crops.batch(5).abs().amax(1) / as_they_are.abs().amax(1)
    assert ratio.min() < 0.9
    assert 1.1 < ratio.max() <= 2.0
    assert crops.batch(5).abs().max() <= 1
    # each crop is a stretch of one utterance; a short one is followed by zeros
    samples = np.concatenate([cache.wave(index) for index in range(len(cache.ids))])
    for crop in as_they_are.numpy():
        places = np.flatnonzero(np.isclose(samples[: len(samples) - 4_000], crop[0], atol=1e-6))
        assert any(np.allclose(samples[place : place + 4_000], crop, atol=1e-6) for place in places)
    long = WaveCrops(cache, 40_000, 2).batch(0)
    assert (long[:, -1_000:] == 0).all()
