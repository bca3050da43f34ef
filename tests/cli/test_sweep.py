"""melcodec sweep: every combination is trained and shown; what is finished is skipped, what differs is refused."""

from __future__ import annotations

import csv
import json

import pytest

from melcodec.cli import sweep as command
from melcodec.config import load_preset
from melcodec.errors import MelcodecError
from melcodec.sweep import make_plan

SETTINGS = [
    *("--preset", "tiny", "--device", "cpu", "--set", "train.steps=3", "--set", "train.valid_every=3"),
    *("--set", "data.batch_size=2", "--set", "model.quantizer.codebook_size=16", "--set", "data.num_workers=1"),
]
VARY = ["--vary", "model.quantizer=ema,gradient", "--vary", "optimizer.lr=1e-3"]
SETTING = {"quantizer ema, lr 1e-3", "quantizer gradient, lr 1e-3"}


@pytest.mark.slow
def test_a_sweep_goes_on_grows_and_refuses(cli, refused, speech_folder, tmp_path):
    words = ["sweep", speech_folder, *VARY, *SETTINGS, "-o", "s"]
    status, out, err = cli(*words)
    assert (status, out) == (0, ""), err
    page = (tmp_path / "s/index.html").read_text()
    assert all(label in page for label in SETTING)
    assert page.count("<audio") == 3  # the clip, and what each made of it
    names = {"quantizer-ema_lr-1e-3_seed-0", "quantizer-gradient_lr-1e-3_seed-0"}
    rows = {row["run"]: row for row in csv.DictReader((tmp_path / "s/sweep.csv").read_text().splitlines())}
    assert set(rows) == names
    assert {row["codes"] for row in rows.values()} == {"16"}  # --set holds inside the varied group
    assert all(float(row["log_mel_l1"]) > 0 and float(row["step_seconds"]) > 0 for row in rows.values())
    summary = json.loads((tmp_path / "s/sweep.json").read_text())
    assert all(run["result"]["bits_per_second"] > 80 for run in summary["runs"].values())
    # a finished run is left alone, one that lost its end is trained to it
    times = {name: (tmp_path / "s" / name / "metrics.jsonl").stat().st_mtime_ns for name in names}
    (tmp_path / "s/quantizer-ema_lr-1e-3_seed-0/last.safetensors").unlink()
    status, _, err = cli(*words)
    assert status == 0, err
    assert "1 of 2 runs are finished already" in err
    assert (tmp_path / "s/quantizer-ema_lr-1e-3_seed-0/last.safetensors").exists()
    untouched = "quantizer-gradient_lr-1e-3_seed-0"
    assert (tmp_path / "s" / untouched / "metrics.jsonl").stat().st_mtime_ns == times[untouched]
    assert "another corpus" in refused("sweep", speech_folder / "a", *words[2:])
    assert "train.steps 3 -> 4" in refused(*words, "--set", "train.steps=4")
    assert "other runs" in refused("sweep", speech_folder, "--vary", "optimizer.lr=1e-3", *SETTINGS, "-o", "s")


@pytest.mark.parametrize(
    ("vary", "more", "complaint"),
    [
        ("model.quantizer", [], "not of the form"),
        ("model.quantizer=ema,", [], "not of the form"),
        ("model.quantizer=ema,no-such", [], "no-such"),
        ("train.steps=1,2", [], "same in all runs"),
        ("train.seed=1,2", [], "--seeds"),
        ("model.mel.n_mels=40,80", [], "same in all runs"),
        ("optimizer.lr=1e-3,1e-3", [], "given twice"),
        ("optimizer.lr=1e-3", ["--set", "optimizer.lr=1e-4"], "given twice"),
        ("optimizer.lr=1e-3", ["--seeds", "0,0"], "given twice"),
        ("optimizer.lr=1e-3", ["--seeds", "x"], "not whole numbers"),
    ],
)
def test_refusals(refused, speech_folder, tmp_path, vary, more, complaint):
    assert complaint in refused("sweep", speech_folder, "--vary", vary, *more, "-o", "s")
    assert not (tmp_path / "s").exists()


def test_options_reach_the_runs(cli, monkeypatch, speech_folder, tmp_path):
    """Everything but the training itself, which the other test does."""
    heard = {}
    monkeypatch.setattr("melcodec.sweep.sweep", lambda *words: heard.update(plan=words[1], rest=words[2:5]) or True)
    (tmp_path / "c.toml").write_text("[train]\nsteps = 7\n")
    status, _, err = cli(
        *("sweep", speech_folder, "--vary", "optimizer.lr=1e-3,1e-4", "--config", "c.toml", "--set", "data.batch_size=5"),
        *("--seeds", "3,4", "--num-workers", 2, "--device", "cpu", "-o", "s"),
    )
    assert status == 0, err
    assert [(run.config.optimizer.lr, run.seed) for run in heard["plan"].runs] == [(1e-3, 3), (1e-3, 4), (1e-4, 3), (1e-4, 4)]
    assert {(run.config.train.steps, run.config.data.batch_size) for run in heard["plan"].runs} == {(7, 5)}
    assert all(run.config.train.seed == run.seed for run in heard["plan"].runs)
    assert [str(value) for value in heard["rest"]] == ["s", "cpu", "2"]
    cli("sweep", speech_folder, "--vary", "optimizer.lr=1e-3", "--preset", "tiny", "-o", "s")
    assert heard["plan"].runs[0].config.model.dim == load_preset("tiny").model.dim


def test_groups_come_before_what_is_in_them():
    base = load_preset("tiny")
    plan = make_plan(base, ["model.quantizer=ema,residual", "augment.speeds=[0.9,1.0],[1.0]"], ["train.steps=100"])
    assert len(plan.runs) == 4
    assert {run.config.augment.speeds for run in plan.runs} == {(0.9, 1.0), (1.0,)}
    assert {(run.config.train.valid_every, run.config.train.log_every) for run in plan.runs} == {(10, 2)}
    chosen = make_plan(base, ["optimizer.lr=1e-3"], ["train.valid_every=50", "train.log_every=7"])
    assert (chosen.runs[0].config.train.valid_every, chosen.runs[0].config.train.log_every) == (50, 7)
    with pytest.raises(MelcodecError, match="nothing is varied"):
        make_plan(base, [])
    assert command._numbers("0,2") == [0, 2]
