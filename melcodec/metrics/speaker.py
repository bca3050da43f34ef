"""Whether the voice is still the same: cosine of two speaker embeddings. Needs ``melcodec[eval]``."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.metrics.optional import optional
from melcodec.metrics.waves import resample

RATE = 16_000  # Hz
MIN_SECONDS = 0.4  # of speech; the encoder was trained on 1.6 s


def speaker_embedding(wav: np.ndarray, rate: int) -> np.ndarray:
    """A wave (S,) -> (256,) float32 of length 1; ``rate`` in Hz.

    Resemblyzer's encoder (Wan et al. 2018, "Generalized end-to-end loss for speaker verification"), on what its voice
    activity detection leaves. Its weights lie inside its wheel.

    Raises:
        MelcodecError: too little speech, or resemblyzer is not installed.
    """
    package = optional("resemblyzer")
    if not wav.any():
        raise MelcodecError("silence has no speaker")
    speech = _speech(package, resample(wav, rate, RATE))
    if len(speech) < MIN_SECONDS * RATE:
        raise MelcodecError(f"a speaker needs at least {MIN_SECONDS} s of speech")
    return np.asarray(_encoder().embed_utterance(speech), np.float32)


def speaker_similarity(reference: np.ndarray, output: np.ndarray) -> float:
    """Cosine of two embeddings (256,): 1 for the same voice; different speakers are near 0.5 to 0.7."""
    return float(reference @ output / (np.linalg.norm(reference) * np.linalg.norm(output)))


def _speech(package: Any, wav: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return package.preprocess_wav(np.clip(wav, -1, 1))


@lru_cache(maxsize=1)
def _encoder() -> Any:
    return optional("resemblyzer").VoiceEncoder("cpu", verbose=False).eval()
