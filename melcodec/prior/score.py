"""How well a prior predicts codes, beside its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from melcodec.metrics.ngram import NAMES, BookModel, NGram, fit
from melcodec.metrics.predictability import Score, Surprise, score
from melcodec.prior.models import Prior
from melcodec.prior.reading import CodesCorpus, held_out

CALIBRATION = 0.1  # share of the training utterances, of other speakers where they are known, that smoothing is chosen on


def fit_tables(corpus: CodesCorpus, order: int, min_count: int = 1) -> tuple[NGram, ...]:
    """N-grams of order 1 to ``order``, counted on ``corpus`` and calibrated on some of its speakers."""
    counted, held = held_out(corpus, CALIBRATION)
    return tuple(fit(counted.codes, held.codes, corpus.space.sizes, n, min_count) for n in range(1, order + 1))


def score_all(
    prior: Prior, utterances: Sequence[np.ndarray], update: Callable[[int, int], None] = lambda done, total: None
) -> list[Score]:
    """Scores of uniform codes, of the prior's n-grams, and of its network if it has one, in that order."""
    tables = [NGram(tuple(BookModel(size, (), ()) for size in prior.space.sizes)), *prior.baselines, prior.table]
    models: list[tuple[str, Surprise]] = [(NAMES[table.order], table.surprise) for table in tables]
    if prior.network is not None:
        models.append((prior.kind, prior.surprise))
    total, done = len(utterances), 0
    results = []
    for name, surprise in models:

        def counted(codes: np.ndarray, ask: Surprise = surprise) -> np.ndarray:
            nonlocal done
            done += 1
            update(done, total * len(models))
            return ask(codes)

        results.append(score(counted, name, utterances, prior.space.code_rate))
    return results
