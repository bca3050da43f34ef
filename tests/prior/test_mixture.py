"""A network and n-grams, mixed: probabilities that sum to one, the same row by row, and never worse on what chose the share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from melcodec.prior.models import load_prior, save_prior
from melcodec.prior.score import score_all
from tests.prior.conftest import SIZE, make_prior, spoken_codes

pytest.importorskip("transformers")
SIZES = [(SIZE,), (SIZE, 16)]


@pytest.mark.parametrize("sizes", SIZES)
def test_the_formula(sizes):
    prior, codes = make_prior("mixture", sizes), spoken_codes(1, 8, 40, sizes)[0]
    network, table = replace(prior, share=0.0).surprise(codes), prior.table.surprise(codes)
    assert prior.surprise(codes) == pytest.approx(-np.log2(0.7 * 2.0**-network + 0.3 * 2.0**-table))
    logits = np.concatenate(list(prior.logits(codes, torch.float64)))
    alone = np.concatenate(list(replace(prior, share=0.0).logits(codes, torch.float64)))
    end = prior.tokens.end  # how likely the end is stays the network's business
    ends = [torch.from_numpy(each).softmax(-1)[:, end].numpy() for each in (logits, alone)]
    assert ends[0] == pytest.approx(ends[1])
    rows, growing = prior.tokens.rows(codes), prior.start(1, torch.float64)
    row = np.full((1, 1), prior.tokens.begin)
    for index in range(len(rows)):
        assert growing.next(row)[0] == pytest.approx(logits[index], abs=1e-9)
        row = rows[index : index + 1]


def test_the_share_is_the_best_and_is_kept(tmp_path):
    prior, codes = make_prior("llama"), spoken_codes(5, 8)
    mixed = prior.mixed(codes)
    assert mixed.share == 0.5  # the network is random
    bits = np.concatenate([mixed.surprise(each).ravel() for each in codes]).mean()
    assert mixed.figures["mixture_valid_bits"] == pytest.approx(bits, abs=1e-3)
    save_prior(tmp_path, mixed)
    again = load_prior(tmp_path)
    assert (again.share, again.fingerprint) == (0.5, mixed.fingerprint)
    assert mixed.fingerprint != prior.fingerprint
    assert replace(mixed, share=0.4).fingerprint != mixed.fingerprint
    assert [each.name for each in score_all(again, codes)] == ["uniform", "unigram", "bigram", "trigram", "llama", "mixture"]
    likely = [np.argmax(make_prior("llama").start().next(np.array([[prior.tokens.begin]]))[:, :SIZE], -1)[None]]
    assert prior.mixed(likely).share < 0.5  # codes that the network prefers


def test_rows_of_several_codes_are_not_mixed():
    prior = make_prior("llama", (SIZE, 16), "delay")
    assert prior.mixed(spoken_codes(3, 8, sizes=(SIZE, 16))) is prior
    assert make_prior("ngram").mixed(spoken_codes(3, 8)).share == 0.0
