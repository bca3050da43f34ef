"""melcodec compare, as people run it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from melcodec.store.codes import Codes, save_codes


@pytest.fixture
def folders(tmp_path):
    for name, last in (("a", 3), ("b", 4)):
        save_codes(tmp_path / name / "x.npz", Codes(np.array([[1, 2, 2, last]]), fingerprint=name, sizes=(8,)))
    return "a", "b"


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


def test_what_is_left_out_is_named(cli, folders, tmp_path):
    save_codes(tmp_path / "a" / "only.npy", Codes(np.array([[1, 2]])))
    status, out, err = cli("compare", *folders)
    assert status == 1
    assert "75.0% the same" in out
    assert "only: only in a" in err


def test_refusals(refused, tiny_checkpoint, folders, speech_folder):
    assert "hint: melcodec compare A B DATA" in refused("compare", tiny_checkpoint, tiny_checkpoint)
    assert "compare two of a kind" in refused("compare", tiny_checkpoint, "a")
    assert "no such checkpoint" in refused("compare", "nothing", "nothing", speech_folder)
    assert "CUDA devices" in refused("compare", tiny_checkpoint, tiny_checkpoint, speech_folder, "--device", "cuda:99")
