"""What Python callers pass in: arrays of every kind are understood or refused with the cure, never misread."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from melcodec.audio.io import load as load_sound
from melcodec.codec import Codec
from melcodec.errors import MelcodecError

WAYS = ("encode", "mel", "encode_many", "mel_many", "encode_stream")


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def wav(golden) -> np.ndarray:
    return golden["0.wav"][:30_000]


def by(codec, way, wav, **options):
    """``wav`` through one of the ``WAYS``; those that take several get it alone."""
    wrapped = wav if way in ("encode", "mel") else [wav]
    return getattr(codec, way)(wrapped, **options)


def refusal(codec, way, wav, **options) -> MelcodecError:
    with pytest.raises(MelcodecError) as caught:
        by(codec, way, wav, **options)
    return caught.value


def codes_of(result) -> np.ndarray:
    """(Q, N) of what any way of encoding one wave gives."""
    first = result[0]
    return np.asarray(first)


# arrays that are understood

UNDERSTOOD = {
    "float64": lambda wav: wav.astype(np.float64),
    "long double": lambda wav: wav.astype(np.longdouble),
    "big-endian": lambda wav: wav.astype(">f4"),
    "negative strides": lambda wav: wav[::-1].copy()[::-1],
    "every second": lambda wav: np.repeat(wav, 2)[::2],
    "read-only": lambda wav: np.frombuffer(wav.tobytes(), np.float32),
    "tensor": torch.from_numpy,
    "float64 tensor": lambda wav: torch.from_numpy(wav).double(),
    "with gradient": lambda wav: torch.from_numpy(wav).clone().requires_grad_(),
    "strided tensor": lambda wav: torch.from_numpy(np.repeat(wav, 3))[::3],
    "list": lambda wav: [float(value) for value in wav],
    "one channel first": lambda wav: wav[None],
}


@pytest.mark.parametrize("make", UNDERSTOOD.values(), ids=UNDERSTOOD)
@pytest.mark.parametrize("way", ["encode", "encode_many", "encode_stream"])
def test_arrays_of_every_kind_give_the_same_codes(tiny, wav, way, make):
    assert np.array_equal(codes_of(by(tiny, way, make(wav))), codes_of(tiny.encode(wav)))


def test_codes_of_every_kind_give_the_same_mel(tiny, wav):
    codes = tiny.encode(wav)[0].numpy()
    exact = tiny.decode_to_mel(codes)
    for given in (
        codes.astype(">u2"),
        codes.astype(np.uint8),
        np.ascontiguousarray(codes[:, ::-1])[:, ::-1],
        codes.tolist(),
        torch.from_numpy(codes.astype(np.uint16)),
        torch.from_numpy(codes)[None],
    ):
        assert torch.equal(tiny.decode_to_mel(given), exact)


def test_a_mel_may_be_an_array_of_one_utterance(tiny, wav):
    mel, codes = tiny.mel(wav), tiny.encode(wav)
    for given in (mel[0], mel.numpy(), mel[0].numpy().astype(">f8"), mel[0].numpy()[:, ::-1].copy()[:, ::-1]):
        assert torch.equal(tiny.encode_mel(given), codes)
    assert torch.equal(tiny.encode_mel(mel.numpy(), lengths=[mel.shape[-1]]), codes)


# arrays that are refused


@pytest.mark.parametrize(
    ("wave", "cure"),
    [
        (np.zeros(2000, np.int16), "wav.astype(numpy.float32) / 32768"),
        (torch.zeros(2000, dtype=torch.int16), "wav.float() / 32768"),
        (np.zeros(2000, ">i2"), "wav.astype(numpy.float32) / 32768"),
        (np.zeros(2000, np.int32), "wav.astype(numpy.float32) / 2147483648"),
        (np.zeros(2000, np.uint8), "wav.astype(numpy.float32) / 128 - 1"),
        (np.zeros(2000, np.int64), "for 16-bit samples: wav.astype(numpy.float32) / 32768"),
    ],
    ids=["int16", "int16 tensor", "big-endian int16", "int32", "uint8", "int64"],
)
@pytest.mark.parametrize("way", WAYS)
def test_integers_come_with_the_exact_cure(tiny, wave, cure, way):
    refused = refusal(tiny, way, wave)
    assert "not of floats" in refused.message
    assert cure in refused.hint


def test_the_cures_for_integers_are_right(tiny, wav):
    codes = tiny.encode(wav)
    peak = 1 / np.abs(wav).max()
    loud = tiny.encode((wav * peak).astype(np.float32) * np.float32(0.999))
    for dtype, cure in ((np.int16, lambda x: x.astype(np.float32) / 32768), (np.uint8, lambda x: x.astype(np.float32) / 128 - 1)):
        scale = 32768 if dtype == np.int16 else 128
        samples = np.round(wav * peak * 0.999 * scale + (128 if dtype == np.uint8 else 0)).clip(None, np.iinfo(dtype).max)
        same = (tiny.encode(cure(samples.astype(dtype))) == loud).float().mean()
        assert same > (0.9 if dtype == np.int16 else 0.2)
    assert codes.shape == loud.shape


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.complex64, bool, object, "U3", "M8[s]"])
def test_what_is_no_sound_is_refused(tiny, way, dtype):
    assert refusal(tiny, way, np.zeros(2000, dtype)).message


@pytest.mark.parametrize("way", WAYS)
def test_integers_stored_as_floats_are_not_clipped_in_silence(tiny, wav, way):
    refused = refusal(tiny, way, wav / np.abs(wav).max() * 32_767)
    assert "reaches 32767" in refused.message
    assert "wav / 32768" in refused.hint


@pytest.mark.parametrize(("shape", "cure"), [((30_000, 2), "wav.mean(1)"), ((30_000, 1), "wav[:, 0]")])
@pytest.mark.parametrize("way", WAYS)
def test_channels_last_are_no_utterances(tiny, wav, way, shape, cure):
    refused = refusal(tiny, way, np.broadcast_to(wav[:, None], shape))
    assert cure in refused.hint
    assert str(shape) in refused.message


@pytest.mark.parametrize("way", ["encode_many", "mel_many", "encode_stream"])
def test_channels_first_are_not_dropped(tiny, wav, way):
    refused = refusal(tiny, way, np.stack([wav, wav]))
    assert "wav.mean(0)" in refused.hint


@pytest.mark.parametrize(
    ("shape", "cure"), [((3, 1, 2000), "wav[:, 0]"), ((3, 2, 2000), "wav.mean(1)"), ((3, 2000, 2), "wav.mean(2)")]
)
@pytest.mark.parametrize("way", ["encode", "mel"])
def test_batches_with_channels_are_refused(tiny, way, shape, cure):
    assert cure in refusal(tiny, way, np.zeros(shape, np.float32)).hint


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "wave",
    [
        0.5,
        np.float32(0.5),
        np.zeros((1, 1, 1, 9)),
        None,
        {},
        "speech.wav",
        b"RIFF",
        io.BytesIO(b"RIFF"),
        [np.zeros(3), np.zeros(4)],
    ],
    ids=["number", "scalar", "rank 4", "None", "dict", "name", "bytes", "file", "lists of two lengths"],
)
def test_what_is_no_wave_is_refused(tiny, way, wave):
    refusal(tiny, way, wave)


@pytest.mark.parametrize("way", WAYS)
def test_bad_samples_are_refused_everywhere(tiny, wav, way):
    for value in (np.nan, np.inf, -np.inf):
        bad = wav.copy()
        bad[17] = value
        assert refusal(tiny, way, bad).code == "nan"
    assert refusal(tiny, way, wav[:0]).code == "too-short"


def test_an_error_says_which_wave(tiny, wav):
    for way in (tiny.encode_many, tiny.mel_many):
        with pytest.raises(MelcodecError, match=r"^wave 2: "):
            way([wav, wav, np.stack([wav, wav]), wav])


def test_several_waves_are_a_list(tiny, wav):
    assert tiny.encode_many([]) == []
    with pytest.raises(MelcodecError, match="list of waves is empty"):
        tiny.mel_many([])
    for given in (wav, torch.from_numpy(wav)):
        with pytest.raises(MelcodecError) as caught:
            tiny.encode_many(given)
        assert "encode" in caught.value.hint
    rows = tiny.encode_many(np.stack([wav, wav]))
    assert [row.shape for row in rows] == [(1, tiny.num_codes(len(wav)))] * 2
    assert len(tiny.encode_many(wav for _ in range(3))) == 3


@pytest.mark.parametrize(
    ("mel", "words"),
    [
        (np.zeros((100, 80), np.float32), "swap"),
        (np.zeros((1, 100, 80), np.float32), "swap"),
        (np.zeros((1, 81, 100), np.float32), None),
        (np.zeros((1, 80, 0), np.float32), None),
        (np.zeros(80, np.float32), None),
        (np.zeros((1, 80, 100), np.int64), "decode"),
        (np.full((80, 9), np.nan, np.float32), None),
        ("a.npy", "numpy.load"),
    ],
)
def test_bad_mels_are_refused(tiny, mel, words):
    with pytest.raises(MelcodecError, match="mel") as caught:
        tiny.encode_mel(mel)
    assert words is None or words in caught.value.hint


@pytest.mark.parametrize("lengths", [[0], [101], [1.5], [50, 50], 50])
def test_bad_lengths_of_mels_are_refused(tiny, lengths):
    with pytest.raises(MelcodecError, match="not 1 numbers in 1"):
        tiny.encode_mel(np.zeros((1, 80, 100), np.float32), lengths)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (np.zeros(9, np.int64), "codes[None]"),
        (np.zeros((3, 9), np.int64), "codes[:, None]"),
        (np.zeros((9, 1), np.int64), "codes[:, None]"),
        (np.zeros((2, 9, 1), np.int64), "swap"),
        (np.zeros((1, 9), bool), "codec.vocoder"),
        (np.zeros((1, 9), np.float32), "codec.vocoder"),
        ("codes.npz", "load_codes"),
    ],
)
def test_bad_codes_come_with_a_cure(tiny, codes, words):
    for way in (tiny.decode, tiny.decode_to_mel, lambda codes: list(tiny.decode_stream(codes))):
        with pytest.raises(MelcodecError, match="codes") as caught:
            way(codes)
        assert words in caught.value.hint


def test_lengths_may_be_numbers_of_any_kind(tiny, wav):
    codes = tiny.encode(wav)
    for samples in (np.int64(len(wav)), torch.tensor(len(wav))):
        assert tiny.decode(codes, samples).shape == (1, len(wav))
    for samples in (float(len(wav)), "many", torch.tensor([1, 2])):
        with pytest.raises(MelcodecError, match="num_samples"):
            tiny.decode(codes, samples)


# rates


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_another_rate_gives_the_codes_of_the_file(tiny, golden, rate, tmp_path):
    samples = golden["1.wav"][: 3 * rate // 2]
    path = tmp_path / "speech.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    expected = tiny.encode_file(path).codes
    assert np.array_equal(tiny.mel(samples, rate), tiny.mel(load_sound(path, tiny.sample_rate)))  # the same bits
    assert np.array_equal(tiny.encode(samples, sample_rate=rate)[0], expected)
    assert np.array_equal(tiny.encode(np.stack([samples, samples]), rate)[1], expected)
    assert np.array_equal(tiny.encode_many([samples[:999], samples], sample_rate=rate)[1], expected)
    codes, length = tiny.encode_stream(np.array_split(samples, 7), sample_rate=rate)
    assert np.array_equal(codes, expected)
    assert length == -(-len(samples) * tiny.sample_rate // rate)
    assert not np.array_equal(tiny.encode(samples)[0], expected)  # or the rate would be ignored
    mel, frames = tiny.mel_many([samples], rate)
    assert np.array_equal(tiny.encode_mel(mel, frames)[0], expected)


def test_the_codecs_own_rate_changes_nothing(tiny, wav):
    assert torch.equal(tiny.mel(wav, tiny.sample_rate), tiny.mel(wav))


@pytest.mark.parametrize("rate", [0, -1, 3_999, 192_001, 16_000.5, 16_000.0, "16 kHz"])
@pytest.mark.parametrize("way", WAYS)
def test_impossible_rates_are_refused(tiny, wav, way, rate):
    refusal(tiny, way, wav, sample_rate=rate)


# results


def test_codes_and_sound_are_plain_tensors_for_a_training_graph(tiny, wav):
    embedding = torch.nn.Embedding(32, 4)
    codes = tiny.encode(wav)
    mels, lengths = tiny.mel_many([wav])
    many = tiny.encode_many([wav])[0]
    for found in (codes, many, tiny.encode_mel(mels, lengths)):
        assert not found.is_inference()
        embedding(found).pow(2).sum().backward()
    weight = torch.ones(1, requires_grad=True)
    for found in (mels, tiny.mel(wav), tiny.decode(codes), tiny.decode_to_mel(codes), tiny.vocoder(tiny.mel(wav), len(wav))):
        assert not found.is_inference()
        assert not found.requires_grad
        (found * weight).sum().backward()
    assert weight.grad is not None


# the process's defaults

DEFAULTS = """
import json, sys
import numpy as np, torch
torch.set_default_dtype(torch.float64)
import melcodec
codec = melcodec.load(sys.argv[1], device="cpu")
with np.load(sys.argv[2], allow_pickle=False) as arrays:
    wav = arrays["0.wav"][:30_000]
