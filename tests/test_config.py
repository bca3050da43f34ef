from __future__ import annotations

import json

import pytest

from melcodec.config import (
    ConvConfig,
    EMAConfig,
    GradientConfig,
    MelConfig,
    ModelConfig,
    OptimizerConfig,
    ResidualConfig,
    RunConfig,
    kinds_of,
    load_preset,
    parse,
    preset_names,
    preset_texts,
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


PRESETS = {"base": 256, "finetune": 256, "small": 128, "tiny": 16, "xtts": 512}  # and their widths
RECIPES = ["adam", "adamw", "finetune"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    assert name in preset_names()
    config = load_preset(name)
    assert config.model.mel == MelConfig()  # every preset keeps the mel of XTTS
    assert (config.model.dim, config.model.quantizer.codebook_size) == ((16, 64) if name == "tiny" else (512, 1024))
    assert config.model.backbone.hidden == PRESETS[name]


def test_there_is_nothing_shipped_beyond_what_is_tested():
    assert preset_names() == list(PRESETS)
    assert list(preset_texts("optimizer")) == RECIPES
    assert preset_texts("train") == {}
    for text in [*preset_texts().values(), *preset_texts("optimizer").values()]:
        assert text.startswith("# ")  # what melcodec config list says about it


def test_finetune_is_gentle_and_leaves_the_codes_where_they_are():
    config = load_preset("finetune")
    assert config.optimizer == with_overrides(RunConfig(), ["optimizer=finetune"]).optimizer
    assert (config.train.steps, config.train.valid_every, config.codebook.revive) == (2000, 200, "none")


def test_wrong_preset_names_the_nearest_or_all():
    assert refusal(load_preset, "smal").hint == "did you mean 'small'?"
    assert refusal(load_preset, "???").hint == "presets: base, finetune, small, tiny, xtts"


@pytest.mark.parametrize("name", PRESETS)
def test_toml_and_json_round_trip(name, tmp_path):
    config = load_preset(name)
    path = tmp_path / "config.toml"
    for comments in (False, True):
        path.write_text(to_toml(config, comments), encoding="utf-8")
        assert parse(RunConfig, read_toml(path), "file") == config
    assert parse(RunConfig, json.loads(json.dumps(config.model_dump())), "json") == config


def test_toml_says_what_every_key_means_and_may_hold():
    lines = to_toml(RunConfig(), comments=True).splitlines()
    assert [line for line in lines if "=" in line and "  # " not in line] == []
    assert 'tune = "full"             # full | decoder | frozen-codebook; decoder keeps all codes valid' in lines
    assert "crop_frames = 128         # frames, a multiple of those of a code; 128 frames are 1.49 s" in lines
    assert "#" not in to_toml(RunConfig())


def test_toml_of_values_far_from_the_defaults():
    config = with_overrides(RunConfig(), ["optimizer.lr=1e-20", "optimizer.betas=[0.5, 0.75]", "train.seed=4294967295"])
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
        "model.backbone.kind=wavenet",
        "model.dim=0",
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
        "train.accumulate=0",
        "train.tune=encoder",
        "train.weight_ema=1",
        "train.samples=-1",
        "train.wandb=yes",
        "train.valid_minutes=0",
        "version=0",
        "data.crop_frames=130",
        "data.crop_frames=0",
        "data.batch_size=0",
        "data.valid_fraction=1",
        "data.split=random",
        "data.on_device=sometimes",
        "augment.gain_db=-1",
        "augment.speeds=[]",
        "augment.speeds=[1.0, 2.1]",
        "augment.time_scale=1",
        "augment.time_flip=1.1",
        "augment.band_masks=-1",
        "augment.band_mask_size=0",
        "augment.time_masks=-1",
        "augment.time_mask_size=0",
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
        "optimizer.kind=sgd",
        "optimizer.decay_fraction=0",
        "optimizer.step_every=0",
        "optimizer.step_factor=0",
        "optimizer.final_lr_fraction=2",
        "objective.commitment=-1",
        "objective.l1=-1",
        "objective.discriminator.lr=0",
        "train.keep_every=-1",
        "data.speaker_power=2",
        "augment.probability=2",
        "augment.band_warp=-1",
        "augment.equalize=-1",
        "augment.noise=2",
        "model.quantizer.code_dim=-1",
        "model.quantizer.temperature=-1",
    ],
)
def test_wrong_value_is_named(assignment):
    error = refusal(with_overrides, RunConfig(), [assignment])
    assert error.message.startswith(f"--set: {assignment.partition('=')[0]}")


def test_parts_of_a_batch_are_of_one_size():
    error = refusal(with_overrides, RunConfig(), ["train.accumulate=5"])
    assert error.message == "--set: data.batch_size must be a multiple of train.accumulate"
    assert with_overrides(RunConfig(), ["train.accumulate=8"]).train.accumulate == 8


