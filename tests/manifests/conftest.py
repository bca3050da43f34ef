"""Folders and lists to read, in an empty working folder."""

from __future__ import annotations

import pytest

from melcodec.errors import MelcodecError
from melcodec.manifests.build import find_utterances


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The empty folder where the user stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(here):
    """make("a.wav", text="...") writes files, empty if not told otherwise: only names are looked at."""

    def write(*names, text=""):
        for name in names:
            path = here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    return write


@pytest.fixture
def refusal(here):
    """refusal(sources...) -> the MelcodecError they raise."""

    def read(*sources) -> MelcodecError:
        with pytest.raises(MelcodecError) as caught:
            find_utterances(sources)
        return caught.value

    return read


@pytest.fixture
def facts(here):
    """facts(sources..., "speaker", ...): id -> the named fields, of every utterance in order."""

    def read(*sources, fields=("path",)):
        found = find_utterances(sources)
        values = {each.id: tuple(getattr(each, field) for field in fields) for each in found}
        assert list(values) == sorted(values)
        assert len(values) == len(found)
        return {name: value[0] if len(fields) == 1 else value for name, value in values.items()}

    return read
