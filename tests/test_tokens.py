"""Codes as tokens: every number as documented, and back."""

from __future__ import annotations

import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.tokens import Tokens, collapse, expand

CODES = np.array([[1, 2, 3], [4, 0, 5]])


def test_numbers_of_the_vocabulary():
    tokens = Tokens((8, 6), offset=100)
    assert (tokens.first(0), tokens.first(1)) == (100, 108)
    assert (tokens.begin, tokens.end, tokens.pad, tokens.vocabulary) == (114, 115, 116, 117)


def test_flat():
    tokens = Tokens((8, 6), "flat", 100)
    assert tokens.rows(CODES).tolist() == [[101], [112], [102], [108], [103], [113]]
    assert tokens.sequence(CODES).ravel().tolist() == [114, 101, 112, 102, 108, 103, 113, 115]
    assert [tokens.book(row, 0) for row in range(4)] == [0, 1, 0, 1]


def test_delay():
    tokens = Tokens((8, 6), "delay")
    begin, end, pad = tokens.begin, tokens.end, tokens.pad
    assert tokens.rows(CODES).tolist() == [[1, pad], [2, 12], [3, 8], [pad, 13]]
    assert tokens.sequence(CODES).tolist() == [[begin, begin], [1, pad], [2, 12], [3, 8], [end, 13]]
    assert [tokens.book(7, column) for column in range(2)] == [0, 1]


@pytest.mark.parametrize("pattern", ["flat", "delay"])
@pytest.mark.parametrize("sizes", [(16,), (16, 8), (16, 8, 300, 2)])
@pytest.mark.parametrize("offset", [0, 7])
def test_there_and_back(pattern, sizes, offset):
    tokens = Tokens(sizes, pattern, offset)
    for count in (1, 2, 9):
        codes = np.stack([np.random.default_rng(count).integers(size, size=count) for size in sizes])
        rows = tokens.rows(codes)
        assert rows.shape == (tokens.num_rows(count), tokens.width)
        assert np.array_equal(tokens.codes(rows), codes)
        whole = tokens.sequence(codes)
        assert (whole[0] == tokens.begin).all()
        assert (whole == tokens.end).sum() == 1
        assert np.array_equal(whole[1 : 1 + len(rows)][rows != tokens.pad], rows[rows != tokens.pad])


def test_one_codebook_is_the_same_in_both_patterns():
    flat, delay = Tokens((8,), "flat"), Tokens((8,), "delay")
    assert np.array_equal(flat.sequence(CODES[:1]), delay.sequence(CODES[:1]))


@pytest.mark.parametrize("codes", [CODES[:1], CODES[0], np.array([[8], [0]]), np.array([[-1], [0]])])
def test_codes_that_do_not_fit_are_refused(codes):
    with pytest.raises(MelcodecError, match=r"of shape|reach from"):
        Tokens((8, 6)).rows(codes)


def test_run_lengths_and_back():
    codes = np.array([5, 5, 5, 2, 7, 7])
    runs, durations = collapse(codes)
    assert (runs.tolist(), durations.tolist()) == ([5, 2, 7], [3, 1, 2])
    assert np.array_equal(expand(runs, durations), codes)
    assert [part.shape for part in collapse(codes[:0])] == [(0,), (0,)]
