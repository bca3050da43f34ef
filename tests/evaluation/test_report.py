from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.evaluation.report import (
    CheckpointFacts,
    means,
    read_metrics,
    reasons,
    summarize_groups,
    summarize_systems,
    summarize_usage,
)
from melcodec.evaluation.results import Result
from melcodec.evaluation.scores import Scores

CHECKPOINT = CheckpointFacts("x", "ab", "cd", 22_050, 20.0, 100.0, 1, 4)


def result(name, codes, silent=(), labels=None, **scores):
    values = {key: value for key, value in scores.items() if value is not None}
    absent = {key: "too short" for key, value in scores.items() if value is None}
    scored = Scores(values, {}, absent)
    return Result(name, name, name, 1.0, labels or {}, [list(codes)], list(silent), {"codes": scored})


@pytest.fixture
def results():
    return [
        result("a", [0, 0, 0, 1], [0, 1], {"language": "en"}, mcd=1.0, stoi=0.5),
        result("b", [1, 2], [], {"language": "de"}, mcd=3.0, stoi=None),
        result("c", [2, 2, 0], [2], {}, mcd=5.0, stoi=0.9),
    ]


def test_means_count_the_files_behind_them(results):
    found = means(results, "codes", seed=0)
    assert (found["mcd"].mean, found["mcd"].count) == (3.0, 3)
    assert (found["stoi"].mean, found["stoi"].count) == (pytest.approx(0.7), 2)
    assert found["stoi"].low <= 0.7 <= found["stoi"].high


def test_a_score_that_no_file_has_is_no_mean(results):
    assert "pesq_wb" not in means(results, "codes", seed=0)
    only = [result("a", [0], stoi=None)]
    assert means(only, "codes", seed=0) == {}
    assert reasons(only, "codes") == {"stoi": {"too short": 1}}


def test_weights_make_the_word_error_rate_one_of_words():
    results = [result("a", [0], wer=0.5), result("b", [0], wer=0.1)]
    for item, words in zip(results, (2, 10), strict=True):
        item.scores["codes"].weights["wer"] = words
    assert means(results, "codes", seed=0)["wer"].mean == pytest.approx(2 / 12)


def test_the_seed_reaches_the_intervals():
    values = np.random.default_rng(0).random(12)
    results = [result(str(index), [0], mcd=float(value)) for index, value in enumerate(values)]
    systems = [SimpleNamespace(name="codes", label="codes", bit_rate=100.0)]
    intervals = [summarize_systems(results, systems, seed)[0].means["mcd"].low for seed in range(8)]
    assert intervals[0] == summarize_systems(results, systems, 0)[0].means["mcd"].low
    assert len(set(intervals)) > 1


def test_groups(results):
    groups = summarize_groups(results, seed=0)
    assert groups.keys() == {"language"}
    assert list(groups["language"]) == ["de", "en"]
    assert groups["language"]["en"].files == 1
    assert groups["language"]["en"].means["mcd"].mean == 1.0


def test_usage_with_and_without_digital_silence(results):
    usage = summarize_usage(results, CHECKPOINT)
    assert usage.counts == [[4, 2, 3, 0]]
    assert (usage.all[0].used, usage.all[0].total) == (3, 9)
    assert (usage.without_silence[0].used, usage.without_silence[0].total) == (3, 6)
    shares = np.array([2, 1, 3]) / 6
    assert usage.without_silence[0].perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert usage.silent_share == pytest.approx(3 / 9)
    assert usage.entropy_bit_rate == pytest.approx(20 * usage.all[0].entropy_bits)
    # runs never cross from file to file: 3 1, 1 1, 2 1
    assert usage.durations[0].mean == pytest.approx(9 / 6)


def test_metrics_json_says_everything(evaluated):
    report, folder = evaluated
    found = json.loads((folder / "metrics.json").read_text())
    assert found == json.loads(json.dumps(report.to_json()))
    assert (found["kind"], found["format"], found["files"]) == ("evaluation", 1, 6)
    assert found["command"] == "melcodec evaluate x"
    assert found["checkpoint"]["fingerprint"] == report.checkpoint.fingerprint
    assert found["settings"]["systems"][:3] == ["codes", "unquantized", "kmeans"]
    codes = found["systems"][0]
    assert codes["means"]["log_mel_l1"]["count"] == 6
    assert codes["means"]["log_mel_l1"]["low"] < codes["means"]["log_mel_l1"]["mean"] < codes["means"]["log_mel_l1"]["high"]
    assert read_metrics(folder / "metrics.json") == found


def test_the_csv_has_a_row_per_file_and_system(evaluated):
    report, folder = evaluated
    with (folder / "files.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * len(report.systems)
    codes = [row for row in rows if row["system"] == "codes"]
    assert np.mean([float(row["log_mel_l1"]) for row in codes]) == pytest.approx(report.systems[0].means["log_mel_l1"].mean)
    first = next(row for row in codes if row["id"] == "a/0")
    assert (first["speaker"], first["language"], first["dataset"], first["seen"]) == ("anna", "en", "one", "seen")
    original = next(row for row in rows if row["system"] == "original")
    assert original["log_mel_l1"] == ""
    assert "log_mel_l1: the original is what others are compared with" in original["absent"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("nonsense", "not a report of"),
        ('{"log_mel_l1": 0.95}', "not a report of melcodec evaluate"),
        ('{"kind": "comparison", "format": 1}', "holds comparison"),
        ('{"kind": "evaluation", "format": 0, "melcodec": "0.0.9"}', r"written by an older melcodec \(0.0.9, format 0"),
        ('{"kind": "evaluation", "format": 99, "melcodec": "9.0"}', "written by a newer melcodec"),
    ],
)
def test_other_metrics_files_are_refused(tmp_path, content, complaint):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(MelcodecError, match=complaint):
        read_metrics(path)
