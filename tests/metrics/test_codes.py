from __future__ import annotations

import math

import numpy as np
import pytest

from melcodec.metrics.codes import bit_rate, code_usage


@pytest.mark.parametrize(
    ("counts", "used", "perplexity", "bits", "total"),
    [
        ([5, 5, 5, 5], 4, 4.0, 2.0, 20),
        ([7, 0, 0, 0], 1, 1.0, 0.0, 7),
        ([1, 1, 0, 0], 2, 2.0, 1.0, 2),
        ([2, 1, 1, 0], 3, 2**1.5, 1.5, 4),
        ([0, 0, 0, 0], 0, 1.0, 0.0, 0),
    ],
)
def test_code_usage(counts, used, perplexity, bits, total):
    usage = code_usage(np.array(counts))
    assert (usage.used, usage.total) == (used, total)
    assert usage.perplexity == pytest.approx(perplexity)
    assert usage.entropy_bits == pytest.approx(bits)


def test_usage_of_real_codes(golden):
    codes = np.concatenate([golden[f"{index}.codes"] for index in range(3)])
    usage = code_usage(np.bincount(codes, minlength=32))
    assert usage.used == len(set(codes.tolist()))
    assert usage.total == 39 + 56 + 57
    assert 1 < usage.perplexity <= usage.used
    assert usage.perplexity == pytest.approx(2**usage.entropy_bits)


def test_bit_rate():
    assert bit_rate(22_050, 1024, 1, 1024) == pytest.approx(215.33, abs=0.01)
    assert bit_rate(22_050, 1024, 1, 8192) == pytest.approx(22_050 / 1024 * 13)
    assert bit_rate(24_000, 320, 4, 1000) == pytest.approx(75 * 4 * math.log2(1000))
