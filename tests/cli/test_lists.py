"""Lists, archives and patterns where folders are taken: encode, roundtrip, mel-stats and the plots."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from melcodec.audio.io import Span, load
from melcodec.codec import Codec


@pytest.fixture
def tiny(tiny_checkpoint):
    return ["--checkpoint", tiny_checkpoint, "--device", "cpu"]


@pytest.fixture
def listed(examples, tmp_path):
    """list.jsonl with two stretches of one file."""
    rows = [{"id": "u/1", "path": str(examples["lj_en"]), "offset": 0, "duration": 1.5}]
    rows.append({"id": "u/2", "path": str(examples["lj_en"]), "offset": 1.5, "duration": 2})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return examples["lj_en"]


def test_encode_and_roundtrip(cli, refused, listed, tiny, tiny_checkpoint, tmp_path):
    assert cli("encode", "list.jsonl", "-o", "codes", *tiny).err == "2 files encoded\n"
    codec = Codec.from_pretrained(tiny_checkpoint, "cpu")
    expected = codec.encode(load(listed, 22_050, Span(1.5, 2.0)))[0].numpy()
    assert np.array_equal(np.load(tmp_path / "codes/u/2.npy"), expected)
    assert cli("roundtrip", "list.jsonl", "-o", "sound", *tiny).status == 0
    assert len(load(tmp_path / "sound/u/1.wav", 22_050)) == round(1.5 * 22_050)
    assert "outputs of a list need a folder" in refused("encode", "list.jsonl", *tiny)
    message = refused("encode", "list.jsonl", "-o", "c.npy", *tiny)
    assert "c.npy: list.jsonl is a list or archive; one file cannot hold" in message


def test_mel_stats_and_plots(cli, listed, tiny, tiny_checkpoint, tmp_path):
    assert "80 norms from 2 utterances" in cli("mel-stats", "list.jsonl", "-o", "norms.json").err
    assert "77 codes counted" in cli("plot", "usage", "list.jsonl", "-o", "usage.png", *tiny).err
    assert "77 codes counted" in cli("plot", "codebook", tiny_checkpoint, "list.jsonl", "-o", "book.png", "--device", "cpu").err


def test_patterns(cli, speech_folder, tiny, tmp_path):
    shutil.copytree(speech_folder, tmp_path / "data")
    (tmp_path / "data/notes.txt").touch()
    status, _, err = cli("encode", "data/*/0.wav", "-o", "codes", *tiny)
    assert (status, err) == (0, "3 files encoded\n")
    assert cli("encode", "data/**/1.wav", "-o", "codes", *tiny).err == "3 files encoded\n"
    assert len(list((tmp_path / "codes").rglob("*.npy"))) == 6


def test_a_stray_array_does_not_stand_for_the_sounds(cli, speech_folder, tiny, tmp_path):
    shutil.copytree(speech_folder / "a", tmp_path / "data")
    np.save(tmp_path / "data/stray.npy", np.zeros((1, 500), np.int64))
    counted = cli("plot", "usage", "data", "-o", "usage.png", *tiny)
    assert "1 arrays beside 2 audio files are not counted" in counted.err
    (tmp_path / "data/stray.npy").unlink()
    assert cli("plot", "usage", "data", "-o", "usage.png", "-f", *tiny).err.splitlines()[-1] == counted.err.splitlines()[-1]
    assert cli("encode", "data", *tiny).status == 0  # beside each sound: the same codes, without the checkpoint
    again = cli("plot", "usage", "data", "-o", "usage.png", "-f", *tiny).err.splitlines()[-1]
    assert again == counted.err.splitlines()[-1]


def test_roundtrip_of_a_folder(cli, refused, speech_folder, tiny, tmp_path):
    assert cli("roundtrip", speech_folder, "-o", "out", "--to", "flac", *tiny).status == 0
    assert len(list((tmp_path / "out").rglob("*.flac"))) == 6
    assert "6 existed already and were kept" in cli("roundtrip", speech_folder, "-o", "out", "--to", "flac", *tiny).err
    assert "--to xyz: not a format of sound" in refused("roundtrip", speech_folder, "-o", "out", "--to", "xyz", *tiny)
