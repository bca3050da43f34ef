"""Packed sequences: nothing is lost, nothing leaks, and everything is a function of (seed, step)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from melcodec.prior.data import Sequences
from melcodec.prior.network import IGNORED, logits_of, loss_of
from melcodec.tokens import Tokens
from tests.prior.conftest import SIZE, make_prior, spoken_codes

pytest.importorskip("transformers")
CASES = [((SIZE,), "flat", True), ((SIZE,), "flat", False), ((SIZE, 16), "flat", True), ((SIZE, 16), "delay", True)]


@pytest.mark.parametrize(("sizes", "pattern", "packed"), CASES)
def test_every_token_is_asked_for_once(sizes, pattern, packed):
    tokens, data = Tokens(sizes, pattern), spoken_codes(9, 1, sizes=sizes)
    sequences = Sequences(data, tokens, 16, packed)
    asked = np.concatenate([batch.targets[batch.targets != IGNORED] for batch in sequences.once(4)])
    rows = [tokens.sequence(codes)[1:] for codes in data]
    wanted = np.concatenate([part[part != tokens.pad] for part in rows])
    # where a border of packed sequences falls, the row that begins the next one has been asked for by the one before
    assert np.array_equal(np.sort(asked), np.sort(wanted))


def test_batches_are_functions_of_seed_and_step():
    data = spoken_codes(9, 1)
    one, two, other = (Sequences(data, Tokens((SIZE,)), 16, True, seed) for seed in (0, 0, 1))
    for step in (7, 0, 100):
        assert all(map(np.array_equal, one.batch(step, 4, 0.1), two.batch(step, 4, 0.1)))
    assert not np.array_equal(one.batch(0, 4).inputs, other.batch(0, 4).inputs)
    assert not np.array_equal(one.batch(0, 4).inputs, one.batch(1, 4).inputs)
    parts = [one.batch(3, 4).part(rank, 2) for rank in range(2)]
    assert np.array_equal(np.concatenate([part.inputs for part in parts]), one.batch(3, 4).inputs)


def test_an_epoch_holds_every_utterance_in_another_order():
    data = [np.full((1, 14), code) for code in range(8)]  # 16 rows each, as long as a sequence
    sequences = Sequences(data, Tokens((SIZE,)), 16, True)
    orders = [[int(batch.inputs[0, 1, 0]) for batch in (sequences.batch(e * 8 + i, 1) for i in range(8))] for e in range(2)]
    assert [sorted(order) for order in orders] == [list(range(8))] * 2
    assert orders[0] != orders[1]


def test_hidden_tokens():
    sequences = Sequences(spoken_codes(9, 1), Tokens((SIZE,)), 16, True)
    plain, hidden = sequences.batch(0, 16), sequences.batch(0, 16, 0.5)
    changed = plain.inputs != hidden.inputs
    assert 0.3 < changed.mean() < 0.6
    assert (hidden.inputs[changed] == sequences.tokens.pad).all()
    assert not changed[plain.inputs == sequences.tokens.begin].any()
    assert np.array_equal(plain.targets, hidden.targets)


@pytest.mark.parametrize(("sizes", "pattern"), [((SIZE,), "flat"), ((SIZE, 16), "delay")])
def test_packed_equals_alone(sizes, pattern):
    """The logits of a packed sequence are those of each of its documents on its own: nothing leaks across a border."""
    prior = make_prior("llama", sizes, pattern)
    data = [codes[:, :5] for codes in spoken_codes(9, 1, sizes=sizes)]
    batch = Sequences(data, prior.tokens, 16, True).batch(0, 2)
    rows, positions, documents = (torch.from_numpy(value) for value in (batch.inputs, batch.positions, batch.documents))
    with torch.inference_mode():
        packed = logits_of(prior.network, rows, positions, documents)
        leaking = logits_of(prior.network, rows)
        for item in range(2):
            for document in documents[item].unique():
                mine = documents[item] == document
                alone = logits_of(prior.network, rows[item : item + 1, mine])
                assert torch.allclose(alone[0], packed[item, mine], atol=1e-5)
    assert documents.max() >= 2
    assert (packed - leaking).abs().max() > 1e-2  # without the mask the test would see it


def test_loss_of_the_delay_pattern_is_per_codebook():
    tokens = Tokens((SIZE, 16), "delay")
    targets = torch.from_numpy(tokens.sequence(np.array([[1, 2], [3, 4]]))[1:])[None]
    targets[targets == tokens.pad] = IGNORED
    total, count = loss_of(torch.zeros(1, 3, tokens.vocabulary), targets, tokens)
    assert int(count) == 5  # four codes and the end
    assert float(total) == pytest.approx(3 * np.log(SIZE + 1) + 2 * np.log(16), rel=1e-6)
