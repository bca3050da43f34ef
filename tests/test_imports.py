"""Cheap to look at: what help, version and settings need does not import torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import melcodec

SLOW = ("torch", "torchaudio", "librosa", "matplotlib", "tensorboard", "soundfile", "scipy")
CLI = sorted(
    f"melcodec.cli.{path.stem}" for path in (Path(melcodec.__file__).parent / "cli").glob("*.py") if path.stem != "__init__"
)
LOADED = "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules, sep='\\n')"


@pytest.mark.parametrize(
    "names",
    [
        ("melcodec",),
        ("melcodec.errors", "melcodec.config", "melcodec.chunking", "melcodec.files"),
        ("melcodec.formats.container",),
        CLI,
    ],
    ids=["melcodec", "floors 0 and 1", "container", "cli"],
)
def test_no_slow_import(run_python, names):
    loaded = set(run_python(LOADED, *names).split())
    assert set(names) <= loaded
    assert not loaded & set(SLOW)


def test_this_check_can_fail(run_python):
    assert set(run_python(LOADED, "melcodec.errors", "soundfile").split()) & set(SLOW)


def test_public_names_are_found_when_they_are_used():
    for name in melcodec.__all__:
        assert getattr(melcodec, name) is not None
        assert name in dir(melcodec)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = melcodec.nothing


def test_help_answers_at_once():
    command = [sys.executable, "-X", "importtime", "-m", "melcodec", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "encode" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & set(SLOW)
