"""The commands and the Python in docs/onnx.md and docs/huggingface.md, run as they stand, with the tiny checkpoint."""

from __future__ import annotations

import re
import shlex
import shutil

import numpy as np
import pytest
import soundfile

from melcodec.audio.io import load
from tests.cli.conftest import cli  # noqa: F401
from tests.conftest import ROOT


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.S)


def commands(page: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks(page, "sh") for line in block.splitlines()]


@pytest.fixture
def speech(examples, tmp_path, monkeypatch) -> np.ndarray:
    """in.wav in the working folder."""
    monkeypatch.chdir(tmp_path)
    wave = load(examples["kerstin_de"], 22_050)
    soundfile.write("in.wav", wave, 22_050, subtype="FLOAT")
    return wave


@pytest.mark.slow
def test_onnx(cli, speech, tiny_checkpoint, tmp_path):  # noqa: F811
    pytest.importorskip("onnx")
    words = commands("onnx.md")
    assert [each[:2] for each in words if each[0] != "melcodec"] == [["npm", "install"], ["python", "-m"]]  # by test_browser
    shutil.copy(tiny_checkpoint, tmp_path / "melcodec-base")  # a path comes before a shipped name
    for each in words:
        if each[0] == "melcodec":
            status, _, err = cli(*each[1:])
            assert status == 0, (each, err)
    assert (tmp_path / "docs/browser/model/encoder.onnx").exists()
    assert len(load(tmp_path / "out.wav", 22_050)) == len(speech)
    (code,) = blocks("onnx.md", "python")
    names: dict = {}
    exec(code, names)
    with np.load("codes.npz") as arrays:
        assert np.array_equal(names["codes"].codes, arrays["codes"])
    assert names["wave"].shape == speech.shape


def test_huggingface(cli, speech, tiny_checkpoint, tmp_path, examples):  # noqa: F811
    pytest.importorskip("transformers", minversion="5.0")
    shutil.copy(tiny_checkpoint, tmp_path / "melcodec-base")
    usage, compiled = blocks("huggingface.md", "python")
    names = {"wave": load(examples["kerstin_de"], 16_000), "other": load(examples["lj_en"], 16_000)}
    exec(usage, names)
    assert names["sound"].shape[:2] == (2, 1)
    for each in commands("huggingface.md"):
        status, _, err = cli(*each[1:])
        assert status == 0, (each, err)
    with np.load("codes.npz") as arrays:
        ours = names["model"].encode(**names["features"](speech)).audio_codes[0].numpy()
        assert np.array_equal(ours, arrays["codes"])
    exec(compiled, names)  # what it gives when it is called is compared in tests/hf
    assert callable(names["encode"])
    assert callable(names["decode"])
