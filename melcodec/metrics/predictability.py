"""How well a model predicts codes: bits per code and per second, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from melcodec.metrics.statistics import Estimate, estimate

Surprise = Callable[[np.ndarray], np.ndarray]  # codes (Q, N) of an utterance -> (Q, N) bits: -log2 of the probability of each


@dataclass(frozen=True)
class Score:
    """One model on one set of utterances.

    Args:
        name: uniform, unigram, bigram, trigram, or the kind of network.
        bits_per_code: mean over all codes of all codebooks; its interval is over utterances.
        bits_per_second: bits_per_code times the codes of all codebooks in a second: the rate of an ideal entropy coder.
        perplexity: 2 ** bits_per_code.
        codes: how many were scored.
    """

    name: str
    bits_per_code: Estimate
    bits_per_second: Estimate
    perplexity: float
    codes: int


@dataclass(frozen=True)
class Predictor:
    """A model of codes.

    Args:
        name: for reports.
        fingerprint: of the checkpoint whose codes it models.
        surprise: codes (Q, N) of an utterance -> (Q, N) bits of each.
    """

    name: str
    fingerprint: str
    surprise: Surprise


def score(surprise: Surprise, name: str, utterances: Sequence[np.ndarray], code_rate: float, seed: int = 0) -> Score:
    """Score codes (Q, N_i) of at least one utterance.

    Args:
        code_rate: codes of one codebook in a second.
        seed: of the intervals' resampling.
    """
    bits = [surprise(codes) for codes in utterances]
    per_code = estimate([float(values.mean()) for values in bits], [values.size for values in bits], seed)
    rate = code_rate * len(utterances[0])
    low, high = (None if end is None else end * rate for end in (per_code.low, per_code.high))
    per_second = Estimate(per_code.mean * rate, low, high, per_code.count)
    return Score(name, per_code, per_second, float(2**per_code.mean), sum(values.size for values in bits))
