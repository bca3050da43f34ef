"""Intelligibility (STOI, ESTOI) and quality against a reference (PESQ). They need ``melcodec[eval]``.

All compare sample by sample, so the output must not be shifted against the reference: ``metrics.waves`` aligns.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import Literal

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.metrics.optional import optional
from melcodec.metrics.waves import check_pair, resample

PESQ_RATES = {"wb": 16_000, "nb": 8_000}  # Hz; ITU-T P.862.2 and P.862
PESQ_SECONDS = 20.0  # the ITU's code keeps 50 utterances of at least 0.2 s, 0.2 s apart, and crashes beyond them


def stoi(reference: np.ndarray, output: np.ndarray, rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011) of two waves (S,), at most 1; ``rate`` in Hz.

    Raises:
        MelcodecError: unequal lengths, a silent reference, under about 0.4 s of speech, or pystoi is not installed.
    """
    return _stoi(reference, output, rate, extended=False)


def estoi(reference: np.ndarray, output: np.ndarray, rate: int) -> float:
    """Extended STOI (Jensen and Taal 2016), which is also sensitive to modulated noise; as ``stoi``, and raises as it does."""
    return _stoi(reference, output, rate, extended=True)


def pesq_wb(reference: np.ndarray, output: np.ndarray, rate: int) -> float:
    """PESQ-WB (ITU-T P.862.2) of two waves (S,), 1.0 to 4.64; ``rate`` in Hz, resampled to 16 kHz where needed.

    Over 20 s it is the mean over equal parts of at most 20 s, leaving out parts without speech.

    Raises:
        MelcodecError: unequal lengths, no speech in the reference, under 0.25 s, or pesq is not installed.
    """
    return _pesq(reference, output, rate, "wb")


def pesq_nb(reference: np.ndarray, output: np.ndarray, rate: int) -> float:
    """PESQ (ITU-T P.862, MOS-LQO of P.862.1) in the telephone's band, at 8 kHz, 1.0 to 4.55; otherwise as ``pesq_wb``."""
    return _pesq(reference, output, rate, "nb")


def _stoi(reference: np.ndarray, output: np.ndarray, rate: int, extended: bool) -> float:
    pystoi = optional("pystoi")
    check_pair(reference, output)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi answers 1e-5 when there is too little speech
        try:
            return float(pystoi.stoi(reference, output, rate, extended=extended))
        except (RuntimeWarning, ValueError):  # the latter where there is not even a frame
            raise MelcodecError("STOI needs at least 0.4 s of speech that is not silence") from None


def _pesq(reference: np.ndarray, output: np.ndarray, rate: int, band: Literal["wb", "nb"]) -> float:
    pesq = optional("pesq")
    check_pair(reference, output)
    if not output.any():
        raise MelcodecError("the output is silent: there is no quality to score")
    parts = max(1, math.ceil(len(reference) / rate / PESQ_SECONDS))
    pairs = zip(*(np.array_split(resample(wav, rate, PESQ_RATES[band]), parts) for wav in (reference, output)), strict=True)
    scores = []
    for clean, degraded in pairs:
        if clean.any():
            with contextlib.suppress(pesq.NoUtterancesError, pesq.BufferTooShortError):
                scores.append(float(pesq.pesq(PESQ_RATES[band], clean, degraded, band)))
    if not scores:
        raise MelcodecError("PESQ needs at least 0.25 s with speech in it")
    return sum(scores) / len(scores)
