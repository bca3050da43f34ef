"""melcodec evaluate, as people run it."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from melcodec.codec import Codec
from melcodec.prior.models import save_prior
from tests import forked
from tests.prior.conftest import make_prior

QUICK = ("--metrics", "mcd", "--no-anchors", "--num-workers", 1)


@pytest.fixture(scope="module")
def two(speech_folder, tmp_path_factory):
    """Two short files."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("0.wav", "1.wav"):
        shutil.copy(speech_folder / "a" / name, folder / name)
    return folder


def run(*args, cwd):
    """In a real process: evaluate starts others."""
    command = [sys.executable, "-W", "error", "-m", "melcodec", "evaluate", *map(str, args)]
    return forked.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=cwd)


@pytest.mark.slow
def test_a_report_a_table_and_json(two, tiny_checkpoint, tmp_path):
    args = (two, "-o", "report", "--checkpoint", tiny_checkpoint, *QUICK)
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mel-cepstral distortion (dB)" in done.stdout
    assert "report: index.html, metrics.json and files.csv" in done.stderr
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"index.html", "metrics.json", "files.csv", "results.jsonl"}
    again = run(*args, "--json", cwd=tmp_path)
    assert "2 of 2 files were scored before" in again.stderr
    found = json.loads(again.stdout)
    assert found == json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert found["files"] == 2
    assert list(found["metrics"]) == ["mcd"]
    assert [system["name"] for system in found["systems"]] == ["codes"]
    assert found["command"].startswith("melcodec evaluate ")
    assert found["command"].endswith("--num-workers 1 --json")


@pytest.mark.slow
def test_every_option_does_something(two, speech_folder, tiny_checkpoint, tmp_path):
    (two / "bad.flac").write_bytes(b"nonsense")
    options = ("--metrics", "mcd,log_mel_l1", "--train", speech_folder, "--seed", 5, "--num-workers", 2, "--json")
    done = run(two, "-o", "r", "-c", tiny_checkpoint, *options, cwd=tmp_path)
    (two / "bad.flac").unlink()
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert "kmeans" in [system["name"] for system in found["systems"]]
    assert "1 failed:" in done.stderr
    assert "bad.flac" in done.stderr
    assert (found["files"], list(found["failures"])) == (2, ["bad"])
    assert found["settings"]["seed"] == 5
    limited = run(two, "-o", "r", "-c", tiny_checkpoint, *QUICK, "--limit", 1, "-f", "--json", cwd=tmp_path)
    assert json.loads(limited.stdout)["files"] == 1
    assert json.loads(limited.stdout)["predictability"] is None


def test_predictability(refused, two, tiny_checkpoint, tmp_path):
    """The bits per code of a prior, which may be added to an evaluation that is there already."""
    prior = make_prior("ngram", fingerprint=Codec.from_pretrained(tiny_checkpoint, "cpu").fingerprint)
    save_prior(tmp_path, prior)
    words = (two, "-o", "r", "-c", tiny_checkpoint, *QUICK)
    assert "predicts" not in run(*words, cwd=tmp_path).stdout
    done = run(*words, "--prior", ".", cwd=tmp_path)
    assert "2 of 2 files were scored before" in done.stderr
    codes = [np.array(json.loads(line)["codes"]) for line in (tmp_path / "r/results.jsonl").read_text().splitlines()]
    bits = np.concatenate([prior.surprise(each)[0] for each in codes]).mean()
    sentence = f"The prior . (trigram) predicts each code from those before it with {bits:.2f} bits"
    assert sentence in done.stdout
    assert sentence in (tmp_path / "r/index.html").read_text()
    found = json.loads((tmp_path / "r/metrics.json").read_text())["predictability"]
    assert found["bits_per_code"]["mean"] == pytest.approx(bits)
    assert found["bits_per_second"]["mean"] == pytest.approx(bits * 22_050 / 1024)
    assert found["codes"] == sum(each.size for each in codes)
    assert "not a prior" in refused("evaluate", *words, "--prior", two)
    (tmp_path / "other").mkdir()
    save_prior(tmp_path / "other", make_prior("ngram", fingerprint="f" * 12))
    assert "models codes of checkpoint ffffffffffff" in refused("evaluate", *words, "--prior", "other")


def test_refusals(refused, two, tiny_checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no audio files" in refused("evaluate", "empty", "-o", "r")
    assert "no such file or folder" in refused("evaluate", "nowhere", "-o", "r")
    assert "no metric 'loudness'" in refused("evaluate", two, "-o", "r", "--metrics", "loudness")
    assert "no such checkpoint" in refused("evaluate", two, "-o", "r", "--checkpoint", "nothing")
    assert "CUDA devices" in refused("evaluate", two, "-o", "r", "--checkpoint", tiny_checkpoint, "--device", "cuda:99")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "metrics.json").write_text('{"kind": "evaluation", "format": 0, "melcodec": "0.0.1"}')
    said = refused("evaluate", two, "-o", "r", "--checkpoint", tiny_checkpoint, *QUICK)
    assert "older melcodec" in said
    assert "hint: add -f" in said


def test_a_missing_package_is_named_with_its_install_line(refused, two, monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    said = refused("evaluate", two, "-o", "r", "--metrics", "pesq_wb")
    assert "needs the package 'pesq', which is not installed" in said
    assert "hint: pip install 'melcodec[eval]'" in said
