"""Whether the words survive: word errors of a small English recogniser. Needs ``melcodec[eval]``.

The recogniser (PocketSphinx, its model inside its wheel) makes many errors of its own: read a word error rate beside that
of the original sound.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from melcodec.metrics.optional import optional
from melcodec.metrics.waves import resample

RATE = 16_000  # Hz
LANGUAGES = frozenset(("en", "eng", "english"))


class WordErrors(NamedTuple):
    """errors: substitutions, deletions and insertions; words: of the text."""

    errors: int
    words: int


def is_english(language: str) -> bool:
    """Whether a language tag such as ``en`` or ``en-US`` is one that the recogniser supports."""
    return re.split(r"[-_]", language.lower())[0] in LANGUAGES


def transcribe(wav: np.ndarray, rate: int) -> str:
    """English words in a wave (S,); ``rate`` in Hz. Raises MelcodecError when pocketsphinx is not installed."""
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw((np.clip(resample(wav, rate, RATE), -1, 1) * 32_767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr if found else ""


def word_errors(text: str, heard: str) -> WordErrors:
    """Word errors of ``heard`` against ``text``, letter case and punctuation aside. Needs jiwer.

    Raises:
        MelcodecError: jiwer is not installed.
    """
    jiwer = optional("jiwer")
    words = plain_words(text)
    if not words:
        return WordErrors(0, 0)
    counted = jiwer.process_words(words, plain_words(heard))
    errors = counted.substitutions + counted.deletions + counted.insertions
    return WordErrors(errors, counted.hits + counted.substitutions + counted.deletions)


def plain_words(text: str) -> str:
    """Lower case letters, digits and apostrophes, one space between words."""
    return " ".join(re.findall(r"[\w']+", text.lower().replace("\u2019", "'")))


@lru_cache(maxsize=1)
def _decoder() -> Any:
    return optional("pocketsphinx").Decoder(loglevel="FATAL")
