"""Folders: ids, known corpora, sets and speakers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from melcodec.audio.io import load
from melcodec.manifests.build import find_utterances


def test_real_speech(speech_folder):
    found = find_utterances([speech_folder])
    assert [each.id for each in found] == ["a/0", "a/1", "b/0", "b/1", "c/0", "c/1"]
    assert [each.speaker for each in found] == ["a", "a", "b", "b", "c", "c"]
    assert all(len(load(each.path, 22_050)) > 1000 for each in found)
    assert {(each.member, each.start, each.duration, each.split) for each in found} == {("", 0.0, None, "")}


def test_ids_are_relative_paths_without_suffix(make, facts):
    make("data/a b/ü.flac", "data/v1.2/x.y.wav", "data/z.MP3", "data/notes.txt", "data/.hidden.wav", "data/.git/a.wav")
    expected = {"a b/ü": "data/a b/ü.flac", "v1.2/x.y": "data/v1.2/x.y.wav", "z": "data/z.MP3"}
    assert facts("data") == facts("data/") == facts("./data") == expected
    assert facts("data/v1.2") == {"x.y": "data/v1.2/x.y.wav"}


def test_the_folder_where_one_stands(make, facts, here):
    make("a/x.wav", "y.wav")
    assert facts(".") == {"a/x": "a/x.wav", "y": "y.wav"}
    assert facts(here) == {"a/x": str(here / "a/x.wav"), "y": str(here / "y.wav")}


def test_files_that_differ_by_suffix_alone_keep_it(make, facts):
    make("d/x.wav", "d/x.flac", "d/y.wav", "d/e/x.ogg")
    assert list(facts("d")) == ["e/x", "x.flac", "x.wav", "y"]


def test_a_circle_of_links_ends(make, facts, here):
    make("d/a/x.wav")
    (here / "d/a/up").symlink_to(here / "d")
    (here / "d/b").symlink_to(here / "d/a")
    assert list(facts("d")) == ["a/x", "b/x"]


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names are UTF-8 there")
def test_a_name_that_is_no_utf8_has_an_id_that_is(here):
    (here / "d").mkdir()
    open(os.fsencode(here) + b"/d/caf\xe9.wav", "w").close()
    (found,) = find_utterances(["d"])
    assert found.id == r"caf\xe9"
    assert Path(found.path).is_file()


def test_an_empty_folder(make, refusal, here):
    make("d/notes.txt", "t/shard-0.tar")
    error = refusal("d")
    assert (error.message, error.hint) == ("no audio files in d", "wav, flac, mp3, ogg and opus are read")
    assert refusal("t").hint == "for the archives there, 't/*.tar'"


@pytest.mark.parametrize(("train", "valid"), [("train", "valid"), ("training", "validation"), ("Train", "dev"), ("train", "val")])
def test_folders_named_train_and_valid_are_taken_at_their_word(make, facts, train, valid):
    make(f"d/{train}/a.wav", f"d/{train}/deep/b.flac", f"d/{valid}/c.wav", "d/test/e.wav", "d/noise/f.wav", "d/g.wav")
    assert facts("d", fields=("split",)) == {
        f"{train}/a": "train",
        f"{train}/deep/b": "train",
        f"{valid}/c": "valid",
        "test/e": "test",  # and so is all that lies beside the two
        "noise/f": "test",
        "g": "test",
    }


@pytest.mark.parametrize(
    "names", [["train/a.wav", "other/b.wav"], ["train/a.wav", "test/b.wav"], ["valid/a.wav", "deep/train/b.wav"]]
)
def test_one_of_the_two_alone_is_a_folder_like_any_other(make, facts, names):
    make(*(f"d/{name}" for name in names))
    assert set(facts("d", fields=("split",)).values()) == {""}


@pytest.mark.parametrize(
    ("names", "speakers"),
    [
        (["ann/a.wav", "ann/deep/b.wav", "bob/c.wav"], ["ann", "ann", "bob"]),
        (["ann/a.wav", "bob/c.wav", "d.wav"], ["", "", ""]),  # one lies outside
        (["wavs/a.wav", "wavs/b.wav"], ["", ""]),  # one folder is no choice of speakers
        (["train/ann/a.wav", "train/bob/b.wav", "valid/cid/c.wav", "x.wav"], ["ann", "bob", "cid", ""]),
        (["train/a.wav", "train/bob/b.wav", "valid/cid/c.wav"], ["", "", ""]),
        (["train/a.wav", "valid/b.wav"], ["", ""]),
    ],
)
def test_the_first_folder_is_the_speaker_when_there_are_several(make, facts, names, speakers):
    make(*(f"d/{name}" for name in names))
    assert [facts("d", fields=("speaker",))[name[:-4]] for name in names] == speakers


def test_ljspeech(make, facts):
    make("LJ/wavs/LJ001-0001.wav", "LJ/wavs/LJ001-0002.wav", "LJ/wavs/LJ001-0003.wav", "all/LJ/wavs/LJ001-0001.wav")
    for folder in ("LJ", "all/LJ"):
        make(f"{folder}/metadata.csv", text='LJ001-0001|Printing, in 1455|Printing, in "fourteen"\nLJ001-0002|plain|\n')
    spoken = {"LJ001-0001": 'Printing, in "fourteen"', "LJ001-0002": "plain", "LJ001-0003": ""}
    assert facts("LJ", fields=("text",)) == facts("LJ/wavs", fields=("text",)) == spoken
    assert facts("LJ")["LJ001-0001"] == "LJ/wavs/LJ001-0001.wav"
    assert facts("all", fields=("text",)) == {"LJ/LJ001-0001": spoken["LJ001-0001"]}
    # the list itself gives the same ids, of what it lists
    listed = facts("LJ/metadata.csv", fields=("path", "text"))
    assert listed == {name: (f"LJ/wavs/{name}.wav", text) for name, text in spoken.items() if text}


def test_wavs_beside_some_other_list(make, facts):
    make("d/wavs/a.wav")
    make("d/metadata.csv", text="colour,size\nred,3\n")
    assert facts("d") == {"wavs/a": "d/wavs/a.wav"}


def test_vctk(make, facts):
    for name in ("p225/p225_001_mic1.flac", "p225/p225_001_mic2.flac", "s5/s5_002_mic1.flac"):
        make(f"VCTK/wav48_silence_trimmed/{name}")
    make("VCTK/txt/p225/p225_001.txt", text="Please call Stella.\n")
    assert facts("VCTK", fields=("speaker", "text")) == {
        "wav48_silence_trimmed/p225/p225_001_mic1": ("p225", "Please call Stella."),
        "wav48_silence_trimmed/p225/p225_001_mic2": ("p225", "Please call Stella."),
        "wav48_silence_trimmed/s5/s5_002_mic1": ("s5", ""),
    }
    assert facts("VCTK/wav48_silence_trimmed/p225", fields=("speaker", "text"))["p225_001_mic1"] == (
        "p225",
        "Please call Stella.",
    )


def test_librispeech_and_libritts(make, facts):
    make(
        "L/train-clean-100/84/1/84-1-0000.flac",
        "L/train-clean-100/84/1/84-1-0001.flac",
        "L/dev-clean/85/2/85_2_000003_000000.wav",
    )
    make("L/train-clean-100/84/1/84-1.trans.txt", text="84-1-0000 GO DO\n84-1-0001 YOU HEAR\n")
    make("L/dev-clean/85/2/85_2_000003_000000.normalized.txt", text="Well, now!")
    make("L/test-other/86/3/86-3-0000.flac", "L/SPEAKERS.TXT")
    assert facts("L", fields=("speaker", "split", "text")) == {
        "train-clean-100/84/1/84-1-0000": ("84", "train", "GO DO"),
        "train-clean-100/84/1/84-1-0001": ("84", "train", "YOU HEAR"),
        "dev-clean/85/2/85_2_000003_000000": ("85", "valid", "Well, now!"),
        "test-other/86/3/86-3-0000": ("86", "test", ""),
    }
    # a subset named by itself knows what it is
    assert facts("L/dev-clean", fields=("speaker", "split", "text")) == {"85/2/85_2_000003_000000": ("85", "valid", "Well, now!")}


def test_known_trees_side_by_side(make, facts):
    make("d/Libri/84/1/84-1-0000.flac", "d/VCTK/wav48/p225/p225_001.wav", "d/mine/x.wav")
    assert facts("d", fields=("speaker",)) == {"Libri/84/1/84-1-0000": "84", "VCTK/wav48/p225/p225_001": "p225", "mine/x": ""}
