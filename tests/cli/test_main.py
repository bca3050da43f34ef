"""The program as the shell sees it: what the system refuses, readers that leave, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MELCODEC = [sys.executable, "-m", "melcodec"]


@pytest.fixture(params=["buffered", "unbuffered"])
def environment(request):
    """What is printed fails when it is printed, or when the program ends."""
    rest = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return rest if request.param == "buffered" else rest | {"PYTHONUNBUFFERED": "1"}


def test_a_name_too_long_is_one_line(refused, tiny_checkpoint):
    name = "a" * 300 + ".wav"
    for command in (["encode", name, "-o", "c.npy"], ["info", name], ["roundtrip", name, "-o", "x.wav"]):
        assert f"error: {name}: File name too long\n" in refused(*command)


def test_a_folder_that_may_not_be_searched_is_one_line(tmp_path, refused):
    (tmp_path / "closed").mkdir(mode=0o600)
    if os.access(tmp_path / "closed" / ".", os.X_OK):
        pytest.skip("this user may search every folder")
    assert "Permission denied" in refused("info", "closed/c.npy")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout(tiny_checkpoint, environment):
    command = [*MELCODEC, "info", str(tiny_checkpoint)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["info", "CHECKPOINT"], ["info", "CHECKPOINT", "--json"]])
def test_a_reader_that_left(tiny_checkpoint, command, environment):
    """As in ``melcodec info x | true``: no traceback, and none of python's remarks at exit."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [str(tiny_checkpoint) if word == "CHECKPOINT" else word for word in command]
    done = subprocess.run([*MELCODEC, *words], stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_ctrl_c(tiny_checkpoint, tmp_path):
    """130 or, by typer before 0.13, ``Aborted.`` and 1; and no output is left behind."""
    command = [*MELCODEC, "encode", "-", "-o", str(tmp_path / "c.npy"), "--checkpoint", str(tiny_checkpoint), "--device", "cpu"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(bytes(1 << 20))  # more than a pipe holds: returns once standard input is being read
    child.send_signal(signal.SIGINT)
    child.wait(timeout=60)  # with its input still open, as a terminal is
    _, err = child.communicate()
    assert child.returncode in (1, 130)
    assert err.decode().strip() in ("", "Aborted.")
    assert list(tmp_path.iterdir()) == []
