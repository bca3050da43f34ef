"""What is held out."""

from __future__ import annotations

import pytest

from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.manifests.build import find_utterances
from melcodec.manifests.split import split


def corpus(count, speakers=0, prefix="u"):
    """Utterances in files of their own, by ``speakers`` in turn."""
    return [
        Utterance(f"{prefix}{i:04}", f"{prefix}{i:04}.wav", speaker=f"{prefix}s{i % speakers}" if speakers else "")
        for i in range(count)
    ]


def ids(utterances):
    return [each.id for each in utterances]


@pytest.mark.parametrize(("fraction", "count"), [(0.02, 2), (0.001, 1), (0.25, 25), (0.0, 0), (0.999, 99)])
@pytest.mark.parametrize("by", ["auto", "file"])
def test_a_share_is_held_out(fraction, count, by):
    everything = corpus(100, speakers=7)
    train, valid = split(everything, fraction, by)
    assert len(valid) == count
    assert sorted(ids(train) + ids(valid)) == ids(everything)
    assert ids(train) == sorted(ids(train))
    assert ids(valid) == sorted(ids(valid))


def test_the_choice_depends_on_names_alone_and_hardly_changes_when_others_come():
    old = corpus(200)
    held_out = set(ids(split(old, 0.1)[1]))
    assert set(ids(split(old[::-1], 0.1)[1])) == held_out
    assert len(set(ids(split(old + corpus(20, prefix="new"), 0.1)[1])) & held_out) >= 16
    spoken = corpus(1000, speakers=100)
    before = {each.speaker for each in split(spoken, 0.1)[1]}
    after = {each.speaker for each in split(spoken + corpus(50, 5, "new"), 0.1)[1]}
    assert len(before) == 10
    assert len(before & after) >= 8


@pytest.mark.parametrize(
    ("speakers", "by", "whole"), [(9, "auto", False), (10, "auto", True), (9, "speaker", True), (20, "file", False)]
)
def test_whole_speakers_are_held_out(speakers, by, whole):
    train, valid = split(corpus(360, speakers), 0.25, by)
    shared = {each.speaker for each in train} & {each.speaker for each in valid}
    assert bool(shared) == (not whole)
    if whole:
        assert len({each.speaker for each in valid}) == speakers * 90 // 360
    assert 0.2 * 360 <= len(valid) <= 0.25 * 360


def test_a_speaker_that_is_too_large_is_passed_over_and_at_least_the_smallest_is_taken():
    sizes = {"a": 500, "b": 30, "c": 20, "d": 10, "e": 440}
    spoken = [Utterance(f"{name}{i}", f"{name}{i}.wav", speaker=name) for name, size in sizes.items() for i in range(size)]
    assert {each.speaker for each in split(spoken, 0.03, "speaker")[1]} in ({"b"}, {"c", "d"})
    assert {each.speaker for each in split(spoken, 0.001, "speaker")[1]} == {"d"}
    assert {each.speaker for each in split(spoken, 0.001, "speaker")[0]} == {"a", "b", "c", "e"}


def test_who_names_no_speaker_stands_alone():
    mixed = corpus(100, 10) + corpus(100, prefix="nobody")
    train, valid = split(mixed, 0.5)
    assert len(valid) == 100
    assert 20 < sum(not each.speaker for each in valid) < 80
    named = {each.speaker for each in valid} - {""}
    assert not named & {each.speaker for each in train}


def test_speakers_that_are_not_there_cannot_be_held_out():
    with pytest.raises(MelcodecError, match="cannot be held out: none is named") as caught:
        split(corpus(5), 0.1, "speaker")
    assert caught.value.hint == "--set data.split=file holds out files"
    with pytest.raises(MelcodecError, match="only one, 'us0', is named"):
        split(corpus(5, 1), 0.1, "speaker")
    assert split(corpus(5), 0.0, "speaker")[1] == []


def test_parts_of_a_file_stay_together_unless_there_is_only_one():
    parts = [Utterance(f"{name}@{i:02}", f"{name}.wav", start=float(i)) for name in "abcde" for i in range(20)]
    valid = split(parts, 0.2)[1]
    assert (len(valid), len({each.path for each in valid})) == (20, 1)
    members = [Utterance(f"{i:03}", "x.tar", f"{i}.wav") for i in range(100)]
    assert len(split(members, 0.2)[1]) == 20
    assert len(split(parts[:20], 0.2)[1]) == 4


def test_declared_sets_are_taken_at_their_word():
    said = [
        Utterance(name, f"{name}.wav", split=split)
        for name, split in zip("abcdef", ["train", "valid", "test", "", "valid", ""], strict=True)
    ]
    train, valid = split(said, 0.5)
    assert (ids(train), ids(valid)) == (["a", "d", "f"], ["b", "e"])
    assert [ids(part) for part in split(said, 0.0)] == [["a", "d", "f"], ["b", "e"]]


@pytest.mark.parametrize("only", ["train", "valid", ""])
def test_one_set_alone_is_divided_and_test_stays_out(only):
    said = [Utterance(str(i), f"{i}.wav", split="test" if i % 2 else only) for i in range(20)]
    train, valid = split(said, 0.2)
    assert (len(train), len(valid)) == (8, 2)
    assert {each.split for each in train + valid} == {only}


def test_a_single_utterance_trains():
    assert [ids(part) for part in split(corpus(1), 0.5)] == [["u0000"], []]


def test_nothing_to_learn_from():
    with pytest.raises(MelcodecError, match="every utterance is marked as test"):
        split([Utterance("a", "a.wav", split="test")], 0.1)


def test_folders_of_speech(speech_folder):
    train, valid = split(find_utterances([speech_folder]), 0.3, "speaker")
    assert (len(train), len(valid)) == (4, 2)
    assert len({each.speaker for each in valid}) == 1
