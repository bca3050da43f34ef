"""Why an utterance has no codes, whatever its folders are called."""

import tarfile

import numpy as np
import pytest
import soundfile

from melcodec.corpus.reading import opened, reason
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance

RATE = 16_000
WORDS = [
    "damaged after fire",
    "damaged before 1.00 s",
    "NaN or infinity",
    "holds no samples",
    "x: truncated: y",
    "lies past the end",
    "the stretch lies past the end",
]


def why(utterance):
    with pytest.raises(MelcodecError) as caught, opened(utterance, RATE) as stream:
        list(stream)
    return reason(caught.value)


@pytest.fixture(params=WORDS)
def broken(request, tmp_path):
    """Utterances by reason, in a folder that is called like another reason."""
    folder = tmp_path / request.param
    folder.mkdir()
    wave = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    soundfile.write(folder / "whole.wav", wave, RATE)
    content = (folder / "whole.wav").read_bytes()
    (folder / "cut.wav").write_bytes(content[:9_000])
    soundfile.write(folder / "cut.flac", wave, RATE)
    (folder / "cut.flac").write_bytes((folder / "cut.flac").read_bytes()[:9_000])
    (folder / "text.wav").write_text("words")
    wave[99] = np.nan
    soundfile.write(folder / "nan.wav", wave, RATE, subtype="FLOAT")
    soundfile.write(folder / "none.wav", wave[:0], RATE)
    soundfile.write(folder / "rate.wav", wave[:99], 999)
    return folder


def test_only_what_is_said_of_a_file_counts(broken):
    for name, status in {
        "text.wav": "unreadable",
        "missing.wav": "unreadable",
        "rate.wav": "unreadable",
        "cut.wav": "truncated",
        "cut.flac": "truncated",
        "nan.wav": "nan",
        "none.wav": "too-short",
    }.items():
        assert why(Utterance(name, str(broken / name))) == status, name
    whole = str(broken / "whole.wav")
    assert why(Utterance("late", whole, start=5.0, duration=1.0)) == "truncated"
    assert why(Utterance("empty", whole, start=0.5, duration=1e-9)) == "too-short"


def test_members_are_judged_as_files_are(broken):
    shard = broken / f"{broken.name}.tar"
    with tarfile.open(shard, "w") as archive:
        for path in sorted(broken.glob("*.wav")):
            archive.add(path, f"{broken.name}/{path.name}")
    for name, status in {"text.wav": "unreadable", "missing.wav": "unreadable", "cut.wav": "truncated", "nan.wav": "nan"}.items():
        assert why(Utterance(name, str(shard), f"{broken.name}/{name}")) == status, name


@pytest.mark.parametrize("word", WORDS)
def test_a_relative_path_is_no_message(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open(f"{word}.tar", "w"):
        pass
    assert why(Utterance("a", f"{word}.tar", "a.wav")) == "unreadable"  # named without its member
    assert why(Utterance("a", f"{word}.wav")) == "unreadable"
    assert why(Utterance("a", f"file://{tmp_path}/{word}.wav")) == "unreadable"  # the reason repeats the path


def test_the_code_counts_and_not_the_words():
    assert reason(MelcodecError("damaged after 1.00 s")) == "unreadable"
    assert reason(MelcodecError("a.wav: no such file", code="missing")) == "unreadable"
    assert reason(MelcodecError("reworded", code="truncated")) == "truncated"
