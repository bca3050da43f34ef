from __future__ import annotations

import json

import pytest

from melcodec.config import (
    ConvConfig,
    EMAConfig,
    MelConfig,
    ModelConfig,
    RunConfig,
    load_preset,
    parse,
    preset_names,
    read_toml,
    to_toml,
    with_overrides,
    xtts_mel_norms,
)
from melcodec.errors import MelcodecError


def refusal(call, *args) -> MelcodecError:
    with pytest.raises(MelcodecError) as caught:
        call(*args)
    return caught.value


@pytest.mark.parametrize("name", ["base", "small", "tiny", "xtts"])
def test_presets(name):
    assert name in preset_names()
    config = load_preset(name)
    assert config.model.mel == MelConfig()  # every preset keeps the mel of XTTS
    assert (config.model.quantizer.dim, config.model.quantizer.codebook_size) == ((16, 64) if name == "tiny" else (512, 1024))
    assert config.model.backbone.hidden == {"base": 256, "small": 128, "tiny": 16, "xtts": 512}[name]


def test_there_is_no_preset_beyond_the_tested_ones():
    assert preset_names() == ["base", "small", "tiny", "xtts"]


def test_wrong_preset_names_the_nearest_or_all():
    assert refusal(load_preset, "smal").hint == "did you mean 'small'?"
    assert refusal(load_preset, "???").hint == "presets: base, small, tiny, xtts"


@pytest.mark.parametrize("name", ["base", "small", "tiny", "xtts"])
def test_toml_and_json_round_trip(name, tmp_path):
    config = load_preset(name)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert parse(RunConfig, read_toml(path), "file") == config
    assert parse(RunConfig, json.loads(json.dumps(config.model_dump())), "json") == config


def test_toml_of_values_far_from_the_defaults():
    config = with_overrides(
        RunConfig(), ["optimizer.lr=1e-20", "optimizer.betas=[0.5, 0.75]", "train.seed=4294967295"]
    )
    assert with_overrides(RunConfig(), []) == RunConfig()
    assert "lr = 1e-20\nbetas = [0.5, 0.75]\n" in to_toml(config)


@pytest.mark.parametrize(
    ("data", "key", "hint"),
    [
        ({"model": {"backbone": {"hiden": 3}}}, "model.backbone.hiden", "did you mean 'hidden'?"),
        ({"train": {"batchsize": 3}}, "train.batchsize", "did you mean 'batch_size'?"),
        ({"trian": {}}, "trian", "did you mean 'train'?"),
        ({"zzzzz": 1}, "zzzzz", None),
    ],
)
def test_unknown_key(data, key, hint):
    error = refusal(parse, RunConfig, data, "run.toml")
    assert (error.message, error.hint) == (f"run.toml: unknown setting '{key}'", hint)


@pytest.mark.parametrize(
    "assignment",
    [
        "model.backbone.hidden=0",
        "model.backbone.num_blocks=-1",
        "model.backbone.kind=transformer",
        "model.quantizer.dim=0",
        "model.quantizer.codebook_size=1",
        "model.quantizer.codebook_size=65537",
        "model.quantizer.decay=1",
        "model.quantizer.eps=0",
        "model.mel.sample_rate=999",
        "model.mel.n_fft=8",
        "model.mel.hop_length=0",
        "model.mel.n_mels=0",
        "model.mel.f_min=-1",
        "model.mel.f_max=0",
        "model.mel.floor=0",
        "train.steps=0",
        "train.steps=1.5",
        "train.valid_every=0",
        "train.save_every=0",
        "train.log_every=0",
        "train.precision=float8",
        "train.seed=-1",
        "train.seed=4294967296",
        "data.crop_frames=130",
        "data.crop_frames=0",
        "data.batch_size=0",
        "data.valid_fraction=1",
        "augment.gain_db=-1",
        "data.num_workers=-1",
        "codebook.start=random",
        "codebook.kmeans_iterations=0",
        "codebook.revive=always",
        "codebook.revive_below=-1",
        "optimizer.lr=0",
        "optimizer.lr=inf",
        "optimizer.lr=nan",
        "optimizer.lr=fast",
        "optimizer.betas=[0.9]",
        "optimizer.betas=[0.9, 1.0]",
        "optimizer.weight_decay=-1",
        "optimizer.grad_clip=0",
        "optimizer.warmup_steps=-1",
        "optimizer.schedule=linear",
        "optimizer.final_lr_fraction=2",
        "objective.reconstruction=l3",
        "objective.commitment_weight=-1",
    ],
)
def test_wrong_value_is_named(assignment):
    error = refusal(with_overrides, RunConfig(), [assignment])
    assert error.message.startswith(f"--set: {assignment.partition('=')[0]}")


