"""How well a prior predicts codes: bits per code and per second, with intervals, beside its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from melcodec.metrics.statistics import Estimate, estimate
from melcodec.prior.models import Prior
from melcodec.prior.ngram import NAMES, BookModel, NGram, fit
from melcodec.prior.reading import CodesCorpus, held_out

CALIBRATION = 0.1  # share of the training utterances, of other speakers where they are known, that smoothing is chosen on


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


def fit_tables(corpus: CodesCorpus, order: int, min_count: int = 1) -> tuple[NGram, ...]:
    """N-grams of order 1 to ``order``, counted on ``corpus`` and calibrated on some of its speakers."""
    counted, held = held_out(corpus, CALIBRATION)
    return tuple(fit(counted.codes, held.codes, corpus.space.sizes, n, min_count) for n in range(1, order + 1))


def score(surprise: Callable[[np.ndarray], np.ndarray], name: str, utterances: Sequence[np.ndarray], code_rate: float) -> Score:
    """Score codes (Q, N_i).

    Args:
        surprise: codes (Q, N) -> (Q, N) bits of each.
        code_rate: codes of one codebook in a second.
    """
    bits = [surprise(codes) for codes in utterances]
    per_code = estimate([float(values.mean()) for values in bits], [values.size for values in bits])
    rate = code_rate * len(utterances[0])
    low, high = (None if end is None else end * rate for end in (per_code.low, per_code.high))
    per_second = Estimate(per_code.mean * rate, low, high, per_code.count)
    return Score(name, per_code, per_second, float(2**per_code.mean), sum(values.size for values in bits))


def score_all(
    prior: Prior, utterances: Sequence[np.ndarray], update: Callable[[int, int], None] = lambda done, total: None
) -> list[Score]:
    """Scores of uniform codes, of the prior's n-grams, and of its network if it has one, in that order."""
    tables = [NGram(tuple(BookModel(size, (), ()) for size in prior.space.sizes)), *prior.baselines, prior.table]
    models: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [(NAMES[table.order], table.surprise) for table in tables]
    if prior.network is not None:
        models.append((prior.kind, prior.surprise))
    total, done = len(utterances), 0
    results = []
    for name, surprise in models:

        def counted(codes: np.ndarray, ask: Callable[[np.ndarray], np.ndarray] = surprise) -> np.ndarray:
            nonlocal done
            done += 1
            update(done, total * len(models))
            return ask(codes)

        results.append(score(counted, name, utterances, prior.space.code_rate))
    return results
