"""train, as a user types it: from a folder to a checkpoint that encodes; stopped, continued, refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from melcodec.cli import _steps
from melcodec.cli import train as train_command
from melcodec.cli._steps import Steps
from melcodec.config import load_preset
from melcodec.formats.checkpoint import load_checkpoint
from tests import forked

SHORT = [
    *("--preset", "tiny", "--device", "cpu", "--set", "train.steps=20", "--set", "train.valid_every=10"),
    *("--set", "train.samples=0", "--set", "data.num_workers=1"),
]


def weights(folder):
    return load_file(folder / "last.safetensors")


@pytest.mark.slow
def test_a_folder_becomes_a_codec(cli, speech_folder, examples, tmp_path):
    status, out, err = cli("train", speech_folder, *SHORT, "--set", "train.samples=1", "-o", "run")
    assert (status, out) == (0, ""), err
    assert "5 utterances" in err  # one is held out
    assert "step 20: validation log-mel L1" in err
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"config.toml", "metrics.jsonl", "best.safetensors", "last.safetensors", "states", "tensorboard"}
    assert names >= {"index.html", "samples", "usage.npz"}
    assert "run/index.html shows the run" in err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "valid"] == [0, 10, 20]
    assert cli("encode", examples["lj_en"], "-o", "c.npy", "--checkpoint", "run/best.safetensors").status == 0
    assert np.load(tmp_path / "c.npy").shape == (1, 112)


def test_the_default_run_folder_is_named_after_data_and_preset(cli, speech_folder, tmp_path):
    assert cli("train", speech_folder, *SHORT).status == 0
    assert (tmp_path / "checkpoints" / f"{speech_folder.name}-tiny" / "best.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_continued_equals_undisturbed(cli, speech_folder, tmp_path, number):
    # small intervals, so that the first line comes soon after the first step
    settings = [*SHORT, "--set", "train.log_every=1", "--set", "train.steps=40"]
    command = [sys.executable, "-m", "melcodec", "train", str(speech_folder), *settings, "-o", "stopped"]
    child = forked.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ)
    metrics = tmp_path / "stopped/metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        time.sleep(0.005)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number, err
    assert "the same command resumes from here" in err
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
    child = forked.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, start_new_session=True)

    def reached() -> bool:
        if cue == "starting":
            return any(cache.rglob("mels.f16"))
        return any(path.stat().st_size for path in cache.rglob("mels.f16"))

    while child.poll() is None and not reached():
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "stopped while computing mels; the same command resumes with them\n")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.toml"]
    assert not list(cache.rglob("done.json"))


def test_the_bar_goes_when_the_mels_are_there(speech_folder, tmp_path):
    """On a terminal: it must not be drawn again while the model trains."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "melcodec", "train", str(speech_folder), *SHORT, "-o", "run"]
    environment = os.environ | {"MELCODEC_CACHE": str(tmp_path / "cache"), "TERM": "xterm", "COLUMNS": "120"}
    child = forked.Popen(command, stderr=theirs, cwd=tmp_path, env=environment)
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


def test_a_line_after_the_first_step_and_then_one_a_minute(monkeypatch, capsys):
    """Time left counts steps alone: the cache and a validation may have taken an hour."""
    clock = iter([1000.0, 1500.0, 1504.0, 1508.0, 1544.0, 1564.0])
    monkeypatch.setattr(train_command, "_memory", lambda: "1 GiB")
    monkeypatch.setattr(_steps.time, "monotonic", lambda: next(clock))
    reporter = train_command.Reporter(load_preset("tiny"), Steps(1000))
    reporter.stepped(0, {})
    reporter.report("valid", 0, {"codes_used": 7, "perplexity": 5.0, "log_mel_l1": 1.0})
    for step in (1, 2, 11, 16):
        reporter.stepped(step, {"loss": 1.0})
    preparing, _, *said = capsys.readouterr().err.splitlines()
    assert preparing == "preparing the first step: starting the codebook and validating"
    assert [line.split(":")[0] for line in said] == ["step 1/1000", "step 16/1000"]
    assert said[0].endswith(": loss 1.0000, 7 codes used, 4.0 s a step, 1.5 min of audio/min, 1 GiB, 67 min left")
    assert said[1].endswith(", 66 min left")


def test_the_first_loss_is_seen_at_once_when_piped(cli, speech_folder):
    _, _, err = cli("train", speech_folder, *SHORT, "-o", "run")
    lines = [line for line in err.splitlines() if line.startswith("step ")]
    assert lines[0].startswith("step 0: validation")
    assert re.fullmatch(r"step 1/20: loss \d+\.\d+, .* left", lines[1])


@pytest.mark.parametrize("tune", ["decoder", "frozen-codebook"])
def test_a_part_is_tuned_of_a_checkpoint_only(refused, speech_folder, tmp_path, tune):
    for words in (["--tune", tune], ["--set", f"train.tune={tune}"]):
        err = refused("train", speech_folder, *SHORT, *words, "-o", "run")
        assert f"--tune {tune} keeps the " in err
        assert "hint: name one with --init: a file, a run folder, or melcodec-base" in err
    assert not (tmp_path / "run").exists()


