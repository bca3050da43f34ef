"""melcodec bench, as people run it."""

from __future__ import annotations

import json
import re
import sys

import pytest

from melcodec.cli.bench import HEAD, show
from melcodec.formats.checkpoint import load_checkpoint


def found(cli, *options):
    status, out, err = cli("bench", "--json", *options)
    assert status == 0, err
    assert err == "" or err.count("\n") == 1
    assert "error" not in err
    return json.loads(out)


def figures(answer):
    return {figure["name"]: figure for figure in answer["figures"]}


@pytest.mark.slow
def test_json_and_every_option(cli, tiny_checkpoint):
    tiny = ("--checkpoint", tiny_checkpoint, "--device", "cpu")
    once = found(cli, *tiny, "--seconds", 0.5, "--repeats", 1)
    thrice = found(cli, *tiny, "--seconds", 1, "--repeats", 3)
    assert set(once) == {"machine", "settings", "figures"}
    assert set(once["machine"]) == {"cpu", "cores", "threads", "torch", "device", "load"}
    assert once["machine"]["device"] == "cpu"
    assert once["settings"]["fingerprint"] == load_checkpoint(tiny_checkpoint).fingerprint
    for answer, seconds in ((once, 0.5), (thrice, 1.0)):
        encode = figures(answer)["encode"]
        assert encode["median"] * encode["seconds"] == pytest.approx(seconds)
    assert figures(once)["encode"]["low"] == figures(once)["encode"]["high"]
    assert figures(thrice)["encode"]["low"] < figures(thrice)["encode"]["high"]


@pytest.mark.slow
def test_words(cli, tiny_checkpoint):
    status, out, err = cli("bench", "-c", tiny_checkpoint, "--device", "cpu", "--seconds", 0.2, "--repeats", 1)
    assert status == 0, err
    machine, asked, _, _, head, *rows = out.splitlines()
    assert ", cores " in machine
    assert asked == f"{tiny_checkpoint}, 0.2 s of speech, median of 1"
    assert head.split() == " ".join(HEAD).split()
    table, limits = rows[: rows.index("")], rows[rows.index("") + 1 :]
    assert [row.split("  ")[0] for row in table[-5:]] == ["mel", "encode", "decode", "vocoder", "training step"]
    assert all(row.index("x real time") == head.index("unit") for row in table[-5:])
    assert all(row.endswith("%") and len(row) == len(head) for row in table[-5:])
    assert [line.split("  ")[0] for line in limits] == ["mel", "encode", "decode", "vocoder", "training step"]


def test_a_terminal_gets_a_drawn_table_of_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    row = ("operation start", "12,345", "x real time", "1,344-1,401", "100%", "100%", "100%")
    show([row])
    plain = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show([row])
    drawn = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)  # without what makes it bold
    assert "─" in drawn
    assert "─" not in plain
    for text in (plain, drawn):
        assert all(cell in text for cell in (*HEAD, *row))
        assert max(map(len, text.splitlines())) <= 80


def test_refusals(cli, refused, tiny_checkpoint):
    assert "no such checkpoint" in refused("bench", "--checkpoint", "nothing")
    assert "--device cuda:99" in refused("bench", "-c", tiny_checkpoint, "--device", "cuda:99")
    assert cli("bench", "-c", tiny_checkpoint, "--seconds", "nan").status in (1, 2)  # not every typer lets NaN through
    assert cli("bench", "--seconds", 0).status == 2
    assert cli("bench", "--repeats", 0).status == 2
