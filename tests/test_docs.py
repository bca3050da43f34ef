"""The Python in docs/corpora.md, run as it stands beside a folder of codes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests import forked

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "corpora.md").read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def folder(speech_folder, tiny_checkpoint, tmp_path_factory) -> Path:
    """Where ``codes/`` holds six utterances."""
    path = tmp_path_factory.mktemp("docs")
    command = ["preprocess", str(speech_folder), "-o", str(path / "codes"), "-c", str(tiny_checkpoint), "--device", "cpu"]
    forked.run([sys.executable, "-m", "melcodec", *command], check=True, timeout=120, capture_output=True)
    return path


def test_a_language_model_learns_from_codes(folder):
    assert len(BLOCKS) == 2
    done = forked.run(
        [sys.executable, "-c", "".join(BLOCKS).replace("range(2)", "range(8)")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bits = [float(number) for number in re.findall(r"epoch \d+: ([\d.]+) bits a code", done.stdout)]
    assert len(bits) == 8
    assert bits[-1] < bits[0] - 0.5
    assert bits[0] < 8  # K = 32 and END: 5 bits at chance
