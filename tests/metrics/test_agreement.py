from __future__ import annotations

import numpy as np
import pytest

from melcodec.metrics.agreement import best_matching, count_pairs, exact_agreement, jensen_shannon, matched_agreement


def confusion(before, after, size_before, size_after):
    counts = np.zeros((size_before, size_after), np.int64)
    count_pairs(counts, np.asarray(before), np.asarray(after))
    return counts


def test_by_hand():
    counts = confusion([0, 0, 1, 2], [0, 1, 1, 3], 3, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert exact_agreement(counts) == 0.5
    assert best_matching(counts)[2] == 3
    assert matched_agreement(counts, best_matching(counts)) == 0.75


def test_counts_add_up():
    counts = confusion([0, 1], [1, 1], 2, 2)
    count_pairs(counts, np.array([0]), np.array([1]))
    assert counts.tolist() == [[0, 2], [0, 1]]


def test_a_renumbering_is_undone(golden):
    codes = np.concatenate([golden[f"{index}.codes"] for index in range(3)])
    order = np.random.default_rng(0).permutation(32)
    counts = confusion(codes, order[codes], 32, 32)
    matching = best_matching(counts)
    used = np.unique(codes)
    assert exact_agreement(counts) < 0.3
    assert matched_agreement(counts, matching) == 1
    assert matching[used].tolist() == order[used].tolist()


def test_one_number_stands_for_one_code_only():
    """Two codes that became one: no renumbering keeps both."""
    counts = confusion([0] * 6 + [1] * 4, [1] * 10, 2, 2)
    assert matched_agreement(counts, best_matching(counts)) == pytest.approx(0.6)


def test_fewer_codes_leave_some_without_a_number():
    matching = best_matching(confusion([0, 1, 2], [0, 1, 1], 3, 2))
    assert sorted(matching.tolist()) == [-1, 0, 1]


@pytest.mark.parametrize(
    ("before", "after", "bits"),
    [([1, 1], [5, 5], 0.0), ([1, 0], [0, 1], 1.0), ([1, 1, 0], [0, 1, 1], 0.5), ([3, 1], [1, 3], 0.188_722)],
)
def test_jensen_shannon(before, after, bits):
    assert jensen_shannon(np.array(before), np.array(after)) == pytest.approx(bits, abs=1e-6)