def test_bands_that_the_norms_do_not_have_are_refused_at_once(cli, refused, speech_folder, tmp_path):
    err = refused("train", speech_folder, *SHORT, "--set", "model.mel.n_mels=64")
    assert "mel norms of shape (80,), not (64,)\nhint: give norms of as many bands with --mel-stats" in err
    np.save(tmp_path / "norms.npy", np.linspace(-9, -2, 64, dtype=np.float32))
    status, _, err = cli("train", speech_folder, *SHORT, "--set", "model.mel.n_mels=64", "--mel-stats", "norms.npy", "-o", "run")
    assert status == 0, err
    assert "norms.npy: mel norms of shape (64,), not (80,)" in refused("train", speech_folder, *SHORT, "--mel-stats", "norms.npy")


@pytest.mark.slow
def test_other_settings_are_refused_with_the_key_named(cli, refused, speech_folder):
    cli("train", speech_folder, *SHORT, "-o", "run")
    err = refused("train", speech_folder, *SHORT, "-o", "run", "--set", "optimizer.lr=1e-5")
    assert "optimizer.lr 0.001 -> 1e-05" in err
    assert cli("train", speech_folder, *SHORT, "-o", "run", "--set", "train.steps=22").status == 0  # longer is fine


@pytest.mark.slow
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
    assert "missing" in refused("train", "missing", *SHORT)
    assert "did you mean 'tiny'" in refused("train", speech_folder, "--preset", "tiney")
    assert "did you mean 'steps'" in refused("train", speech_folder, *SHORT, "--set", "train.step=3")
    (tmp_path / "text.toml").write_text("not toml at all [")
    assert "not readable as TOML" in refused("train", speech_folder, "--config", "text.toml")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.wav").write_text("not sound")
    assert "no file of the corpus could be read" in refused("train", "bad", *SHORT)


def test_speech_shorter_than_a_crop_is_used_whole(cli, speech_folder, tmp_path):
    more = ["--set", "data.crop_frames=256", "--set", "data.batch_size=4", "-o", "run"]
    status, _, err = cli("train", speech_folder / "a/0.wav", *SHORT, *more)
    assert status == 0, err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["log_mel_l1"] < 0.95 * lines[0]["log_mel_l1"]


def test_one_clip_only(cli, speech_folder):
    status, _, err = cli("train", speech_folder / "a/0.wav", *SHORT, "-o", "run")
    assert status == 0
    assert "nothing held out: validation uses the training files" in err


def test_a_corpus_that_changed_between_stops_is_refused(cli, refused, speech_folder, tmp_path):
    shutil.copytree(speech_folder, tmp_path / "data")
    assert cli("train", "data", *SHORT, "-o", "run").status == 0
    shutil.copy(speech_folder / "a/0.wav", tmp_path / "data/new.wav")
    status, _, err = cli("train", "data", *SHORT, "-o", "run", "--set", "train.steps=25")
    assert status == 1
    assert "error: run/states/step-00000020.safetensors: the corpus has changed since this run began" in err
    assert "--init run/last.safetensors" in err


@pytest.mark.slow
def test_resume_can_be_required_and_forbidden(cli, refused, speech_folder):
    assert "holds no run to resume" in refused("train", speech_folder, *SHORT, "-o", "run", "--resume")
    assert cli("train", speech_folder, *SHORT, "-o", "run", "--no-resume").status == 0
    assert "holds a run already" in refused("train", speech_folder, *SHORT, "-o", "run", "--no-resume")
    status, _, err = cli("train", speech_folder, *SHORT, "-o", "run", "--resume", "--set", "train.steps=22")
    assert status == 0
    assert "resuming the run" in err


FINE = ["--device", "cpu", "--set", "train.steps=4", "--set", "train.valid_every=4", "--set", "train.samples=0"]


def test_fine_tuning_takes_the_model_of_its_start(cli, speech_folder, tiny_checkpoint, tmp_path):
    before = tiny_checkpoint.read_bytes()
    # warnings are errors in tests: this model gives mels that are louder than sound can be, and samples must be sound
    sampled = [*FINE, "--set", "train.samples=1"]
    status, _, err = cli("train", speech_folder, "--init", tiny_checkpoint, "--tune", "decoder", *sampled, "-o", "run")
    assert status == 0, err
    assert err.splitlines()[1] == "preparing the first step: validating"
    assert soundfile.read(tmp_path / "run/samples/clip0-step-00000004.wav")[0].any()
    assert "step 0: validation log-mel L1" in err
    assert "100.0% of the codes as before" in err.splitlines()[-3]
    assert re.search(r"step 4: validation log-mel L1 \d+\.\d+ \(\d+\.\d+ before\)", err)
    assert "will not fit" not in err
    assert tiny_checkpoint.read_bytes() == before
    start, tuned = load_checkpoint(tiny_checkpoint), load_checkpoint(tmp_path / "run/best.safetensors")
    assert tuned.config == start.config
    assert tuned.mel_norms == start.mel_norms
    assert tuned.fingerprint == start.fingerprint  # so codes made before stay valid
    assert not torch.equal(tuned.tensors["decoder.0.weight"], start.tensors["decoder.0.weight"])
    assert tuned.provenance["optimizer"]["lr"] == 5e-6  # the preset finetune


