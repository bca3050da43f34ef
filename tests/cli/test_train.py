"""train, as a user types it: from a folder to a checkpoint that encodes; stopped, continued, refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from melcodec.cli import train as train_command
from melcodec.config import load_preset, with_overrides

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


@pytest.mark.parametrize("cue", ["starting", "computing"])
def test_stopped_while_mels_are_computed(speech_folder, tmp_path, cue):
    """As a terminal does it: every process of the group hears Ctrl-C."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    for index in range(400):
        os.link(speech_folder / "a/0.wav", data / f"{index}.wav")
    settings = [*SHORT, "--set", "data.num_workers=2", "-o", "run"]
    command = [sys.executable, "-m", "melcodec", "train", str(data), *settings]
    environment = os.environ | {"MELCODEC_CACHE": str(cache)}
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, start_new_session=True)

    def reached() -> bool:
        if cue == "starting":
            return any(cache.rglob(".mels.*"))
        return any(path.stat().st_size for path in cache.rglob(".mels.*"))

    while child.poll() is None and not reached():
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "stopped while computing mels; the same command computes them anew\n")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.toml"]
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_the_bar_goes_when_the_mels_are_there(speech_folder, tmp_path):
    """On a terminal: it must not be drawn again while the model trains."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "melcodec", "train", str(speech_folder), *SHORT, "-o", "run"]
    environment = os.environ | {"MELCODEC_CACHE": str(tmp_path / "cache"), "TERM": "xterm", "COLUMNS": "120"}
    child = subprocess.Popen(command, stderr=theirs, cwd=tmp_path, env=environment)
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # what Linux says when the other end of a terminal is closed
        while part := os.read(ours, 65_536):
            drawn += part
    os.close(ours)
    assert child.wait(60) == 0
    before, after = drawn.split(b"to train on")
    assert b"computing mels" in before
    assert b"computing mels" not in after


def test_time_left_counts_from_the_first_line(monkeypatch, capsys):
    """The cache may have taken an hour; it says nothing about the steps to come."""
    clock = iter([1000.0, 1005.0, 1020.0, 1060.0])
    monkeypatch.setattr(train_command.time, "monotonic", lambda: next(clock))
    reporter = train_command.Reporter(with_overrides(load_preset("tiny"), ["train.steps=360"]))
    for step in (50, 60, 90, 170):  # 2 steps a second: the second line comes too soon to be said
        reporter.report("train", step, {"loss": 1.0, "revived": 0, "audio_per_second": 100.0})
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["step 90/360", "step 170/360"]
    assert [line.rpartition(", ")[2] for line in said] == ["2 min left", "2 min left"]


def test_bands_that_the_norms_do_not_have_are_refused_at_once(cli, refused, speech_folder, tmp_path):
    err = refused("train", speech_folder, *SHORT, "--set", "model.mel.n_mels=64")
    assert "mel norms of shape (80,), not (64,)\nhint: give norms of as many bands with --mel-stats" in err
    np.save(tmp_path / "norms.npy", np.linspace(-9, -2, 64, dtype=np.float32))
    status, _, err = cli("train", speech_folder, *SHORT, "--set", "model.mel.n_mels=64", "--mel-stats", "norms.npy", "-o", "run")
    assert status == 0, err
    assert "norms.npy: mel norms of shape (64,), not (80,)" in refused("train", speech_folder, *SHORT, "--mel-stats", "norms.npy")


def test_other_settings_are_refused_with_the_key_named(cli, refused, speech_folder):
    cli("train", speech_folder, *SHORT, "-o", "run")
    err = refused("train", speech_folder, *SHORT, "-o", "run", "--set", "optimizer.lr=1e-5")
    assert "optimizer.lr 0.001 -> 1e-05" in err
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
    status, _, err = cli("train", speech_folder, *SHORT, "--set", "data.crop_frames=4000")
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
    (line,) = (tmp_path / "run/failures.jsonl").read_text().splitlines()
    failure = json.loads(line)
    assert failure["path"] == str(folder / "zz.wav")
    assert "not readable as audio" in failure["reason"]
    (folder / "zz.wav").unlink()
    assert cli("train", folder, *SHORT, "-o", "run").status == 0
    assert not (tmp_path / "run/failures.jsonl").exists()
