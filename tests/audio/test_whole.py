"""Sound that decoders leave out in silence: streams that follow, headers that say too little, formats in disguise."""

import sys

import numpy as np
import pytest
import soundfile

from melcodec.audio.flac import MAGIC as FLAC_MAGIC
from melcodec.audio.io import load, open_blocks, probe
from melcodec.audio.layout import View
from melcodec.audio.mpeg import parse
from melcodec.audio.survey import survey
from melcodec.errors import MelcodecError

RATE = 22_050


@pytest.fixture(scope="module")
def whole(golden, tmp_path_factory):
    """The bytes of some seconds of speech by suffix."""
    folder, wav = tmp_path_factory.mktemp("whole"), np.tile(np.concatenate([golden["0.wav"], golden["1.wav"]]).reshape(-1), 2)
    for name, options in (("wav", {}), ("flac", {}), ("ogg", {"subtype": "VORBIS"}), ("mp3", {})):
        soundfile.write(folder / f"a.{name}", wav, RATE, **options)
    soundfile.write(folder / "a.opus", wav, 24_000, format="OGG", subtype="OPUS")
    return {path.suffix[1:]: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def refused(path):
    with pytest.raises(MelcodecError) as caught:
        load(path, RATE)
    return caught.value


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus"])
def test_files_after_each_other_are_joined(whole, put, suffix):
    rate = 24_000 if suffix == "opus" else RATE
    one = load(put(f"one.{suffix}", whole[suffix]), rate)
    path = put(f"three.{suffix}", whole[suffix] * 3)
    assert probe(path).num_samples == 3 * len(one)
    np.testing.assert_array_equal(load(path, rate), np.tile(one, 3))
    with open_blocks(put(f"cut.{suffix}", path.read_bytes()[:-500]), rate, keep=True) as (_, blocks):
        kept = np.concatenate(list(blocks))
    assert 2 * len(one) <= len(kept) < 3 * len(one)
    np.testing.assert_array_equal(kept[: 2 * len(one)], np.tile(one, 2))


def test_two_files_of_mp3(whole, put):
    one = load(put("one.mp3", whole["mp3"]), RATE)
    path = put("two.mp3", whole["mp3"] * 2)
    both = load(path, RATE)
    assert 2 * len(one) <= len(both) == probe(path).num_samples <= 2 * len(one) + 8 * 576
    np.testing.assert_allclose(both[: len(one) - 1152], one[:-1152], atol=1e-5)


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
@pytest.mark.parametrize("damage", ["zeros", "gone", "twice"])
def test_damage_inside_ogg_is_placed(whole, put, suffix, damage):
    content = whole[suffix]
    seconds = probe(put(f"a.{suffix}", content)).seconds
    starts = [at for at in range(len(content)) if content.startswith(b"OggS", at)]
    first, last = starts[-3:-1]
    middle = (first + last) // 2
    made = {
        "zeros": content[:middle] + bytes(30) + content[middle + 30 :],
        "gone": content[:first] + content[last:],
        "twice": content[:last] + content[first:],
    }[damage]
    path = put(f"in.{suffix}", made)
    error = refused(path)
    assert error.code == "truncated"
    assert ": damaged after " in error.message
    assert error.hint
    with open_blocks(path, 24_000, keep=True) as (_, blocks):
        assert 24_000 < sum(map(len, blocks)) < seconds * 24_000
    with pytest.raises(MelcodecError, match="damaged after"):
        probe(path)


def test_frames_of_mpeg_are_counted(whole, put):
    """Without its Info frame, with a tag in the middle, with damage, cut inside a frame, and with another rate behind it."""
    content = whole["mp3"]
    ends, at = [], 0
    while frame := parse(content[at : at + 4]):
        at += frame.size
        ends.append(at)
    bare, middle = content[ends[0] :], ends[len(ends) // 2] - ends[0]
    frames = len(ends) - 1
    expected = load(put("bare.mp3", bare), RATE)
    assert len(expected) == frames * 576
    tagged = bare[:middle] + b"ID3\x04\0\0\0\0\0\x14" + bytes(20) + bare[middle:] + b"TAG" + bytes(125)
    np.testing.assert_array_equal(load(put("tagged.mp3", tagged), RATE), expected)
    assert ": damaged after " in refused(put("hole.mp3", bare[:middle] + bytes(100) + bare[middle + 100 :])).message
    assert "ends inside a frame" in refused(put("cut.mp3", bare[:-10])).message
    assert "are not MPEG audio" in refused(put("rest.mp3", bare + bytes(100_000))).message
    faster = put("faster.mp3", b"")
    soundfile.write(faster, expected, 44_100)
    error = refused(put("rates.mp3", bare + faster.read_bytes()))
    assert f"changes after {frames * 576 / RATE:.2f} s from 22050 to 44100 Hz" in error.message


@pytest.mark.parametrize("samples", [0, 10_000])
def test_flac_that_counts_too_little_is_read_to_its_end(whole, put, samples):
    content = whole["flac"]
    assert content.startswith(FLAC_MAGIC)
    total = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    path = put("in.flac", content[:18] + total.to_bytes(8, "big") + content[26:])
    np.testing.assert_array_equal(load(path, RATE), load(put("a.flac", content), RATE))


def test_a_name_does_not_say_what_a_file_is(whole, put):
    for suffix, name in (("flac", "a.wav"), ("ogg", "a.m4a"), ("wav", "a.aac"), ("mp3", "a.wav")):
        assert len(load(put(name, whole[suffix]), RATE)) == len(load(put(f"a.{suffix}", whole[suffix]), RATE))


def test_m4a_with_the_name_of_a_wav_names_the_extra(put, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    error = refused(put("a.wav", b"\0\0\0\x20ftypM4A " + bytes(100)))
    assert error.message.endswith("not readable as audio (Format not recognised)")
    assert "pip install 'melcodec[av]'" in error.hint


def test_a_view_reads_as_a_file(tmp_path, put):
    """Against the bytes that its pieces make, from anywhere."""
    path = put("x", bytes(range(200)))
    with path.open("rb") as content:
        pieces = (b"head", (10, 60), b"", (100, 101), (150, 200))
        whole = b"head" + bytes([*range(10, 60), 100, *range(150, 200)])
        view = View(content, pieces)
        assert view.read() == whole
        rng = np.random.default_rng(0)
        for at, size in rng.integers(0, 120, (50, 2)):
            assert view.seek(int(at)) == at
            assert view.read(int(size)) == whole[at : at + size]
        assert view.seek(-3, 2) == len(whole) - 3
        assert view.read() == whole[-3:]


def test_survey_leaves_ordinary_files_as_they_are(whole, put):
    for suffix, content in whole.items():
        layout = survey(put(f"a.{suffix}", content))
        assert layout.fault is None
        assert [part.pieces for part in layout.parts] == [()], suffix
