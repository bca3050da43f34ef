"""``melcodec preprocess``: what it writes, says and returns. The driver behind it has its own tests."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

from melcodec.audio.io import load
from melcodec.cli import preprocess as command
from melcodec.corpus import driver
from melcodec.corpus.progress import Busy, Snapshot
from melcodec.corpus.reading import Rules
from melcodec.store.finalize import Summary
from melcodec.store.parquet import read_rows


@pytest.fixture
def preprocess(cli, tiny_checkpoint):
    """preprocess(*words) with the tiny checkpoint, one worker, into codes/."""
    return lambda *words: cli("preprocess", *words, "-o", "codes", "-c", tiny_checkpoint, "--device", "cpu", "--num-workers", 1)


def test_a_folder_becomes_codes(preprocess, speech_folder, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PLAIN_SECONDS", 0.0)
    status, out, err = preprocess(speech_folder, "--unit-size", 4, "--json")
    assert status == 0
    answer = json.loads(out)
    assert (answer["success"], answer["utterances"], answer["ok"], answer["units"], answer["failures"]) == (True, 6, 6, 2, 0)
    assert answer["seconds"] == pytest.approx(answer["seconds_now"], abs=0.01)
    assert answer["hours_per_minute"] == pytest.approx(answer["seconds"] / 60 / answer["elapsed"], rel=0.01)
    assert "codes: 6 of 6 utterances have codes: 7.0 seconds" in err
    assert re.search(r"^\d/6 utterances, 0 failed, \d+\.\d+ (hours|minutes|seconds) of audio per minute", err, re.MULTILINE)
    rows = [row for path in sorted((tmp_path / "codes/parts").glob("*.parquet")) for row in read_rows(path)]
    assert [row.id for row in rows] == ["a/0", "a/1", "b/0", "b/1", "c/0", "c/1"]
    assert rows[0].codes.shape == (1, len(load(speech_folder / "a/0.wav", 22_050)) // 1024 + 1)


@pytest.fixture
def bad_folder(speech_folder, examples, tmp_path):
    """Six good files, one that is truncated and one that is no sound."""
    folder = tmp_path / "bad"
    shutil.copytree(speech_folder, folder)
    (folder / "cut.flac").write_bytes(examples["lj_en"].read_bytes()[:60_000])
    (folder / "text.wav").write_text("this is not sound")
    return folder


def test_failures_are_a_table_and_a_status(preprocess, bad_folder, tmp_path):
    status, out, err = preprocess(bad_folder)
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert "codes: 6 of 8 utterances have codes: 7.0 seconds" in lines
    table = [line.split(maxsplit=2) for line in lines if line.startswith("  ")]
    assert [row[:2] for row in table] == [["truncated", "1"], ["unreadable", "1"]]
    assert f"{bad_folder}/cut.flac" in table[0][2]
    assert "hint: all of them are in codes/failures.jsonl; --retry-failed tries them again" in lines
    failures = [json.loads(line) for line in (tmp_path / "codes/failures.jsonl").read_text().splitlines()]
    assert [(line["id"], line["status"]) for line in failures] == [("cut", "truncated"), ("text", "unreadable")]

    # how many may fail, and whether truncated ones count, is asked anew every time
    for words, expected in [
        (["--max-failures", "1"], 1),
        (["--max-failures", "2"], 0),
        (["--max-failures", "24%"], 1),
        (["--max-failures", "25%"], 0),
        (["--max-failures", "1", "--on-truncated", "drop"], 0),
        (["--on-truncated", "drop"], 1),
        (["--on-truncated", "fail", "--max-failures", "1"], 1),
    ]:
        assert preprocess(bad_folder, *words, "--json").status == expected, words
    # but other codes are another run
    status, _, err = preprocess(bad_folder, "--on-truncated", "keep")
    assert status == 1
    assert "--on-truncated was fail or drop and is keep" in err


def test_truncated_files_may_be_kept(preprocess, bad_folder, tmp_path):
    status, out, err = preprocess(bad_folder, "--on-truncated", "keep", "--max-failures", "1", "--json")
    assert status == 0
    assert "7 of 8 utterances have codes, 1 of them of truncated files" in err
    answer = json.loads(out)
    assert (answer["ok"], answer["kept"], answer["failed"]) == (6, 1, {"unreadable": 1})
    (row,) = [row for row in read_rows(tmp_path / "codes/parts/0000-00000.parquet") if row.id == "cut"]
    assert row.status == "truncated"
    assert row.codes.size
    assert np.all(row.codes < 32)


def test_every_option_reaches_the_job(cli, speech_folder, examples, monkeypatch):
    seen = []

    def noted(utterances, folder, job, callbacks):
        seen.append((len(utterances), str(folder), job))
        return Summary("f", 1, 1, utterances=6, ok=6)

    monkeypatch.setattr(driver, "preprocess", noted)
    assert cli("preprocess", speech_folder, "-o", "x").status == 0
    words = "--checkpoint c --device cuda:1 --num-workers 3 --engine ray --address host:1 --unit-size 7 --unit-timeout 9.5"
    words = [*words.split(), "--min-seconds", 0.25, "--retry-failed"]
    assert cli("preprocess", speech_folder, examples["lj_en"], "-o", "y", *words).status == 0
    assert seen == [
        (6, "x", driver.PreprocessSettings()),
        (7, "y", driver.PreprocessSettings("c", Rules("drop", 0.25), "cuda:1", 3, "ray", "host:1", 7, 9.5, retry_failed=True)),
    ]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nothing"], "nothing: no such file or folder"),
        (["{speech}", "--max-failures", "some"], "--max-failures some: is neither a count nor a share"),
        (["{speech}", "--checkpoint", "gone"], "gone: no such checkpoint"),
        (["{speech}", "--device", "abacus"], "--device abacus: no such kind of device"),
    ],
)
def test_refusals(refused, speech_folder, tmp_path, words, complaint):
    assert complaint in refused("preprocess", *(word.format(speech=speech_folder) for word in words), "-o", "codes")
    assert not (tmp_path / "codes").exists()


def test_a_file_is_no_folder(refused, speech_folder, tiny_checkpoint, tmp_path):
    (tmp_path / "x.txt").write_text("mine")
    said = refused("preprocess", speech_folder, "-o", "x.txt", "-c", tiny_checkpoint, "--device", "cpu")
    assert said == "error: x.txt: is a file; a folder was expected\n"


def test_failed_ones_are_tried_again(preprocess, bad_folder, examples, tmp_path):
    assert preprocess(bad_folder).status == 1
    for name, example in [("cut.flac", "lj_en"), ("text.wav", "nathalie_nl")]:
        shutil.copy(examples[example], bad_folder / name)
    assert preprocess(bad_folder).status == 1
    status, out, err = preprocess(bad_folder, "--retry-failed", "--json")
    assert status == 0, err
    assert (json.loads(out)["ok"], json.loads(out)["failed"]) == (8, {})
    assert (tmp_path / "codes/failures.jsonl").read_text() == ""
    assert not (tmp_path / "codes/retry.json").exists()


def test_ray_is_an_extra(refused, speech_folder, tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    said = refused("preprocess", speech_folder, "-o", "codes", "-c", tiny_checkpoint, "--engine", "ray")
    assert "hint: pip install 'melcodec[ray]'" in said


@pytest.mark.parametrize(
    "words", [["--on-truncated", "hide"], ["--engine", "spark"], ["--num-workers", "-1"], ["--unit-timeout", "0"]]
)
def test_wrong_usage(cli, speech_folder, words):
    assert cli("preprocess", speech_folder, "-o", "codes", *words).status == 2


def test_missing_utterances_are_never_a_success(cli, speech_folder, monkeypatch):
    summary = Summary("f", 1, 1, utterances=6, ok=5, missing=1, stuck={"0000-00000": "killed its worker"})
    monkeypatch.setattr(driver, "preprocess", lambda *_: summary)
    status, _, err = cli("preprocess", speech_folder, "-o", "codes", "--max-failures", "100%")
    assert status == 1
    assert "  missing           1  0000-00000: killed its worker" in err.splitlines()


NOW = Snapshot(120, 4000, 3, 40, 2, 7200.0, 60.0, 600.0, {0: Busy("0000-00002", 20, 100), 3: Busy("0000-00003", 50, 100)})


def test_a_plain_line(capsys, monkeypatch):
    lines = command.Lines()
    lines.show(NOW)
    assert capsys.readouterr().err == ""  # ten seconds are not over
    monkeypatch.setattr(command, "PLAIN_SECONDS", 0.0)
    lines.show(NOW)
    lines.show(Snapshot(0, 10, 0, 1, 0, 0.0, 0.0, None, {}))
    assert capsys.readouterr().err.splitlines() == [
        "120/4000 utterances, 2 failed, 2.00 hours of audio per minute, 10 min left; "
        "worker 0: 20/100 of 0000-00002, 3: 50/100 of 0000-00003",
        "0/10 utterances, 0 failed",
    ]


@pytest.mark.parametrize(
    ("seconds", "elapsed", "left", "words"),
    [
        (7200.0, 60.0, 120.0, "2 failed, 2.00 hours of audio per minute, 2 min left"),
        (1800.0, 60.0, 119.0, "2 failed, 30.0 minutes of audio per minute, 119 s left"),
        (90.0, 120.0, 0.3, "2 failed, 45.0 seconds of audio per minute, 1 s left"),
        (90.0, 1.0, 0.0, "2 failed, 1.50 hours of audio per minute"),
    ],
)
def test_units_that_say_something(seconds, elapsed, left, words):
    assert command.in_words(replace(NOW, seconds=seconds, elapsed=elapsed, left=left)) == words


SIGHUP = """
import os, pty, sys
from melcodec.cli._console import say, stop_on_signals
pid, terminal = pty.fork()
if pid:
    os.read(terminal, 5)
    os.close(terminal)  # as when ssh drops
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    with stop_on_signals() as stopped:
        say("ready")
        while not stopped:
            pass
        say("stopped, and the last work is done")
        sys.stdout.write("so it is")
        os.kill(os.getpid(), stopped[0])  # a shell passes it on
    os._exit(stopped[0] + 50)
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_a_terminal_that_is_gone_stops_and_breaks_nothing(run_python):
    assert run_python(f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL){SIGHUP}") == f"{signal.SIGHUP + 50}\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_bars_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    with command.shown() as show:
        show(NOW)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"all .* 120/4000 2 failed, 2.00 hours of audio per minute, 10 min left", text)
    assert re.search(r"worker 3 .* 50/100 +of 0000-00003", text)
