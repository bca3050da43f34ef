"""A mean, how sure it is, and how many files stand behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
AT_ONCE = 1 << 22  # resampled values in memory


@dataclass(frozen=True)
class Estimate:
    """mean over ``count`` files; low, high: its 95 % confidence interval, None for fewer than two files."""

    mean: float
    low: float | None
    high: float | None
    count: int


def estimate(values: Sequence[float], weights: Sequence[float] | None = None, seed: int = 0) -> Estimate:
    """Mean of ``values``, one per file, and its percentile bootstrap over files (Efron 1979).

    Args:
        weights: of the files, such as words for a word error rate; equal when None.
        seed: of the resampling; the same one gives the same interval.
    """
    from scipy.stats import bootstrap

    numbers = np.asarray(values, np.float64)
    shares = np.ones_like(numbers) if weights is None else np.asarray(weights, np.float64)
    mean = float(numbers @ shares / shares.sum())
    if len(numbers) < 2:
        return Estimate(mean, None, None, len(numbers))
    low, high = bootstrap(
        (numbers * shares, shares),
        lambda sums, weights, axis: sums.sum(axis=axis) / weights.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        batch=max(1, AT_ONCE // len(numbers)),
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(low), float(high), len(numbers))
