"""Every script of examples/ runs with --quick, prints what it says and draws its pictures."""

from __future__ import annotations

import gzip
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a script in this process with arguments; returns its lines."""

    def run(name: str, *arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 5000


def test_worked_example(run):
    codes = [line.partition(":")[2].strip() for line in run("worked_example.py") if line.startswith("codes")]
    assert codes[0] == "[[1, 3, 0], [1, 1, 2]]"
    if find_spec("vector_quantize_pytorch"):
        assert codes[1] == codes[0]


def test_gaussian(run, tmp_path):
    lines = run("gaussian.py", "--quick", "-o", tmp_path)
    assert [line.partition(":")[0] for line in lines] == ["codebook", "commitment", "reconstruction"]
    first, last = (float(part.split()[0]) for part in lines[0].partition(": ")[2].split(" in the first pass, "))
    assert 0 < last < first
    assert is_picture(tmp_path / "losses.png")
    assert is_picture(tmp_path / "codewords.png")


def errors(line: str) -> tuple[float, float]:
    words = line.split()
    return float(words[words.index("error") + 1]), float(words[words.index("step,") + 1])


@pytest.mark.slow
@pytest.mark.parametrize("source", ["scikit-learn", "MNIST"])
def test_digits(run, tmp_path, source):
    more = []
    if source == "MNIST":
        pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
        header = np.array([2051, 40, 28, 28], ">u4").tobytes()
        (tmp_path / "mnist").mkdir()
        (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
        more = ["--mnist", tmp_path / "mnist"]
    else:
        pytest.importorskip("sklearn")
    lines = {line.partition(":")[0]: line for line in run("digits.py", "--quick", "-o", tmp_path / "out", *more)}
    assert list(lines) == ["library", "ours"]
    for name, line in lines.items():
        if name == "ours" or find_spec("vector_quantize_pytorch"):
            first, last = errors(line)
            assert last < first
    assert is_picture(tmp_path / "out" / "reconstructions.png")
    assert is_picture(tmp_path / "out" / "samples.png")
