"""The commands in docs/xtts.md, run as they stand, with a tiny DVAE, a tiny trainer's file and six short clips."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import cli  # noqa: F401

DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (DOCS / "xtts.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)[1:] for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()
]
QUICK = {
    "train": ["--device", "cpu", "--set", "train.steps=2", "--set", "train.samples=0", "--set", "data.crop_frames=32"],
    "evaluate": ["--no-anchors", "--metrics", "mcd", "--limit", "2", "--num-workers", "1"],
    "roundtrip": ["--device", "cpu"],
    "compare": ["--device", "cpu"],
}


@pytest.mark.slow  # two trainings, a report and a comparison
def test_from_dvae_to_trainer(cli, golden_folder, speech_folder, tmp_path):  # noqa: F811
    (tmp_path / "recordings").symlink_to(speech_folder)
    shutil.copy(golden_folder / "tiny_dvae.pth", tmp_path / "dvae.pth")
    shutil.copy(golden_folder / "mel_stats.pth", tmp_path / "mel_stats.pth")
    before = torch.load(tmp_path / "dvae.pth", weights_only=True)
    norms = torch.load(tmp_path / "mel_stats.pth", weights_only=True)
    state = {**{f"dvae.{key}": value for key, value in before.items()}, "xtts.mel_stats": norms, "xtts.gpt.wte": torch.ones(3)}
    torch.save({"config": {}, "model": state, "optimizer": [], "step": 7}, tmp_path / "best_model.pth")
    assert [words[0] for words in COMMANDS] == [
        *("import-xtts", "info", "roundtrip", "evaluate", "train", "train", "compare", "export-xtts", "export-xtts")
    ]
    for words in COMMANDS:
        status, _, err = cli(*words, *QUICK.get(words[0], []))
        assert status == 0, (words, err)
    assert len(list((tmp_path / "heard").rglob("*.wav"))) == 6
    assert (tmp_path / "report/index.html").exists()
    exported = torch.load(tmp_path / "for-coqui/dvae.pth", weights_only=True)
    assert exported.keys() == before.keys()
    assert torch.equal(exported["codebook.embed"], before["codebook.embed"])  # it was frozen
    assert torch.equal(torch.load(tmp_path / "for-coqui/mel_stats.pth", weights_only=True), norms)
    into = torch.load(tmp_path / "new.pth", weights_only=True)
    assert all(torch.equal(into["model"][f"dvae.{key}"], value) for key, value in exported.items())
    assert into["step"] == 7


def test_the_benchmark_measures_and_draws(speech_folder, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    namespace = runpy.run_path(str(DOCS.parent / "benchmarks/xtts_tuning.py"), run_name="benchmark")
    words = ["--checkpoint", tiny_checkpoint, "--clips", 4, "--held-out", 2, "--steps", 2, "--every", 1, "--lr", 0.01]
    monkeypatch.setattr(sys, "argv", ["xtts_tuning", str(speech_folder), *map(str, words), "--picture", str(tmp_path / "x.png")])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    namespace["main"]()
    told = capsys.readouterr().out
    kept = {way: float(share) for way, share in re.findall(r"(\S+) +step 2: +([\d.]+)% of the codes", told)}
    assert kept["decoder"] == 100
    assert max(kept["full"], kept["frozen-codebook"], kept["script"]) < 100
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_its_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (DOCS / target).exists(), target
