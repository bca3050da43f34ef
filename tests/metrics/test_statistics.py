from __future__ import annotations

import numpy as np
import pytest

from melcodec.metrics.statistics import estimate


def test_mean_and_count():
    found = estimate([1.0, 2.0, 6.0])
    assert (found.mean, found.count) == (3.0, 3)
    assert 1.0 <= found.low < 3.0 < found.high <= 6.0


def test_one_file_has_no_interval():
    found = estimate([2.5])
    assert (found.mean, found.low, found.high, found.count) == (2.5, None, None, 1)


def test_equal_values_leave_no_doubt():
    found = estimate([0.7] * 5)
    assert found.low == found.high == pytest.approx(0.7)


def test_weights_make_a_ratio_of_sums():
    """One error in ten words and one in two: two in twelve, not the mean of 0.1 and 0.5."""
    assert estimate([0.1, 0.5], [10, 2]).mean == pytest.approx(2 / 12)


def test_the_seed_decides():
    values = np.random.default_rng(1).standard_normal(30).tolist()
    assert estimate(values, seed=3) == estimate(values, seed=3)
    assert estimate(values, seed=3) != estimate(values, seed=4)


def test_the_interval_is_that_of_the_mean():
    """1.96 standard errors to each side, for many values."""
    values = np.random.default_rng(0).normal(10, 2, 400)
    found = estimate(values.tolist())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_many_files_are_resampled_in_parts(monkeypatch):
    from melcodec.metrics import statistics

    values = np.random.default_rng(0).standard_normal(50).tolist()
    whole = estimate(values)
    monkeypatch.setattr(statistics, "AT_ONCE", 100)
    assert estimate(values) == pytest.approx(whole) or estimate(values).low == pytest.approx(whole.low, abs=0.02)