codes = codec.encode(wav)
sound = codec.decode(codes, len(wav))
streamed = np.concatenate(list(codec.decode_stream(codes[0], len(wav))))
assert torch.get_default_dtype() == torch.float64
print(json.dumps([codes.tolist(), sound.double().sum().item(), str(sound.dtype), float(streamed.astype(float).sum())]))
"""


def test_a_float64_default_changes_nothing(tiny, wav, tiny_checkpoint, golden_folder):
    done = subprocess.run(
        [sys.executable, "-c", DEFAULTS, tiny_checkpoint, golden_folder / "tiny_golden.npz"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes, total, dtype, streamed = json.loads(done.stdout)
    own = tiny.encode(wav)
    sound = tiny.decode(own, len(wav))
    assert codes == own.tolist()
    assert dtype == "torch.float32"
    assert total == streamed == pytest.approx(sound.double().sum().item(), abs=1e-9)


# files


def test_open_files_are_read(tiny, examples):
    path = examples["lj_en"]
    expected = tiny.encode_file(path)
    with path.open("rb") as file:
        assert np.array_equal(tiny.encode_file(file).codes, expected.codes)
    found = tiny.encode_file(io.BytesIO(path.read_bytes()))
    assert np.array_equal(found.codes, expected.codes)
    assert found.num_samples == expected.num_samples


def test_files_that_cannot_be_read_are_refused(tiny, examples, tmp_path):
    path = examples["lj_en"]
    closed, text, empty = path.open("rb"), path.open(encoding="latin-1"), io.BytesIO()
    closed.close()
    with text, (tmp_path / "new").open("wb") as new:
        for given, words in (
            (closed, "closed"),
            (text, "lj_en"),
            (new, "new"),
            (empty, "empty"),
            (io.StringIO("a"), "file object"),
        ):
            with pytest.raises(MelcodecError, match=words):
                tiny.encode_file(given)
    for given in (path.read_bytes(), np.zeros(9), None, 3):
        with pytest.raises(MelcodecError, match="given where a file name is expected"):
            tiny.encode_file(given)
