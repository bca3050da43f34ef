from __future__ import annotations

import pickle

import pytest

from melcodec.errors import MelcodecError, from_os


def test_message_and_hint():
    error = MelcodecError("in.wav: no such file", "look elsewhere")
    assert (str(error), error.message, error.hint) == ("in.wav: no such file", "in.wav: no such file", "look elsewhere")
    assert MelcodecError("gone").hint is None


def test_a_code_survives_another_process_and_another_name():
    error = MelcodecError("ends early", "copy it again", "truncated")
    assert MelcodecError("gone").code == "invalid"
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    named = error.about("in.wav")
    assert (named.message, named.hint, named.code) == ("in.wav: ends early", "copy it again", "truncated")


def test_what_the_system_refuses_has_a_code(tmp_path):
    for name, code in {"missing": "missing", ".": "unreadable"}.items():
        with pytest.raises(OSError, match=r"No such file|directory") as caught:
            (tmp_path / name).read_bytes()
        assert from_os(caught.value).code == code
