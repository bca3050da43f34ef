"""train, as a user types it: from a folder to a checkpoint that encodes; stopped, continued, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

SHORT = ["--preset", "tiny", "--device", "cpu", "--set", "train.steps=20", "--set", "train.valid_every=10"]


def weights(folder):
    return load_file(folder / "last.safetensors")


def test_a_folder_becomes_a_codec(cli, speech_folder, examples, tmp_path):
    status, out, err = cli("train", speech_folder, *SHORT, "-o", "run")
    assert (status, out) == (0, ""), err
    assert "5 files" in err  # one is held out
    assert "step 20: validation log-mel L1" in err
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"config.toml", "metrics.jsonl", "best.safetensors", "last.safetensors", "state.safetensors", "tensorboard"}
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "valid"] == [10, 20]
    assert cli("encode", examples["lj_en"], "-o", "c.npy", "--checkpoint", "run/best.safetensors").status == 0
    assert np.load(tmp_path / "c.npy").shape == (1, 112)


def test_the_default_run_folder_is_named_after_data_and_preset(cli, speech_folder, tmp_path):
    assert cli("train", speech_folder, *SHORT).status == 0
    assert (tmp_path / "checkpoints" / f"{speech_folder.name}-tiny" / "best.safetensors").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_continued_equals_undisturbed(cli, speech_folder, tmp_path, number):
    # small intervals, so that the first line comes soon after the first step
    settings = [*SHORT, "--set", "train.log_every=1", "--set", "train.steps=40"]
    command = [sys.executable, "-m", "melcodec", "train", str(speech_folder), *settings, "-o", "stopped"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ)
    metrics = tmp_path / "stopped/metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        pass
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number, err
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert cli("train", speech_folder, *settings, "-o", "stopped").status == 0
    assert cli("train", speech_folder, *settings, "-o", "undisturbed").status == 0
    first, second = weights(tmp_path / "stopped"), weights(tmp_path / "undisturbed")
    assert all(torch.equal(first[key], second[key]) for key in second)
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if '"kind": "train"' in line]
    assert steps == list(range(1, 41))


def test_other_settings_are_refused_with_the_key_named(cli, refused, speech_folder):
    cli("train", speech_folder, *SHORT, "-o", "run")
    err = refused("train", speech_folder, *SHORT, "-o", "run", "--set", "train.optimizer.lr=1e-5")
    assert "train.optimizer.lr 0.001 -> 1e-05" in err
    assert cli("train", speech_folder, *SHORT, "-o", "run", "--set", "train.steps=22").status == 0  # longer is fine


def test_a_config_file_replaces_the_preset(cli, speech_folder, tmp_path):
    cli("train", speech_folder, *SHORT, "-o", "run")
    (tmp_path / "mine.toml").write_text((tmp_path / "run/config.toml").read_text())
    assert cli("train", speech_folder, "--config", "mine.toml", "--device", "cpu").status == 0
    first = weights(tmp_path / "run")
    second = weights(tmp_path / "checkpoints" / f"{speech_folder.name}-mine")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_mel_stats_become_the_norms(cli, speech_folder, tmp_path):
    cli("mel-stats", speech_folder, "-o", "norms.pth")
    assert cli("train", speech_folder, *SHORT, "-o", "run", "--mel-stats", "norms.pth").status == 0
    cli("export-xtts", "run/last.safetensors", "-o", "xtts")
    norms = torch.load(tmp_path / "norms.pth", weights_only=True)
    assert torch.equal(torch.load(tmp_path / "xtts/mel_stats.pth", weights_only=True), norms)


def test_refusals(refused, speech_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no audio files" in refused("train", "empty", *SHORT)
    assert "no such file" in refused("train", "missing", *SHORT)
    assert "did you mean 'tiny'" in refused("train", speech_folder, "--preset", "tiney")
    assert "did you mean 'steps'" in refused("train", speech_folder, *SHORT, "--set", "train.step=3")
    (tmp_path / "text.toml").write_text("not toml at all [")
    assert "not readable as TOML" in refused("train", speech_folder, "--config", "text.toml")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.wav").write_text("not sound")
    assert "no file of the corpus could be read" in refused("train", "bad", *SHORT)


def test_too_little_speech(cli, speech_folder):
    status, _, err = cli("train", speech_folder, *SHORT, "--set", "train.data.crop_frames=4000")
    assert status == 1
    assert "error: the corpus holds 494 frames of speech, less than one crop of 4000\nhint: " in err


def test_bad_files_are_named_and_left_out(cli, speech_folder, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in speech_folder.rglob("*.wav"):
        (folder / f"{path.parent.name}{path.name}").write_bytes(path.read_bytes())
    (folder / "zz.wav").write_text("not sound")
    status, _, err = cli("train", folder, *SHORT, "-o", "run")
    assert status == 0
    assert "left out: " in err
    assert "zz.wav: not readable as audio" in err
