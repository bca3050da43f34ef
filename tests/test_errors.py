from __future__ import annotations

from melcodec.errors import MelcodecError


def test_message_and_hint():
    error = MelcodecError("in.wav: no such file", "look elsewhere")
    assert (str(error), error.message, error.hint) == ("in.wav: no such file", "in.wav: no such file", "look elsewhere")
    assert MelcodecError("gone").hint is None
