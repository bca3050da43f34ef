"""Resampling in blocks against torchaudio in one pass."""

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from melcodec.audio import resample as module
from melcodec.audio.resample import resample_blocks
from melcodec.errors import MelcodecError


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


@pytest.mark.parametrize(("source_rate", "target_rate"), [(22_051, 22_050), (22_049, 22_050), (191_999, 22_050)])
def test_rates_without_a_simple_ratio_are_refused_at_once(source_rate, target_rate):
    with pytest.raises(MelcodecError, match=f"{source_rate} Hz has no simple ratio to {target_rate} Hz"):
        resample_blocks([], source_rate, target_rate)


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
