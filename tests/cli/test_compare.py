"""melcodec compare, as people run it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from melcodec.formats.checkpoint import load_checkpoint, save_checkpoint
from melcodec.store.codes import Codes, save_codes


@pytest.fixture
def folders(tmp_path):
    for name, last in (("a", 3), ("b", 4)):
        save_codes(tmp_path / name / "x.npz", Codes(np.array([[1, 2, 2, last]]), fingerprint=name, sizes=(8,)))
    return "a", "b"


@pytest.fixture(scope="module")
def checkpoint_of_another_decoder(tiny_checkpoint, tmp_path_factory):
    found = load_checkpoint(tiny_checkpoint)
    bias = next(key for key in found.tensors if key.startswith("decoder.") and key.endswith("bias"))
    path = tmp_path_factory.mktemp("decoder") / "other.safetensors"
    save_checkpoint(path, replace(found, tensors={**found.tensors, bias: found.tensors[bias] + 0.1}))
    return path


def test_words(cli, folders):
    status, out, err = cli("compare", *folders)
    assert (status, err) == (0, "")
    assert "25.0% of 4 codes changed: a GPT trained on A's codes must be trained again for B's." in out
    assert "1 files, 4 codes: 75.0% the same, 100.0% after the best renumbering" in out
    assert "0:     3 > 4           1  100.0%" in out


def test_checkpoints_on_speech(cli, tiny_checkpoint, speech_folder):
    status, out, err = cli("compare", tiny_checkpoint, tiny_checkpoint, speech_folder, "--limit", 2, "--seed", 1)
    assert (status, err) == (0, "")
    assert "the codes are unchanged" in out
    assert "2 files, " in out
    assert "bands   0 to 7 " in out
    found = json.loads(cli("compare", tiny_checkpoint, tiny_checkpoint, speech_folder, "--json").out)
    assert (found["files"], found["exact"], found["retrain"]) == (6, 1, False)
    few = [cli("compare", tiny_checkpoint, tiny_checkpoint, speech_folder, "--limit", 2, "--seed", seed).out for seed in range(4)]
    assert len(set(few)) > 1


@pytest.mark.slow
def test_a_page_with_sounds(cli, refused, tiny_checkpoint, checkpoint_of_another_decoder, speech_folder, tmp_path):
    ran = cli("compare", tiny_checkpoint, checkpoint_of_another_decoder, speech_folder, "-o", "report")
    assert (ran.status, ran.err) == (0, "report: index.html and comparison.json\n")
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<audio") == 9
    sounds = re.findall(r'src="(data:audio[^"]*)"', page)
    assert len(set(sounds)) == 9, "original, A and B of three files all differ"
    assert page.index("Same code space") < page.index("<audio") < page.index("<table")
    found = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert found["files"] == len(found["errors"]) == 6
    worst = max(found["errors"], key=lambda name: found["errors"][name][1] - found["errors"][name][0])
    assert f"where B loses most: {worst}" in page
    again = refused("compare", tiny_checkpoint, tiny_checkpoint, speech_folder, "-o", "report")
    assert "report: holds a report" in again
    ran = cli("compare", tiny_checkpoint, tiny_checkpoint, speech_folder, "-o", "report", "-f", "--limit", 1)
    assert ran.status == 0
    assert (tmp_path / "report" / "index.html").read_text().count("<audio") == 3
    assert "is a file" in refused("compare", tiny_checkpoint, tiny_checkpoint, speech_folder, "-o", tiny_checkpoint)


def test_folders_of_codes_have_a_page_without_sounds(cli, folders, tmp_path):
    assert cli("compare", *folders, "-o", "report").status == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "25.0% of 4 codes changed" in page
    assert "<audio" not in page


def test_what_is_left_out_is_named(cli, folders, tmp_path):
    save_codes(tmp_path / "a" / "only.npy", Codes(np.array([[1, 2]])))
    status, out, err = cli("compare", *folders)
    assert status == 1
    assert "75.0% the same" in out
    assert "only: only in a" in err


def test_refusals(refused, tiny_checkpoint, folders, speech_folder):
    assert "hint: melcodec compare A B DATA" in refused("compare", tiny_checkpoint, tiny_checkpoint)
    assert "compare two checkpoints, or two folders of codes" in refused("compare", tiny_checkpoint, "a")
    assert "no such checkpoint" in refused("compare", "nothing", "nothing", speech_folder)
    assert "CUDA devices" in refused("compare", tiny_checkpoint, tiny_checkpoint, speech_folder, "--device", "cuda:99")
