"""Folders: what is taken, what is counted, and what cannot be entered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from melcodec.audio.io import is_audio
from melcodec.errors import MelcodecError
from melcodec.walk import walk


def test_what_is_not_taken_is_counted_by_kind(tmp_path):
    own = [".melcodec.jsonl", "b/.melcodec.jsonl", "b/failures.jsonl"]  # of melcodec: not counted
    names = [*own, "a.wav", "b/c.SPH", "b/c.txt", "notes.txt", "x.TXT", "README", ".hidden.wav", ".git/x.wav", "b/x.pdf"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "lost+found").mkdir(0o000)  # of every disk; nobody's speech
    os.mkfifo(tmp_path / "pipe.wav")
    found = walk(tmp_path, is_audio)
    assert found.files == found.checked() == [tmp_path / "a.wav", tmp_path / "b/c.SPH"]
    assert dict(found.others) == {
        ".txt": 3,
        "without a suffix": 1,
        "hidden": 2,
        ".pdf": 1,
        "links back to a folder above": 1,
        "pipes or devices": 1,
    }
    said = found.not_taken("audio")
    assert said.startswith("not taken for audio: 3 .txt, 2 hidden, 1 ")
    for index in range(5):
        (tmp_path / f"x.{index}").touch()
    assert walk(tmp_path, is_audio).not_taken("audio").endswith(", 5 of other kinds")
    assert walk(tmp_path / "b" / "nothing", is_audio).not_taken("audio") == ""


def test_folders_that_cannot_be_entered(tmp_path, bound_by_permissions):
    for folder in ("closed", "listed", "open"):
        (tmp_path / folder / "in").mkdir(parents=True)
        (tmp_path / folder / "in/a.wav").touch()
    (tmp_path / "closed").chmod(0o000)
    (tmp_path / "listed").chmod(0o644)  # what is in it has names, and nothing else
    script = """
from pathlib import Path
from melcodec.audio.io import is_audio
from melcodec.walk import walk
found = walk(Path("."), is_audio)
print(found.files, *(f"{path}: {error.message}" for path, error in found.closed.items()), sep="|")
"""
    ran = bound_by_permissions(script)
    assert ran.status == 0, ran.err
    files, *closed = ran.out.strip().split("|")
    assert files == "[PosixPath('open/in/a.wav')]"
    assert sorted(closed) == ["closed: ./closed: Permission denied", "listed/in: ./listed/in: Permission denied"]


def test_one_closed_folder_is_an_error_for_who_wants_all(tmp_path):
    with pytest.raises(MelcodecError, match="nothing: No such file"):
        walk(Path(tmp_path / "nothing"), is_audio).checked()
