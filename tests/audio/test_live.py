"""Sound that arrives through a pipe: the samples of a decoder, as soon as they are there, whole or an error."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
import soundfile

from melcodec.audio.live import LiveFormat, Pushback, live_blocks, raw_format, read_wav_header
from melcodec.errors import MelcodecError


def wav_bytes(samples: np.ndarray, subtype: str = "PCM_16", rate: int = 16_000, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype, **options)
    return file.getvalue()


def sized(content: bytes, size: int) -> bytes:
    """A wav whose data chunk claims ``size`` bytes."""
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


def read(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    form = read_wav_header(stream)
    assert isinstance(form, LiveFormat)
    return np.concatenate([np.zeros(0, np.float32), *live_blocks(stream, form)])


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(0).uniform(-1, 1, (5_000, 2)).astype(np.float32)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_sample_type_is_what_soundfile_reads(samples, subtype, channels):
    content = wav_bytes(samples[:, :channels], subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    assert np.array_equal(read(content), expected.mean(axis=1, dtype=np.float32))


def test_extensible_headers_are_understood(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAVEX", subtype="PCM_24")
    assert np.allclose(read(file.getvalue()), samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_nobody_knew_is_not_believed(samples, size):
    content = wav_bytes(samples)
    assert np.array_equal(read(sized(content, size)), read(content))


def test_what_follows_the_samples_is_no_sound(samples):
    content = wav_bytes(samples)
    assert np.array_equal(read(content + b"LIST\x04\0\0\0abcd"), read(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-4_000], "ends 1000 samples before the length"),
        (lambda content: content[:-3], "ends in the middle of a sample"),
        (lambda content: sized(content, 4_000), "has more data than its header says"),
        (lambda content: content[:30], "ends inside the header"),
        (lambda content: b"", "is empty"),
        (lambda content: content.replace(struct.pack("<I", 16_000), struct.pack("<I", 3)), "3 Hz is not between"),
    ],
)
def test_all_or_an_error(samples, change, words):
    content = change(wav_bytes(np.full_like(samples, 0.999)))
    with pytest.raises(MelcodecError, match=words):
        read(content)


@pytest.mark.parametrize("make", ["flac", "mu-law", "raw"])
def test_what_is_no_plain_wav_is_given_back_whole(samples, make):
    file = io.BytesIO()
    if make == "raw":
        file.write(bytes(range(256)))
    else:
        soundfile.write(
            file, samples, 16_000, format="FLAC" if make == "flac" else "WAV", subtype=None if make == "flac" else "ULAW"
        )
    file.seek(0)
    again = read_wav_header(file)
    assert isinstance(again, Pushback)
    assert again.read(5) + again.read(0) + again.read() == file.getvalue()


def test_blocks_come_as_they_arrive():
    """Through a real pipe: what was written is there before more is written, and half a sample waits for the other half."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        blocks = live_blocks(stream, raw_format(16_000))
        for count in (1, 160, 3):
            os.write(writer, np.full(count, 16_384, "<i2").tobytes())
            assert np.array_equal(next(blocks), np.full(count, 0.5, np.float32))
        os.write(writer, b"\0")
        os.write(writer, b"\x40")
        assert np.array_equal(next(blocks), [0.5])
        os.close(writer)
        assert list(blocks) == []
