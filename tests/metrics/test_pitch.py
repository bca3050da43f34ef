"""Pitch and voicing against sounds whose fundamental frequency is known."""

from __future__ import annotations

import numpy as np
import pytest

from melcodec.audio.io import load
from melcodec.errors import MelcodecError
from melcodec.metrics.pitch import HOP, RATE, f0_rmse, track_pitch, voicing_error


def harmonic(f0: np.ndarray, rate: int = RATE) -> np.ndarray:
    """A voice-like sound whose fundamental is ``f0`` Hz at each sample: eight harmonics, each weaker than the one below."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    return (0.1 * sum(np.sin(number * phase) / number for number in range(1, 9))).astype(np.float32)


def constant(f0: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return harmonic(np.full(round(seconds * rate), f0), rate)


@pytest.mark.parametrize("f0", [70.0, 123.4, 220.0, 580.0])
def test_a_known_pitch_is_found_to_a_fifth_of_a_semitone(f0):
    found = track_pitch(constant(f0), RATE)
    assert len(found) == RATE // HOP + 1
    assert not np.isnan(found).any()
    assert f0_rmse(np.full_like(found, f0), found) < 20


def test_a_glide_is_followed():
    sweep = np.geomspace(110, 330, 2 * RATE)
    found = track_pitch(harmonic(sweep), RATE)
    inside = slice(4, -4)
    assert f0_rmse(sweep[::HOP][: len(found)][inside], found[inside]) < 30


def test_other_rates_are_resampled():
    assert np.nanmedian(track_pitch(constant(220.0, rate=16_000), 16_000)) == pytest.approx(220, rel=0.01)
    assert np.nanmedian(track_pitch(constant(220.0, rate=16_000), RATE)) == pytest.approx(220 * RATE / 16_000, rel=0.01)


def test_noise_and_silence_are_unvoiced():
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert np.isnan(track_pitch(noise, RATE)).mean() > 0.9
    assert np.isnan(track_pitch(0 * noise, RATE)).all()


def test_speech_has_both(examples):
    found = track_pitch(load(examples["lj_en"], RATE), RATE)
    assert 150 < np.nanmedian(found) < 260  # a woman reads
    assert 0.1 < np.isnan(found).mean() < 0.6


def test_errors_by_hand():
    nan = np.nan
    reference = np.array([100.0, 200.0, nan, 150.0, nan])
    output = np.array([200.0, 200.0, nan, nan, 150.0])  # an octave off, equal, both unvoiced, lost, invented
    assert f0_rmse(reference, output) == pytest.approx(1200 / np.sqrt(2))
    assert voicing_error(reference, output) == pytest.approx(2 / 5)
    assert (f0_rmse(reference, reference), voicing_error(reference, reference)) == (0, 0)
    assert f0_rmse(np.array([100.0]), np.array([100 * 2 ** (50 / 1200)])) == pytest.approx(50)


def test_refusals():
    nothing = np.full(3, np.nan)
    with pytest.raises(MelcodecError, match="no frame is voiced in both sounds"):
        f0_rmse(nothing, np.full(3, 100.0))
    for other in (np.full(2, 100.0), np.full((3, 1), 100.0)):
        with pytest.raises(MelcodecError, match="cannot compare pitch of shape"):
            voicing_error(nothing, other)
