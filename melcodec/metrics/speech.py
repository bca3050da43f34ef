"""How a listener would judge: intelligibility (STOI) and quality (PESQ). Both need ``melcodec[eval]``.

Both compare sample by sample, so the output must not be shifted against the reference.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError

PESQ_RATE = 16_000  # Hz; the wide-band model, ITU-T P.862.2
PESQ_SECONDS = 20.0  # the ITU's code keeps 50 utterances of at least 0.2 s, 0.2 s apart, and crashes beyond them


def stoi(reference: np.ndarray, output: np.ndarray, rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011) of two waves (S,), at most 1; ``rate`` in Hz.

    Raises:
        MelcodecError: unequal lengths, a silent reference, under about 0.4 s of speech, or pystoi is not installed.
    """
    pystoi = _optional("pystoi")
    _check(reference, output)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi answers 1e-5 when there is too little speech
        try:
            return float(pystoi.stoi(reference, output, rate))
        except RuntimeWarning:
            raise MelcodecError("STOI needs at least 0.4 s of speech that is not silence") from None


def pesq_wb(reference: np.ndarray, output: np.ndarray, rate: int) -> float:
    """PESQ-WB (ITU-T P.862.2) of two waves (S,), 1.0 to 4.64; ``rate`` in Hz, resampled to 16 kHz where needed.

    Over 20 s it is the mean over equal parts of at most 20 s, leaving out parts without speech.

    Raises:
        MelcodecError: unequal lengths, no speech in the reference, under 0.25 s, or pesq is not installed.
    """
    pesq = _optional("pesq")
    _check(reference, output)
    parts = max(1, math.ceil(len(reference) / rate / PESQ_SECONDS))
    pairs = zip(*(np.array_split(_resample(wav, rate), parts) for wav in (reference, output)), strict=True)
    scores = []
    for clean, degraded in pairs:
        if clean.any():
            with contextlib.suppress(pesq.NoUtterancesError, pesq.BufferTooShortError):
                scores.append(float(pesq.pesq(PESQ_RATE, clean, degraded, "wb")))
    if not scores:
        raise MelcodecError("PESQ needs at least 0.25 s with speech in it")
    return sum(scores) / len(scores)


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MelcodecError(f"this score needs the package '{package}'", "pip install 'melcodec[eval]'") from None


def _check(reference: np.ndarray, output: np.ndarray) -> None:
    if reference.ndim != 1 or reference.shape != output.shape:
        raise MelcodecError(f"cannot compare sounds of shape {reference.shape} and {output.shape}", "crop them to one length")
    if not reference.any():
        raise MelcodecError("the reference is silent: there is no speech to score")


def _resample(wav: np.ndarray, rate: int) -> np.ndarray:
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(wav), rate, PESQ_RATE).numpy()