@pytest.mark.parametrize("assignment", ["model.mel.f_max=11026", "model.mel.f_min=8000", "model.mel.sample_rate=8000"])
def test_bands_must_lie_below_half_the_sample_rate(assignment):
    error = refusal(with_overrides, RunConfig(), [assignment])
    assert error.message == "--set: model.mel: f_min < f_max <= sample_rate / 2 must hold"


@pytest.mark.parametrize("assignment", ["model.mel.hop_length=512", "model.mel.n_fft=512"])
def test_hops_must_be_shorter_than_half_a_window(assignment):
    error = refusal(with_overrides, RunConfig(), [assignment])
    assert error.message == "--set: model.mel: hop_length < n_fft / 2 must hold"
    with_overrides(RunConfig(), ["model.mel.hop_length=511"])


def test_bands_of_a_mel_alone():
    assert (
        refusal(parse, MelConfig, {"f_max": 1.0, "f_min": 2.0}, "here").message
        == "here: f_min < f_max <= sample_rate / 2 must hold"
    )


def test_overrides():
    config = with_overrides(
        RunConfig(),
        [
            "model.backbone.hidden=32",
            "train.precision=bfloat16",
            'codebook.start="stock"',
            " optimizer.lr = 1e-4 ",
            "train.steps=1e3",
        ],
    )
    assert config.model.backbone.hidden == 32
    assert config.train.precision == "bfloat16"
    assert config.codebook.start == "stock"
    assert config.optimizer.lr == 1e-4
    assert config.train.steps == 1000
    # the last one wins, and what was not named stays
    twice = with_overrides(load_preset("tiny"), ["train.steps=7", "train.steps=8"])
    assert twice.train.steps == 8
    assert twice.model == load_preset("tiny").model


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.steps", "--set train.steps: not of the form key=value"),
        ("train.steps.more=3", "--set train.steps.more=3: 'steps' is a value, not a group of settings"),
        ("train.stepz=3", "--set: unknown setting 'train.stepz'"),
        ("trane.steps=3", "--set: unknown setting 'trane'"),
        ("=3", "--set: unknown setting ''"),
    ],
)
def test_wrong_override(assignment, message):
    assert refusal(with_overrides, RunConfig(), [assignment]).message == message


def test_settings_cannot_change_once_made():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().train.steps = 3


def test_read_toml(tmp_path):
    good, bad, binary = tmp_path / "good.toml", tmp_path / "bad.toml", tmp_path / "binary.toml"
    good.write_text("[train]\nsteps = 3\n")
    bad.write_text("[train\n")
    binary.write_bytes(b"\xff\xfe\x00")
    assert read_toml(good) == {"train": {"steps": 3}}
    assert refusal(read_toml, tmp_path / "none.toml").message == f"{tmp_path / 'none.toml'}: no such file"
    for path in (bad, binary, tmp_path):
        assert refusal(read_toml, path).message.startswith(f"{path}: not readable as TOML")


def test_defaults_are_those_of_xtts_but_for_the_width():
    assert ModelConfig() == ModelConfig(
        mel=MelConfig(sample_rate=22_050, n_fft=1024, hop_length=256, n_mels=80, f_min=0.0, f_max=8_000.0, floor=1e-5),
        backbone=ConvConfig(hidden=256, num_blocks=3),
        quantizer=EMAConfig(dim=512, codebook_size=1024, decay=0.99, eps=1e-5),
    )


def test_norms_are_those_of_xtts(golden_folder):
    import torch

    norms = torch.load(golden_folder / "mel_stats.pth", weights_only=True)
    assert torch.equal(torch.tensor(xtts_mel_norms()), norms)
