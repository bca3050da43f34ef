"""Two real gloo processes learn what one learns, codebook included; torchrun starts them, and they stop together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from melcodec.formats.container import read_container
from melcodec.training.state import KIND, state_paths
from tests import forked

SETTINGS = [
    *("--preset", "tiny", "--device", "cpu"),
    *("--set", "train.steps=10", "--set", "train.valid_every=5", "--set", "train.log_every=1", "--set", "train.samples=0"),
    *("--set", "train.precision=float32", "--set", "data.crop_frames=96", "--set", "codebook.revive_below=0.6"),
    *("--set", "model.quantizer.decay=0.6", "--set", "augment.gain_db=3", "--set", "data.num_workers=1"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(folder, *words, port: int | None = None) -> subprocess.Popen:
    command = [*TORCHRUN, str(port or free_port()), "-m", "melcodec", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return forked.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment, start_new_session=True)


def finish(child: subprocess.Popen) -> str:
    try:
        return child.communicate(timeout=120)[1]
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def tensors(folder):
    return read_container(state_paths(folder)[0], KIND)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(speech_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    command = [sys.executable, "-m", "melcodec", "train", str(speech_folder), *SETTINGS, "-o", "run"]
    forked.run(command, cwd=folder, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder / "run"


def close(folder, other) -> None:
    """The same model, codebook, optimizer and figures, up to the order in which floats are added."""
    (meta, mine), (its_meta, its) = tensors(folder), tensors(other)
    assert mine.keys() == its.keys()
    for name, value in its.items():
        torch.testing.assert_close(mine[name], value, rtol=2e-3, atol=3e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert meta["progress"]["step"] == its_meta["progress"]["step"] == 10
    for line, expected in zip(lines(folder), lines(other), strict=True):
        same = {name for name in expected if name not in ("kind", "time", "audio_per_second")}
        assert {name: line[name] for name in same} == pytest.approx({name: expected[name] for name in same}, rel=2e-3)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(alone, speech_folder, tmp_path):
    child = torchrun(tmp_path, "train", speech_folder, *SETTINGS, "-o", "run")
    err = finish(child)
    assert child.returncode == 0, err
    assert err.count("best.safetensors is ready") == 1  # one of them speaks
    close(tmp_path / "run", alone)
    revived = [line["revived"] for line in lines(alone) if line["kind"] == "valid"]
    assert sum(revived) > 0  # or revival would not have been compared


@pytest.mark.slow
def test_two_processes_with_a_discriminator_learn_what_one_learns(speech_folder, tmp_path):
    more = [
        *("--set", "objective.adversarial=0.1", "--set", "objective.discriminator.channels=[4, 4]"),
        *("--set", "objective.discriminator.start_step=2", "--set", "codebook.revive=none"),
    ]
    command = [sys.executable, "-m", "melcodec", "train", str(speech_folder), *SETTINGS, *more, "-o", "alone"]
    forked.run(command, cwd=tmp_path, check=True, capture_output=True)
    child = torchrun(tmp_path, "train", speech_folder, *SETTINGS, *more, "-o", "run")
    err = finish(child)
    assert child.returncode == 0, err
    close(tmp_path / "run", tmp_path / "alone")
    assert any(name.startswith("adversary.") for name in tensors(tmp_path / "run")[1])


@pytest.mark.slow
def test_a_killed_rank_loses_nothing(alone, speech_folder, tmp_path):
    """torchrun ends the other one; the same command, also with another number of processes, goes on."""
    child = torchrun(tmp_path, "train", speech_folder, *SETTINGS, "--set", "train.save_every=2", "-o", "run")
    metrics = tmp_path / "run/metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 5):
        time.sleep(0.01)
    ranks = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    finish(child)
    assert child.returncode != 0
    command = [
        sys.executable,
        "-m",
        "melcodec",
        "train",
        str(speech_folder),
        *SETTINGS,
        "--set",
        "train.save_every=2",
        "-o",
        "run",
    ]
    forked.run(command, cwd=tmp_path, check=True, capture_output=True)
    close(tmp_path / "run", alone)


@pytest.mark.slow
def test_a_stop_reaches_all(speech_folder, tmp_path):
    more = ["--set", "train.steps=100000", "-o", "run"]
    child = torchrun(tmp_path, "train", speech_folder, *SETTINGS, *more)
    metrics = tmp_path / "run/metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    err = finish(child)
    assert "the same command resumes from here" in err
    assert state_paths(tmp_path / "run")
    assert (tmp_path / "run/last.safetensors").exists()


def test_a_batch_that_cannot_be_shared(speech_folder, tmp_path):
    err = finish(torchrun(tmp_path, "train", speech_folder, *SETTINGS, "--set", "data.batch_size=7", "-o", "run"))
    assert "error: a batch of 7 crops cannot be shared by 2 processes\nhint: --set data.batch_size=8" in err


def test_a_port_that_is_taken(speech_folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = os.environ | {
            **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])},
        }
        command = [sys.executable, "-m", "melcodec", "train", str(speech_folder), *SETTINGS, "-o", "run"]
        done = forked.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "error: the processes cannot connect to each other" in done.stderr
    assert "hint: is the port taken?" in done.stderr
    assert "Traceback" not in done.stderr
