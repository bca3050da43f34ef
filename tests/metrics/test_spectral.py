from __future__ import annotations

import math

import numpy as np
import pytest

from melcodec.metrics.spectral import log_mel_l1


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