def test_settings_of_a_newer_version_are_not_guessed_at():
    for more in ({}, {"teacher": {"lr": 1}}, {"train": {"stepz": 3}}):  # whatever that version knows
        error = refusal(parse, RunConfig, {"version": 2} | more, "run.toml")
        assert error.message == "run.toml: version 2 was made by a newer melcodec; this one reads up to 1"
    assert parse(RunConfig, {"version": 1}, "run.toml") == parse(RunConfig, {}, "run.toml")


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
    ("name", "values"),
    [
        ("adam", {"kind": "adam", "lr": 3e-4, "weight_decay": 0.0, "schedule": "constant"}),
        ("adamw", {"kind": "adamw", "lr": 3e-4, "betas": (0.9, 0.95), "weight_decay": 0.05}),
        ("finetune", {"kind": "adamw", "lr": 5e-6, "grad_clip": 0.5, "schedule": "constant", "warmup_steps": 100}),
    ],
)
def test_a_recipe_replaces_the_whole_group(name, values):
    """Whatever preset it meets, and what follows it on the command line still counts."""
    for preset in ("base", "tiny"):
        config = with_overrides(
            load_preset(preset), ["optimizer.step_every=7", f"optimizer={name}", "optimizer.final_lr_fraction=0.5"]
        )
        defaults = OptimizerConfig().model_dump()
        assert config.optimizer.model_dump() == defaults | values | {"final_lr_fraction": 0.5, "betas": config.optimizer.betas}
        assert config.train == load_preset(preset).train
    assert with_overrides(RunConfig(), [f'optimizer="{name}"', "optimizer.lr=0.5"]).optimizer.lr == 0.5


def test_a_recipe_that_is_not_there():
    error = refusal(with_overrides, RunConfig(), ["optimizer=adamww"])
    assert (error.message, error.hint) == ("no optimizer recipe 'adamww'", "did you mean 'adamw'?")
    assert refusal(with_overrides, RunConfig(), ["optimizer=???"]).hint == "optimizer recipes: adam, adamw, finetune"
    error = refusal(with_overrides, RunConfig(), ["model.backbone=wide"])
    recipes = "bimamba, conv, convnext, mamba, mlp, transformer-window, transformer, vqvae-2018"
    assert (error.message, error.hint) == ("no backbone recipe 'wide'", f"backbone recipes: {recipes}")
    error = refusal(with_overrides, RunConfig(), ["model.backbone.kind=wide"])
    kinds = "kinds: conv, vqvae-2018, convnext, transformer, mamba, mlp"
    assert (error.message, error.hint) == ("--set: model.backbone.kind: there is no 'wide'", kinds)
    error = refusal(with_overrides, RunConfig(), ["train=wide"])
    assert error.message == "--set train=wide: 'train' is a group of settings"
    assert error.hint == "set one of them: train.NAME=VALUE"


def test_another_kind_brings_its_own_settings_and_leaves_the_old_ones_behind():
    tiny = load_preset("tiny")
    gradient = with_overrides(tiny, ["model.quantizer.kind=gradient"]).model.quantizer
    assert gradient == GradientConfig()  # not the codebook size of the preset
    assert with_overrides(tiny, ["model.quantizer=gradient", "model.quantizer.codebook_size=32"]).model.quantizer.sizes == (32,)
    nested = ["model.quantizer=residual", "model.quantizer.stages=3", "model.quantizer.inner=gradient"]
    residual = with_overrides(tiny, [*nested, "model.quantizer.inner.codebook_size=16"]).model.quantizer
    assert residual == ResidualConfig(stages=3, inner=GradientConfig(codebook_size=16))
    assert residual.sizes == (16, 16, 16)
    assert with_overrides(tiny, ["model.quantizer=grouped", "model.quantizer.groups=5"]).model.quantizer.sizes == (1024,) * 5
    for key in ("model.quantizer.eps=1", "model.quantizer.inner=ema"):
        error = refusal(with_overrides, tiny, ["model.quantizer=gradient", key])
        assert error.message == f"--set: unknown setting '{key.partition('=')[0]}'"
        assert error.hint == "it belongs to another group, or to another kind of this one"


def test_settings_of_files_that_older_versions_wrote():
    old = {
        "model": {"quantizer": {"kind": "ema", "dim": 32, "codebook_size": 64, "decay": 0.9, "eps": 1e-5}},
        "objective": {"reconstruction": "smooth-l1", "commitment_weight": 0.5},
    }
    config = parse(RunConfig, old, "run.toml")
    assert (config.model.dim, config.model.quantizer.codebook_size) == (32, 64)
    assert (config.objective.smooth_l1, config.objective.mse, config.objective.l1, config.objective.commitment) == (1, 0, 0, 0.5)
    assert "'l3' is none of" in refusal(with_overrides, RunConfig(), ["objective.reconstruction=l3"]).message


def test_kinds_are_listed_with_their_settings():
    assert list(kinds_of("model.backbone")) == ["conv", "vqvae-2018", "convnext", "transformer", "mamba", "mlp"]
    assert list(kinds_of("model.quantizer")) == ["ema", "gradient", "fsq", "gumbel", "library", "residual", "grouped"]
    assert refusal(kinds_of, "model.mel").message == "'model.mel' has a single kind"
    assert refusal(kinds_of, "model.mal").message == "there is no group of settings 'model.mal'"


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
        quantizer=EMAConfig(codebook_size=1024, decay=0.99, eps=1e-5),
    )


def test_norms_are_those_of_xtts(golden_folder):
    import torch

    norms = torch.load(golden_folder / "mel_stats.pth", weights_only=True)
    assert torch.equal(torch.tensor(xtts_mel_norms()), norms)
