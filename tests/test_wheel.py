"""The wheel: it carries the default checkpoint, the presets and py.typed, and works where there is no checkout."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import melcodec

NEEDED = [name for name in ("build", "hatchling") if importlib.util.find_spec(name) is None]
ROOT = Path(melcodec.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    if NEEDED:
        pytest.skip(f"{' and '.join(NEEDED)} of the dev extra is not installed")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=out, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("melcodec-*.whl")
    return path


def test_what_is_inside(wheel):
    with zipfile.ZipFile(wheel) as content:
        inside = {info.filename: info.file_size for info in content.infolist()}
    checkpoint = ROOT / "checkpoints" / "melcodec-base.safetensors"
    assert inside["melcodec/checkpoints/melcodec-base.safetensors"] == checkpoint.stat().st_size
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "melcodec").rglob("*")
        if path.suffix in (".py", ".toml", ".json", ".j2", ".css", ".js")
    }
    assert {"melcodec/presets/base.toml", "melcodec/presets/xtts_mel_norms.json"} < sources <= set(inside)
    assert "melcodec/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    outside = [name for name in inside if not name.startswith(("melcodec/", f"melcodec-{melcodec.__version__}.dist-info/"))]
    assert outside == []


def test_it_works_without_a_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "site")
    script = """
from melcodec.config import load_preset, xtts_mel_norms
from melcodec.formats.shipped import find_checkpoint
load_preset("base"), xtts_mel_norms()
print(find_checkpoint("melcodec-base"))
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "site/melcodec/checkpoints/melcodec-base.safetensors")
