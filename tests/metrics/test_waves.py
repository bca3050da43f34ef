from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from melcodec.audio.io import load
from melcodec.audio.mel import build_frontend
from melcodec.config import MelConfig, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.metrics.waves import aligned, find_delay, resample, si_sdr
from melcodec.vocoder.griffin_lim import GriffinLim

RATE = 22_050


@pytest.fixture(scope="module")
def wav(examples):
    return load(examples["lj_en"], RATE)


@pytest.fixture(scope="module")
def vocoded(wav):
    """The same speech with other phases."""
    frontend = build_frontend(MelConfig(), xtts_mel_norms())
    with torch.inference_mode():
        mel = frontend(torch.from_numpy(wav)[None])
        return GriffinLim(frontend, iterations=8)(mel, len(wav))[0].numpy()


def late(wav, samples):
    return np.concatenate([np.zeros(samples, np.float32), wav])


@pytest.mark.parametrize("shift", [0, 1, 337, 1102])
def test_a_known_delay_is_found_to_the_sample(wav, shift):
    noisy = wav + 0.02 * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)
    assert find_delay(wav, late(noisy, shift), RATE) == shift
    assert find_delay(wav, noisy[shift:], RATE) == -shift


def test_a_delay_beyond_the_limit_is_not_found(wav):
    assert find_delay(wav, late(wav, 1600), RATE) != 1600
    assert find_delay(wav, late(wav, 1600), RATE, limit=0.1) == 1600


def test_without_common_phases_the_envelope_tells(wav, vocoded):
    """A vocoder's pitch pulses correlate at some wrong lag; its envelope does not."""
    assert find_delay(wav, vocoded, RATE) == 0
    for shift in (500, -500):
        moved = late(vocoded, shift) if shift > 0 else vocoded[-shift:]
        assert find_delay(wav, moved, RATE) == pytest.approx(shift, abs=0.005 * RATE)


def test_silence_has_no_delay(wav):
    assert find_delay(wav, 0 * wav, RATE) == find_delay(0 * wav, wav, RATE) == 0


@pytest.mark.parametrize("delay", [0, 7, -7])
def test_aligned_sounds_start_together_and_have_one_length(wav, delay):
    output = late(wav, delay) if delay >= 0 else wav[-delay:]
    one, other = aligned(wav, output[:100_000], delay)
    assert len(one) > 99_000
    np.testing.assert_array_equal(one, other)


def test_sounds_that_do_not_overlap_are_refused(wav):
    with pytest.raises(MelcodecError, match="do not overlap"):
        aligned(wav, wav[:5], 10)


def test_si_sdr_of_known_noise(wav):
    """Noise at right angles to the speech, 20 dB below it."""
    clean = wav - wav.mean()
    noise = np.random.default_rng(0).standard_normal(len(wav))
    noise -= noise.mean()
    noise -= (noise @ clean) / (clean @ clean) * clean
    noise *= np.linalg.norm(clean) / np.linalg.norm(noise) / 10
    assert si_sdr(wav, wav + noise) == pytest.approx(20, abs=1e-3)
    assert si_sdr(wav, 0.3 * (wav + noise)) == pytest.approx(20, abs=1e-3)


def test_si_sdr_of_equal_and_of_unrelated_sounds(wav):
    assert si_sdr(wav, wav) > 100 or si_sdr(wav, wav) == math.inf
    assert si_sdr(wav, np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)) < -25


def test_si_sdr_refuses_silence_and_other_lengths(wav):
    with pytest.raises(MelcodecError, match="the reference is silent"):
        si_sdr(0 * wav, wav)
    with pytest.raises(MelcodecError, match="the output is silent"):
        si_sdr(wav, 0 * wav)
    with pytest.raises(MelcodecError, match="cannot compare"):
        si_sdr(wav, wav[1:])


def test_resampling_keeps_time(wav):
    low = resample(wav, RATE, 16_000)
    assert len(low) == pytest.approx(len(wav) * 16_000 / RATE, abs=1)
    assert resample(wav, RATE, RATE) is wav
