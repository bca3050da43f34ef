"""README's commands and Python, run as they stand, in an empty folder with in.wav, in/ and data/ in it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests import forked

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
FIRST_OUTPUT_SECONDS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory, examples):
    """One folder for all commands, in README's order: later ones use what earlier ones wrote."""
    path = tmp_path_factory.mktemp("readme")
    wav, rate = soundfile.read(examples["lj_en"], dtype="float32")
    soundfile.write(path / "in.wav", wav, rate)
    for name in ("in", "data"):
        (path / name / "a").mkdir(parents=True)
        for clip in examples.values():
            (path / name / "a" / clip.name).write_bytes(clip.read_bytes())
    for name in ("dvae", "mel_stats"):
        golden = "tiny_dvae.pth" if name == "dvae" else "mel_stats.pth"
        (path / f"{name}.pth").write_bytes((ROOT / "tests/golden" / golden).read_bytes())
    return path


def test_readme_has_the_commands():
    assert len(COMMANDS) >= 14
    assert all(command.startswith("melcodec ") for command in COMMANDS)


@pytest.mark.slow  # models of full size
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, folder):
    words = [sys.executable, "-m", *shlex.split(command)]
    if words[3] == "train":
        stop_after_first_steps(words, folder)
        return
    done = forked.run(words, cwd=folder, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    if "-o" in words:
        target = folder / words[words.index("-o") + 1]
        assert target.exists()
        assert target.is_dir() or target.stat().st_size > 100


def stop_after_first_steps(words: list[str], folder: Path) -> None:
    """Training would take an hour: press Ctrl-C once it runs, and see that a checkpoint is there."""
    run = "checkpoints/data-xtts" if "xtts" in words else "checkpoints/data-base"
    (folder / run).mkdir(parents=True, exist_ok=True)
    settings = ["--set", "data.batch_size=2", "--set", "codebook.start=stock"]
    child = forked.Popen([*words, *settings], cwd=folder, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if "to train on" in line:
                break
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=FIRST_OUTPUT_SECONDS)
    finally:
        child.kill()
    assert child.returncode == 130, err
    assert "the same command resumes" in err
    best = folder / run / "best.safetensors"
    assert (folder / run / "last.safetensors").exists()
    if not best.exists():  # written by the first validation, a thousand steps away
        best.write_bytes((folder / run / "last.safetensors").read_bytes())


def test_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(compile(block, "README.md", "exec"), names)
    wav, codes = names["wav"], names["codes"]
    assert isinstance(codes, np.ndarray)
    assert wav.shape == (1, codes.shape[1] * 1024 - 256)
    assert len([line for line in block.splitlines() if line]) <= 6


def test_links_point_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
