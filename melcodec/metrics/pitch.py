"""Whether the melody survives: the error of the fundamental frequency, and of the decision which frames are voiced.

The pitch tracker is librosa's ``pyin`` (Mauch and Dixon 2014, "pYIN: a fundamental frequency estimator using probabilistic
threshold distributions").
"""

from __future__ import annotations

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.metrics.waves import resample

RATE = 22_050  # Hz
HOP = 256  # samples, 11.6 ms: the frames of the mel
WINDOW = 1024  # samples, 46 ms: almost three periods of the lowest pitch
LOWEST, HIGHEST = 60.0, 600.0  # Hz; speech of adults and children
RESOLUTION = 0.2  # semitones: at most 10 cents off; 0.1 takes five times as long


def track_pitch(wav: np.ndarray, rate: int) -> np.ndarray:
    """A wave (S,) -> its fundamental frequency in Hz (T,), NaN in unvoiced frames; T = S // 256 + 1 at 22,050 Hz.

    It takes 0.06 s per second of sound on one core. The first call on a machine takes half a minute more, in which librosa
    compiles its loops and keeps the result beside its own files; the first of a process loads that in about 3 s.

    Args:
        rate: of the wave, in Hz; another one than 22,050 is resampled.
    """
    import librosa

    voice = resample(wav, rate, RATE)
    f0, voiced, _ = librosa.pyin(
        voice, fmin=LOWEST, fmax=HIGHEST, sr=RATE, frame_length=WINDOW, hop_length=HOP, resolution=RESOLUTION
    )
    return np.where(voiced, f0, np.nan)


def f0_rmse(reference: np.ndarray, output: np.ndarray) -> float:
    """Root mean square of the pitch error in cents (1200 to the octave), over frames that are voiced in both.

    Args:
        reference, output: fundamental frequencies (T,) from ``track_pitch``.

    Raises:
        MelcodecError: no frame is voiced in both.
    """
    _check(reference, output)
    cents = 1200 * np.log2(output / reference)  # NaN where either is unvoiced
    if np.isnan(cents).all():
        raise MelcodecError("no frame is voiced in both sounds")
    return float(np.sqrt(np.nanmean(np.square(cents))))


def voicing_error(reference: np.ndarray, output: np.ndarray) -> float:
    """Share of frames that are voiced in one of two sounds only, 0 to 1; arguments as in ``f0_rmse``.

    It is the voicing decision error of Nakatani et al. 2008, "A method for fundamental frequency estimation and voicing
    decision: Application to infant utterances recorded in real acoustical environments".
    """
    _check(reference, output)
    return float(np.mean(np.isnan(reference) != np.isnan(output)))


def _check(reference: np.ndarray, output: np.ndarray) -> None:
    if reference.ndim != 1 or reference.shape != output.shape or not len(reference):
        raise MelcodecError(f"cannot compare pitch of shape {reference.shape} and {output.shape}", "crop them to one length")
