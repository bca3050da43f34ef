"""Distances between log-mel spectrograms (M, T), in the natural or the model's domain."""

from __future__ import annotations

import math

import numpy as np

CEPSTRA = 13  # coefficients of the mel-cepstral distortion, without c0, which is the level
TO_DB = 10 / math.log(10)  # natural log power -> dB


def log_mel_l1(reference: np.ndarray, output: np.ndarray) -> float:
    """Mean |difference| of two natural log-mel power spectrograms (M, T); 1.0 is 4.3 dB."""
    return float(np.abs(reference - output).mean(dtype=np.float64))


def log_mel_mse(reference: np.ndarray, output: np.ndarray) -> float:
    """Mean squared difference of two log-mel spectrograms (M, T)."""
    return float(np.square(reference - output, dtype=np.float64).mean())


def band_l1(reference: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Mean |difference| of every band: (M, T) and (M, T) -> (M,) float64."""
    return np.abs(reference - output).mean(axis=1, dtype=np.float64)


def mel_cepstra(mel: np.ndarray, count: int = CEPSTRA) -> np.ndarray:
    """Natural log-mel power (M, T) -> mel cepstra c1 .. c13, (13, T).

    DCT-II over the bands, scaled so that ln|amplitude| of band m is c0 + sum c_k cos(pi k (m + 1/2) / M): log power is
    twice log amplitude, hence 1/M and not 2/M.
    """
    from scipy.fft import dct

    return dct(mel.astype(np.float64), axis=0)[1 : count + 1] / (2 * len(mel))


def mel_cepstral_distortion(reference: np.ndarray, output: np.ndarray) -> float:
    """Mel-cepstral distortion in dB of two natural log-mel power spectrograms (M, T), the mean over frames.

    10 / ln 10 * sqrt(2 * sum d_k^2) over ``mel_cepstra`` (Kubichek 1993, "Mel-cepstral distance measure for objective speech
    quality assessment"): how far apart the smooth parts of two spectra are, whatever their level. Frames correspond as
    they stand; there is no time warping. Cepstra of other scalings and analyses give other numbers.
    """
    distance = mel_cepstra(reference) - mel_cepstra(output)
    return float((TO_DB * np.sqrt(2 * np.square(distance).sum(axis=0))).mean())


def seam_ratio(reference: np.ndarray, output: np.ndarray, patch: int) -> float:
    """Mean |difference| of the frames beside borders of patches over that of the other frames, (M, T) each.

    About 1 without grid artefacts; more when the borders of patches are worse than their inside.

    Args:
        reference: natural log-mel power spectrogram.
        output: what was made of it.
        patch: frames of a patch; there are other frames from 3 on.
    """
    error = np.abs(reference - output).mean(axis=0, dtype=np.float64)
    place = np.arange(len(error))
    beside = np.isin(place % patch, (0, patch - 1)) & (place > 0)  # the first frame of all is at no border
    beside[-1] = False
    inside = np.isin(place % patch, range(1, patch - 1))
    if not beside.any() or not inside.any():
        return math.nan
    return float(error[beside].mean() / max(error[inside].mean(), np.finfo(np.float64).tiny))
