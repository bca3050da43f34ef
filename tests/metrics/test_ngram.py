"""N-grams: probabilities that sum to one, the formula by hand, calibration on speakers that were not counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from melcodec.metrics import ngram
from melcodec.metrics.ngram import Smoothing
from tests.prior.conftest import SIZE, spoken_codes

LINES = [codes[0] for codes in spoken_codes(20, 3)]


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_probabilities_sum_to_one_and_agree_with_those_of_whole_utterances(order):
    model = ngram.calibrated(ngram.fit_book(LINES[:15], order, SIZE), LINES[15:])
    line = LINES[17]
    likely = model.likelihoods(line)
    for index in (0, 1, 2, len(line) - 1):
        shares = model.probabilities(line[:index])
        assert shares.sum() == pytest.approx(1, abs=1e-12)
        assert (shares > 0).all()
        assert shares[line[index]] == pytest.approx(likely[index], rel=1e-12)


def test_the_formula_by_hand():
    """Two utterances, 0 1 0 1 and 0 0, discount .5 and concentration 2 for the bigram."""
    model = ngram.fit_book([np.array([0, 1, 0, 1]), np.array([0, 0])], 2, 3)
    model = replace(model, smoothing=(Smoothing(0.25, 1.0), Smoothing(0.5, 2.0)))
    # before how many different codes: 0 after begin, 1, 0 -> 3; 1 after 0 -> 1
    unigram = [(3 - 0.25 + (1 + 0.25 * 2) / 3) / 5, (1 - 0.25 + (1 + 0.25 * 2) / 3) / 5, (1 + 0.25 * 2) / 3 / 5]
    after_zero = [(1 - 0.5 + (2 + 0.5 * 2) * unigram[0]) / 5, (2 - 0.5 + (2 + 0.5 * 2) * unigram[1]) / 5]
    assert model.probabilities(np.array([2, 0]))[:2] == pytest.approx(after_zero)
    assert model.probabilities(np.array([2])) == pytest.approx(unigram)  # 2 was never seen: back to the unigram


def test_counts_are_those_of_a_counter():
    table = ngram.count(LINES, 3, SIZE)
    wanted = Counter()
    for line in LINES:
        padded = [SIZE, SIZE, *line.tolist()]
        wanted.update(zip(padded, padded[1:], padded[2:], strict=False))
    found = {
        (context // (SIZE + 1), context % (SIZE + 1), code): count
        for context, code, count in zip(table.contexts.tolist(), table.codes.tolist(), table.counts.tolist(), strict=True)
    }
    assert found == wanted


def test_longer_n_grams_predict_better_and_calibration_helps():
    held, test = LINES[12:16], LINES[16:]
    bits, plain = [], []
    for order in range(4):
        model = ngram.fit_book(LINES[:12], order, SIZE)
        tuned = ngram.calibrated(model, held)
        for found, each in ((plain, model), (bits, tuned)):
            found.append(float(np.mean(np.concatenate([-np.log2(each.likelihoods(line)) for line in test]))))
    assert bits[0] == pytest.approx(np.log2(SIZE))
    assert bits[3] < bits[2] < bits[1] - 1
    assert all(after <= before for after, before in zip(bits, plain, strict=True))
    assert sum(bits) < sum(plain)


def test_rare_n_grams_can_be_dropped():
    every, few = (ngram.fit([*spoken_codes(9, 1)], [], (SIZE,), 3, least).books[0] for least in (1, 3))
    assert few.counts[-1].counts.min() >= 3
    assert len(few.counts[-1].counts) < len(every.counts[-1].counts)
    assert len(few.counts[0].counts) == len(every.counts[0].counts)
    assert few.probabilities(LINES[0]).sum() == pytest.approx(1)


def test_arrays_and_back():
    sizes = (SIZE, 300)
    data = spoken_codes(12, 2, sizes=sizes)
    model = ngram.fit(data[:9], data[9:], sizes, 3)
    arrays, meta = ngram.to_arrays(model)
    again = ngram.from_arrays(arrays, meta)
    assert np.array_equal(again.surprise(data[0]), model.surprise(data[0]))
    assert model.surprise(data[0]).shape == data[0].shape
    assert arrays["book0.order3.codes"].dtype == np.uint8
