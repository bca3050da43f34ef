"""The list of a folder's outputs: what is current, what is outdated, what is of another recipe, whatever happened to it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from melcodec.store import outputs
from melcodec.store.codes import Codes, file_facts, load_codes, save_codes
from melcodec.store.outputs import LIST, note, others, state

RECIPE = {"command": "encode", "fingerprint": "0123456789ab"}


@pytest.fixture
def made(tmp_path):
    """made(name): an output from its source, listed."""

    def make(name="a", recipe=RECIPE):
        source, output = tmp_path / f"{name}.wav", tmp_path / "out" / f"{name}.npy"
        source.write_text("sound")
        note(output, source, recipe)
        output.write_text("codes")
        return output, source

    return make


def test_what_becomes_of_an_output(made, tmp_path):
    output, source = made()
    assert state(tmp_path / "out/b.npy", source, RECIPE) == "absent"
    assert state(output, source, RECIPE) == "current"
    assert state(output, source, RECIPE | {"fingerprint": "ffffffffffff"}) == "other"
    assert state(output, source, RECIPE, "#1") == "outdated"
    os.utime(source, ns=(0, 0))
    assert state(output, source, RECIPE) == "outdated"
    made()
    source.write_text("other sound")
    assert state(output, source, RECIPE) == "outdated"
    (tmp_path / "out" / LIST).unlink()
    assert state(output, source, RECIPE) == "unlisted"


def test_a_kill_between_list_and_output_leaves_nothing_that_is_wrong(made):
    output, source = made()
    note(output, source, RECIPE | {"fingerprint": "ffffffffffff"})
    assert not output.exists()


@pytest.mark.parametrize("torn", [b'{"output": "a.npy", "sou', b"\xff\xff", b"[]\n", b'{"other": 1}\n'])
def test_a_torn_line_takes_no_other_with_it(made, tmp_path, torn):
    first = made("a")
    with (tmp_path / "out" / LIST).open("ab") as file:
        file.write(torn)
    outputs._read.clear()
    second = made("b")
    assert state(*first, RECIPE) == state(*second, RECIPE) == "current"


def test_a_list_may_be_replaced_while_it_is_known(made, tmp_path):
    first, second = made("a"), made("b")
    assert state(*second, RECIPE) == "current"
    path = tmp_path / "out" / LIST
    line = path.read_bytes().splitlines(keepends=True)[0]
    path.unlink()
    path.write_bytes(line)
    assert (state(*first, RECIPE), state(*second, RECIPE)) == ("current", "unlisted")


def test_others_are_those_of_the_same_command_under_another_recipe(made, tmp_path):
    kept, _ = made("a")
    made("b", {"command": "decode", "checkpoint": "x"})
    gone, _ = made("c")
    gone.unlink()
    changed = RECIPE | {"fingerprint": "ffffffffffff"}
    assert others(tmp_path, [], RECIPE) == []
    assert [path for path, _ in others(tmp_path, [], changed)] == [kept]
    assert others(tmp_path, [kept], changed) == []


def test_a_npy_has_its_facts_in_the_list_as_long_as_it_is_that_one(tmp_path):
    known = Codes(np.array([[1, 2, 3]]), 2_500, 16_000, "0123456789ab", (8,))
    path = tmp_path / "a.npy"
    note(path, tmp_path / "a.wav", RECIPE, file_facts(known))
    save_codes(path, known)
    assert load_codes(path).facts == known.facts
    np.save(path, np.array([[1, 2, 4]], np.uint8))  # by another program
    assert load_codes(path).facts == {}
