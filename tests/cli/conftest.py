"""Running the command line: in this process when it is only words, in a real one when it is the point."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from melcodec.cli.main import main


class Ran(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """cli("encode", path, "-o", path) -> (status, stdout, stderr), in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["melcodec", *map(str, args)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


@pytest.fixture
def refused(cli):
    """Run, and insist on one line, perhaps a hint, status 1, no traceback and nothing on stdout; returns stderr."""

    def run(*args: object) -> str:
        status, out, err = cli(*args)
        lines = err.strip().splitlines()
        assert status == 1, err
        assert out == ""
        assert lines[0].startswith("error: "), err
        assert len(lines) <= 2, err
        assert all(line.startswith("hint: ") for line in lines[1:]), err
        return err

    return run
