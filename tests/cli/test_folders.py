"""What a folder holds is done, counted or a failure: in every command that walks through one."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import soundfile

from melcodec.store.codes import Codes, save_codes

# every line of the last argument is a command; one process for all, because it takes seconds to import torch
MAIN = """
import contextlib, io, json, sys
from melcodec.cli.main import main
for line in sys.argv[1].splitlines():
    sys.argv = ["melcodec", *line.split()]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    print(json.dumps([line, status, out.getvalue(), err.getvalue()]))
"""


@pytest.fixture
def data(tmp_path, speech_folder):
    """data/ with two folders of speech, one of which may not be entered, a text and a folder of codes."""
    for name in ("open", "private"):
        shutil.copytree(speech_folder / "a", tmp_path / "data" / name)
    (tmp_path / "data/notes.txt").write_text("not sound")
    for name in ("open", "private"):
        save_codes(tmp_path / f"codes/{name}/x.npz", Codes(np.arange(8)[None], 8000, 22_050, None, (32,)))
    (tmp_path / "codes/notes.txt").write_text("no codes")
    for folder in (tmp_path / "data/private", tmp_path / "codes/private"):
        folder.chmod(0o000)
    yield tmp_path
    for folder in (tmp_path / "data/private", tmp_path / "codes/private"):
        folder.chmod(0o755)  # so that it can be removed


def ran(bound_by_permissions, *commands):
    """[command, status, stdout, stderr] of each."""
    done = bound_by_permissions(MAIN, "\n".join(commands))
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_closed_folder_is_a_failure_and_the_others_are_done(data, tiny_checkpoint, bound_by_permissions):
    tiny = f"--checkpoint {tiny_checkpoint} --device cpu"
    for line, status, out, err in ran(bound_by_permissions, f"encode data -o encoded {tiny}", f"decode codes -o decoded {tiny}"):
        command, folder, _, output, *_ = line.split()
        assert (status, out) == (1, ""), err
        assert f"1 failed:\n  {folder}/private: Permission denied\n" in err
        assert f"not taken for {'codes' if command == 'decode' else 'audio'}: 1 .txt\n" in err
        made = [path for path in (data / output / "open").iterdir() if not path.name.startswith(".")]  # the list apart
        assert len(made) == (1 if command == "decode" else 2)
        (row,) = map(json.loads, (data / output / "failures.jsonl").read_text().splitlines())
        assert row["path"] == f"{folder}/private"


@pytest.mark.slow
def test_a_closed_folder_ends_what_needs_the_whole(data, tiny_checkpoint, bound_by_permissions):
    patterns = ("data", "data/*/*.wav", "data/**/*.wav", "data/{open,private}/*.wav", "data/*/0.wav")
    tiny = f"--checkpoint {tiny_checkpoint} --device cpu"
    for line, status, out, err in ran(
        bound_by_permissions,
        *(f"preprocess {pattern} -o out {tiny}" for pattern in patterns),
        "train data -o out --preset tiny --device cpu",
        f"evaluate data -o out --checkpoint {tiny_checkpoint} --no-anchors --metrics core",
        f"compare {tiny_checkpoint} {tiny_checkpoint} data",
        "compare codes codes",
        "mel-stats data -o out.npy",
        f"plot usage data -o out.png {tiny}",
        f"plot usage codes -o out.png {tiny}",
        f"plot codebook {tiny_checkpoint} data -o out.png --device cpu",
    ):
        assert (status, out) == (1, ""), (line, err)
        assert err.startswith("error: "), line
        assert re.search(r"(data|codes)/private.*: Permission denied", err.splitlines()[0]), (line, err)
    assert not list(data.glob("out*/[!c]*"))
    assert not list(data.glob("out.*"))


SUFFIXES = {"wave": "WAV", "sph": "NIST", "voc": "VOC", "oga": "OGG", "mp2": "MP3", "mpga": "MP3", "bwf": "WAV", "iff": "SVX"}


def test_one_list_of_suffixes_for_files_and_folders(cli, golden, tiny_checkpoint, tmp_path):
    (tmp_path / "data").mkdir()
    for suffix, kind in SUFFIXES.items():
        soundfile.write(tmp_path / f"data/{suffix}.{suffix}", golden["0.wav"], 22_050, format=kind)
    status, _, err = cli("encode", "data", "-o", "codes", "--checkpoint", tiny_checkpoint, "--device", "cpu")
    assert status == 0, err
    assert f"{len(SUFFIXES)} files encoded\n" in err
    assert {path.stem for path in (tmp_path / "codes").glob("[!.]*")} == set(SUFFIXES)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate", "preprocess", "compare"])
def test_what_was_not_taken_is_counted(cli, speech_folder, tiny_checkpoint, tmp_path, command):
    shutil.copytree(speech_folder / "a", tmp_path / "data")
    for name in ("0.txt", "1.txt", "notes.pdf"):
        (tmp_path / "data" / name).touch()
    words = {
        "train": ["data", "-o", "run", "--preset", "tiny", "--set", "train.steps=1", "--device", "cpu"],
        "evaluate": [
            "data",
            "-o",
            "out",
            "--checkpoint",
            tiny_checkpoint,
            "--no-anchors",
            "--metrics",
            "core",
            "--num-workers",
            1,
        ],
        "preprocess": ["data", "-o", "out", "--checkpoint", tiny_checkpoint, "--device", "cpu", "--num-workers", 1],
        "compare": [tiny_checkpoint, tiny_checkpoint, "data"],
    }[command]
    status, _, err = cli(command, *words)
    assert status == 0, err
    assert err.count("not taken for audio: 2 .txt, 1 .pdf\n") == 1
