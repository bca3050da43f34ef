from __future__ import annotations

import math

import numpy as np
import pytest

from melcodec.metrics.spectral import band_l1, log_mel_l1, log_mel_mse, mel_cepstra, mel_cepstral_distortion, seam_ratio


def test_by_hand():
    reference = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    output = np.array([[0.5, 1.0], [2.0, 1.0]], np.float32)
    assert log_mel_l1(reference, output) == pytest.approx(2.5 / 4)
    assert isinstance(log_mel_l1(reference, output), float)


def test_a_gain_is_a_constant_distance(golden):
    # 6 dB of level moves natural log power by 6 ln(10) / 10 = 1.38
    mel = golden["0.mel"]
    gain = 6 * math.log(10) / 10
    assert log_mel_l1(mel, mel + gain) == pytest.approx(gain, rel=1e-5)
    assert log_mel_l1(mel, mel) == 0


def test_sums_of_long_spectrograms_do_not_lose_precision():
    reference = np.zeros((80, 200_000), np.float32)
    output = np.full_like(reference, 0.1)
    assert log_mel_l1(reference, output) == pytest.approx(np.float32(0.1), rel=1e-9)


def test_squares_and_bands_by_hand():
    reference = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    output = np.array([[0.5, 1.0], [2.0, 1.0]], np.float32)
    assert log_mel_mse(reference, output) == pytest.approx(4.25 / 4)
    assert band_l1(reference, output).tolist() == [0.25, 1.0]


@pytest.mark.parametrize("ripple", [1, 5, 13])
def test_cepstral_distortion_is_the_ripple_between_spectra_in_decibels(golden, ripple):
    mel = golden["0.mel"]
    bands = np.arange(len(mel))
    wave = 0.4 * np.cos(np.pi * ripple * (bands + 0.5) / len(mel))[:, None]
    # root mean square over the bands, of ln power, in dB
    expected = 10 / math.log(10) * 0.4 / math.sqrt(2)
    assert mel_cepstral_distortion(mel, mel + wave) == pytest.approx(expected, rel=1e-5)
    assert mel_cepstra(wave)[ripple - 1] == pytest.approx(0.2)


def test_cepstral_distortion_hears_neither_level_nor_fine_structure(golden):
    mel = golden["0.mel"].astype(np.float64)
    fine = 0.4 * np.cos(np.pi * 14 * (np.arange(len(mel)) + 0.5) / len(mel))[:, None]
    assert mel_cepstral_distortion(mel, mel) == 0
    assert mel_cepstral_distortion(mel, mel + 1.5) == pytest.approx(0, abs=1e-9)
    assert mel_cepstral_distortion(mel, mel + fine) == pytest.approx(0, abs=1e-9)


def test_seams_of_patches():
    reference, output = np.zeros((3, 16)), np.ones((3, 16))
    assert seam_ratio(reference, output, 4) == 1
    output[:, 3:5] = 3  # one border of three
    assert seam_ratio(reference, output, 4) == pytest.approx((2 * 3 + 4) / 6)
    output[:, [0, -1]] = 100  # the ends are no borders
    assert seam_ratio(reference, output, 4) == pytest.approx((2 * 3 + 4) / 6)
    assert np.isnan(seam_ratio(reference, output, 2))
    assert np.isnan(seam_ratio(reference[:, :4], output[:, :4], 4))