@pytest.mark.parametrize("tune", ["full", "frozen-codebook"])
def test_tuning_that_moves_codes_says_so(cli, speech_folder, tiny_checkpoint, tune):
    _, _, err = cli("train", speech_folder, "--init", tiny_checkpoint, "--tune", tune, *FINE, "-o", "run")
    assert "GPTs trained on them, will not fit the new one; --tune decoder keeps them valid" in err


def test_full_tuning_moves_the_codebook_and_says_how_fast(cli, speech_folder, tiny_checkpoint, tmp_path):
    """Moving averages know no learning rate: this is said, and their decay can be set although the model comes from --init."""
    tune = ["train", speech_folder, "--init", tiny_checkpoint, *FINE, "-o"]
    assert "note:" not in cli(*tune, "kept", "--tune", "frozen-codebook").err
    assert "after 299 steps 95% of what it holds comes from the new speech" in cli(*tune, "moved").err
    assert "after 29956 steps" in cli(*tune, "slowly", "--set", "model.quantizer.decay=0.9999").err
    start = load_checkpoint(tiny_checkpoint).tensors["codebook.embed"]
    moved = {
        name: (load_checkpoint(tmp_path / name / "last.safetensors").tensors["codebook.embed"] - start).abs().max().item()
        for name in ("kept", "slowly", "moved")
    }
    assert moved["kept"] == 0 < 10 * moved["slowly"] < moved["moved"]


def test_a_start_of_another_architecture_is_refused(refused, speech_folder, tiny_checkpoint):
    err = refused("train", speech_folder, "--init", tiny_checkpoint, "--preset", "tiny", "-o", "run")
    assert "a model of another architecture: model.dim 8 -> 16" in err
    assert "model.quantizer.codebook_size 32 -> 64" in err
    err = refused("train", speech_folder, "--init", tiny_checkpoint, "--set", "model.dim=16", "-o", "run")
    assert "a model of another architecture: model.dim 8 -> 16" in err


@pytest.mark.slow
def test_a_codebook_larger_than_the_speech_has_latents(cli, speech_folder, tmp_path):
    more = ["--set", "data.crop_frames=16", "--set", "data.batch_size=2", "--set", "model.quantizer.codebook_size=512"]
    status, _, err = cli("train", speech_folder / "a/0.wav", *SHORT, *more, "--set", "train.steps=1", "-o", "run")
    assert status == 0, err
    embed = load_checkpoint(tmp_path / "run/last.safetensors").tensors["codebook.embed"]
    assert embed.isfinite().all()
    assert len(torch.unique(embed.T, dim=0)) > 100  # the clip has 20 latents, and crops of it a few more


@pytest.mark.slow
def test_a_full_disk_leaves_the_run_as_it_was(cli, speech_folder, tmp_path):
    """A limit on file size is what a test can have without a disk of its own."""
    assert cli("train", speech_folder, *SHORT, "-o", "run").status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    settings = [*SHORT, "--set", "train.steps=40", "--set", "train.save_every=5", "--set", "train.samples=0", "-o", "run"]
    script = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); sys.argv = ['melcodec', *sys.argv[1:]]\n"
        "runpy.run_module('melcodec', run_name='__main__')"
    )
    command = [sys.executable, "-c", script, "train", str(speech_folder), *settings]
    done = forked.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "error: run/states/step-00000025.safetensors: " in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")} == before
    assert cli("train", speech_folder, *settings).status == 0  # with room again, it goes on


def test_a_terminal_sees_a_live_line(speech_folder, tmp_path):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "melcodec", "train", str(speech_folder), *SHORT, "--set", "train.log_every=1", "-o", "run"]
    child = forked.Popen(command, stderr=theirs, cwd=tmp_path, env=os.environ | {"TERM": "xterm", "COLUMNS": "140"})
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):
        while part := os.read(ours, 65_536):
            drawn += part
    os.close(ours)
    assert child.wait(60) == 0
    for words in (rb"20/20", rb"loss \d\.\d+", rb"\d+ codes", rb"of audio/min", rb"GiB"):
        assert re.search(words, drawn), words


@pytest.mark.slow
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
    assert failure["id"] == "zz"
    assert "not readable as audio" in failure["reason"]
    (folder / "zz.wav").unlink()
    assert cli("train", folder, *SHORT, "-o", "run").status == 0
    assert not (tmp_path / "run/failures.jsonl").exists()
