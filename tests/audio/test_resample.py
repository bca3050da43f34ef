"""Resampling in blocks against torchaudio in one pass."""

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from melcodec.audio import resample as module
from melcodec.audio.resample import resample_blocks


def in_blocks(wav, size):
    return (wav[start : start + size] for start in range(0, len(wav), size))


def one_pass(wav, source_rate, target_rate):
    return resample(torch.from_numpy(wav), source_rate, target_rate).numpy()


@pytest.fixture
def wav(golden):
    """Half a second of speech; noise would do, but speech has silence and peaks."""
    return np.ascontiguousarray(golden["0.wav"].reshape(-1)[:11_025], dtype=np.float32)


@pytest.mark.parametrize("source_rate", [4_000, 8_000, 11_025, 16_000, 24_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("size", [999, 4_096, 1 << 20])
def test_equals_one_pass(wav, source_rate, size, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_SAMPLES", 2_500)  # several windows in half a second
    parts = list(resample_blocks(in_blocks(wav, size), source_rate, 22_050))
    assert len(parts) > 1
    out, expected = np.concatenate(parts), one_pass(wav, source_rate, 22_050)
    assert out.dtype == np.float32
    assert len(out) == len(expected) == -(-len(wav) * 22_050 // source_rate)
    np.testing.assert_allclose(out, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("target_rate", [16_000, 24_000, 48_000])
def test_other_targets(wav, target_rate):
    out = np.concatenate(list(resample_blocks([wav], 22_050, target_rate)))
    np.testing.assert_allclose(out, one_pass(wav, 22_050, target_rate), atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 146, 147, 148, 319, 320, 321, 2_500])
def test_short_waves(wav, length):
    out = np.concatenate(list(resample_blocks([wav[:length]], 48_000, 22_050)))
    np.testing.assert_allclose(out, one_pass(wav[:length], 48_000, 22_050), atol=1e-6, rtol=0)


def test_tiny_and_empty_blocks(wav):
    sizes = [1, 0, 7, 0, 500, 1, 1, 320, 0]
    cuts = np.split(wav[:2_000], np.cumsum(sizes))
    out = np.concatenate(list(resample_blocks(iter(cuts), 48_000, 22_050)))
    np.testing.assert_allclose(out, one_pass(wav[:2_000], 48_000, 22_050), atol=1e-6, rtol=0)


def test_equal_rates_pass_through(wav):
    (out,) = resample_blocks([wav], 22_050, 22_050)
    assert out is wav


def test_nothing_in_gives_nothing_out():
    assert list(resample_blocks([], 48_000, 22_050)) == []


def test_it_streams(wav):
    """The first output comes before the input is used up."""
    left = iter(list(in_blocks(np.tile(wav, 200), 11_025)))
    next(resample_blocks(left, 48_000, 22_050))
    assert len(list(left)) > 50


@pytest.mark.parametrize("source_rate", [4_000, 8_000, 11_025, 16_000, 24_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("length", [1, 147, 2_500, 11_025])
def test_tap_by_tap_equals_torchaudio(wav, source_rate, length, monkeypatch):
    monkeypatch.setattr(module, "MAX_KERNEL_ELEMENTS", 0)
    monkeypatch.setattr(module, "BLOCK_SAMPLES", 2_500)
    monkeypatch.setattr(module, "TAP_SAMPLES", 1_001)
    out = np.concatenate(list(resample_blocks(in_blocks(wav[:length], 999), source_rate, 22_050)))
    assert out.dtype == np.float32
    np.testing.assert_allclose(
        out, one_pass(wav[:length], source_rate, 22_050), atol=2e-5, rtol=0
    )  # float32 filters: theirs and ours


@pytest.mark.parametrize("rate", [4_001, 22_049, 22_051, 44_056, 47_999, 191_999])
def test_rates_without_a_simple_ratio(rate):
    """44,056 Hz is what NTSC video recorders of digital sound ran at."""
    wav = (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)
    out = np.concatenate(list(resample_blocks(in_blocks(wav, 5_000), rate, 22_050)))
    assert len(out) == 22_050
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050)
    np.testing.assert_allclose(out[300:-300], expected[300:-300], atol=6e-3)


def test_the_default_device_does_not_matter(wav):
    expected = one_pass(wav, 48_000, 22_050)
    module._resampler.cache_clear()
    torch.set_default_device("meta")
    try:
        out = np.concatenate(list(resample_blocks([wav], 48_000, 22_050)))
    finally:
        torch.set_default_device(None)
        module._resampler.cache_clear()
    np.testing.assert_allclose(out, expected, atol=1e-6, rtol=0)
