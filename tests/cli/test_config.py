"""melcodec config: listed, shown, checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from melcodec.config import (
    RECIPE_GROUPS,
    RunConfig,
    kinds_of,
    load_preset,
    parse,
    preset_texts,
    read_toml,
    to_toml,
    with_overrides,
)


def test_list_names_presets_and_recipes_with_their_first_comments(cli):
    status, out, err = cli("config", "list")
    lines = [line.split(None, 2) for line in out.splitlines()]
    assert status == 0
    assert [(kind, name) for kind, name, _ in lines] == [
        *(("preset", name) for name in ("base", "finetune", "small", "tiny", "xtts")),
        *(("optimizer", name) for name in ("adam", "adamw", "finetune")),
        *(("objective", name) for name in ("adversarial", "l1", "mse", "spectral-norm")),
        *(("quantizer", name) for name in preset_texts("quantizer")),
        *(("backbone", name) for name in preset_texts("backbone")),
    ]
    assert ["preset", "xtts", "the size of XTTS v2: 51.6 M parameters"] in lines
    assert "melcodec config show base > run.toml" in err


def test_list_for_programs(cli):
    found = json.loads(cli("config", "list", "--json").out)
    assert found["preset"]["xtts"] == "the size of XTTS v2: 51.6 M parameters"
    assert list(found["optimizer"]) == ["adam", "adamw", "finetune"]


@pytest.mark.parametrize("group", ["model.quantizer", "model.backbone", "vocoder"])
def test_show_explains_every_kind_of_a_group(cli, group):
    status, out, _ = cli("config", "show", group)
    assert status == 0
    for kind in kinds_of(group):
        assert f'\n[{group}]\nkind = "{kind}"' in out
        if group != "vocoder":  # a recipe by the name of the kind
            assert kind in preset_texts(group.rpartition(".")[2])
    assert [line for line in out.splitlines() if " = " in line and "# " not in line] == []


@pytest.mark.parametrize("group", RECIPE_GROUPS)
def test_every_recipe_can_be_taken(group):
    for name in preset_texts(group.rpartition(".")[2]):
        with_overrides(RunConfig(), [f"{group}={name}"])


@pytest.mark.parametrize("name", ["base", "xtts"])
def test_what_show_prints_is_a_file_for_config(cli, tmp_path, name):
    status, out, err = cli("config", "show", name)
    assert (status, err) == (0, "")
    (tmp_path / "run.toml").write_text(out)
    assert parse(RunConfig, read_toml(tmp_path / "run.toml"), "run.toml") == load_preset(name)
    assert out == to_toml(load_preset(name), comments=True)
    assert out.endswith("\n")


def test_show_with_settings(cli, tmp_path):
    words = ["model.backbone.hidden=32", "optimizer=finetune", "optimizer.lr=1e-4"]
    out = cli("config", "show", "tiny", *(part for word in words for part in ("--set", word))).out
    (tmp_path / "run.toml").write_text(out)
    assert parse(RunConfig, read_toml(tmp_path / "run.toml"), "") == with_overrides(load_preset("tiny"), words)


def test_check_prints_what_differs_as_toml(cli, tmp_path):
    (tmp_path / "run.toml").write_text("[train]\nsteps = 7\n[model.backbone]\nhidden = 256\n[augment]\nspeeds = [0.9, 1.0]\n")
    status, out, err = cli("config", "check", "run.toml")
    assert status == 0
    assert out == "augment.speeds = [0.9, 1.0]  # default: [1.0]\ntrain.steps = 7  # default: 20000\n"
    assert err == "run.toml: fine, 2 settings differ from the defaults\n"
    (tmp_path / "again.toml").write_text(out)
    assert cli("config", "check", "again.toml").out == out


def test_refusals(refused, tmp_path):
    def check(text):
        (tmp_path / "x.toml").write_text(text)
        return refused("config", "check", "x.toml")

    assert check("[optimizer]\nlearning_rat = 3\n").startswith("error: x.toml: unknown setting 'optimizer.learning_rat'\n")
    assert check("[train]\nstepz = 3\n") == "error: x.toml: unknown setting 'train.stepz'\nhint: did you mean 'steps'?\n"
    assert "x.toml: train.steps: Input should be greater than or equal to 1, not 0" in check("[train]\nsteps = 0\n")
    assert "not readable as TOML" in check("[train\n")
    assert "was made by a newer melcodec" in check("version = 99\n[new]\nkey = 1\n")
    assert "none.toml: no such file" in refused("config", "check", "none.toml")
    assert refused("config", "show", "xtss") == "error: no preset 'xtss'\nhint: did you mean 'xtts'?\n"
    assert "no optimizer recipe 'sgd'" in refused("config", "show", "base", "--set", "optimizer=sgd")
    assert "unknown setting 'train.stepz'" in refused("config", "show", "base", "--set", "train.stepz=3")


@pytest.mark.parametrize("command", [["list"], ["show", "base"], ["check", "run.toml"]])
def test_the_answer_is_there_at_once(command, tmp_path):
    """Nothing slow is imported, and the program's own time is short whatever else the machine does."""
    (tmp_path / "run.toml").touch()
    script = """
import os, sys
from melcodec.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
slow = {"torch", "torchaudio", "librosa", "matplotlib", "numpy", "scipy"} & set(sys.modules)
assert not slow, slow
"""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", script, "config", *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    # 0.25 s of a quiet core; a torch import takes 2 s
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0
