"""Distances between log-mel spectrograms."""

from __future__ import annotations

import numpy as np


def log_mel_l1(reference: np.ndarray, output: np.ndarray) -> float:
    """Mean |difference| of two natural log-mel power spectrograms (M, T); 1.0 is 4.3 dB."""
    return float(np.abs(reference - output).mean(dtype=np.float64))
