"""Waves against waves: the delay between two sounds, and the scale-invariant signal-to-distortion ratio."""

from __future__ import annotations

import math

import numpy as np

from melcodec.errors import MelcodecError

MAX_DELAY = 0.05  # seconds to each side
COHERENT = 0.7  # normalised correlation above which two waves share their phases; pitch alone reaches 0.5
SILENT = "the reference is silent: there is no speech to score"
ENVELOPE_HOP, ENVELOPE_WINDOW = 0.001, 0.005  # seconds
ENVELOPE_GAIN = 0.02  # a shift that makes envelopes agree less than this much better is no delay


def find_delay(reference: np.ndarray, output: np.ndarray, rate: int, limit: float = MAX_DELAY) -> int:
    """By how many samples ``output`` (S',) is late against ``reference`` (S,); negative when it is early.

    The peak of the cross-correlation of the waves where they share phases, which is exact. A vocoder that invents phases
    leaves nothing to correlate: there the envelopes are compared, to one millisecond.
    """
    if not reference.any() or not output.any():
        return 0
    most = max(1, round(limit * rate))
    scores = _correlation(reference, output, most)
    if np.abs(scores).max() >= COHERENT:
        return int(np.argmax(np.abs(scores))) - most
    hop = max(1, round(ENVELOPE_HOP * rate))
    shapes = [_envelope(wav, hop, round(ENVELOPE_WINDOW * rate)) for wav in (reference, output)]
    most = round(limit / ENVELOPE_HOP)
    scores = _correlation(shapes[0], shapes[1], most)
    best = int(np.argmax(scores))
    return (best - most) * hop if scores[best] > scores[most] + ENVELOPE_GAIN else 0


def aligned(reference: np.ndarray, output: np.ndarray, delay: int) -> tuple[np.ndarray, np.ndarray]:
    """Both waves without ``delay`` (see ``find_delay``), cropped to the length that they share.

    Raises:
        MelcodecError: nothing is left.
    """
    reference, output = reference[max(0, -delay) :], output[max(0, delay) :]
    length = min(len(reference), len(output))
    if not length:
        raise MelcodecError("the sounds do not overlap")
    return reference[:length], output[:length]


def si_sdr(reference: np.ndarray, output: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB of two waves (S,); infinite for equal ones.

    Source: Le Roux et al. 2019, "SDR - half-baked or well done?", means removed. It compares sample by sample: of a vocoder
    that invents phases it says little.

    Raises:
        MelcodecError: unequal lengths, or silence.
    """
    check_pair(reference, output)
    clean, given = (wav.astype(np.float64) - wav.mean(dtype=np.float64) for wav in (reference, output))
    power = float(clean @ clean)
    if not power or not given.any():
        raise MelcodecError("the output is silent" if power else "the reference is silent")
    target = float(given @ clean) / power * clean
    distortion = float(np.square(given - target).sum())
    kept = float(target @ target)
    if not distortion or not kept:
        return math.inf if kept else -math.inf
    return 10 * math.log10(kept / distortion)


def check_pair(reference: np.ndarray, output: np.ndarray) -> None:
    """Raise MelcodecError unless both are waves of one length and the reference is not silent."""
    if reference.ndim != 1 or reference.shape != output.shape:
        raise MelcodecError(f"cannot compare sounds of shape {reference.shape} and {output.shape}", "crop them to one length")
    if not reference.any():
        raise MelcodecError(SILENT)


def resample(wav: np.ndarray, rate: int, target: int) -> np.ndarray:
    """(S,) float32 at ``rate`` Hz -> (S',) float32 at ``target`` Hz."""
    if rate == target:
        return wav
    import torch
    from torchaudio.functional import resample as convert

    return convert(torch.from_numpy(np.ascontiguousarray(wav, np.float32)), rate, target).numpy()


def _correlation(reference: np.ndarray, output: np.ndarray, most: int) -> np.ndarray:
    """(2 most + 1,) normalised cross-correlation; entry ``most`` + d is for an ``output`` that is d late."""
    size = 1 << (len(reference) + len(output) + most).bit_length()
    spectrum = np.fft.rfft(output, size) * np.conj(np.fft.rfft(reference, size))
    scores = np.fft.irfft(spectrum, size)
    norm = float(np.linalg.norm(reference.astype(np.float64)) * np.linalg.norm(output.astype(np.float64)))
    return np.concatenate([scores[-most:], scores[: most + 1]]) / max(norm, 1e-20)


def _envelope(wav: np.ndarray, hop: int, window: int) -> np.ndarray:
    """(S,) -> (S // hop,) root mean square over ``window`` samples, less its mean."""
    total = np.concatenate([[0.0], np.cumsum(np.square(wav, dtype=np.float64))])
    starts = np.arange(0, len(wav), hop)
    stops = np.minimum(starts + window, len(wav))
    level = np.sqrt((total[stops] - total[starts]) / (stops - starts))
    return level - level.mean()
