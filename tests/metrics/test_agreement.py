from __future__ import annotations

import numpy as np
import pytest

from melcodec.metrics.agreement import best_matching, count_pairs, exact_agreement, held_out_agreement, jensen_shannon


def confusion(before, after, size_before, size_after):
    counts = np.zeros((size_before, size_after), np.int64)
    count_pairs(counts, np.asarray(before), np.asarray(after))
    return counts


def test_by_hand():
    counts = confusion([0, 0, 1, 2], [0, 1, 1, 3], 3, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert exact_agreement(counts) == 0.5
    assert best_matching(counts)[2] == 3
    assert held_out_agreement(counts, counts) == (0.75, 1)


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
    assert held_out_agreement(counts, counts) == (1, 1)
    assert matching[used].tolist() == order[used].tolist()


def test_one_number_stands_for_one_code_only():
    """Two codes that became one: no renumbering keeps both."""
    counts = confusion([0] * 6 + [1] * 4, [1] * 10, 2, 2)
    assert held_out_agreement(counts, counts)[0] == pytest.approx(0.6)


def test_what_chance_makes_agree_does_not_count():
    """Unrelated codes, each met about once: fitted and measured on the same ones, most of them would agree."""
    before, after = np.random.default_rng(0).integers(0, 1024, (2, 400))
    halves = [confusion(before[half], after[half], 1024, 1024) for half in (slice(200), slice(200, None))]
    assert held_out_agreement(sum(halves), sum(halves))[0] > 0.6
    agreement, covered = held_out_agreement(*halves)
    assert agreement < 0.05
    assert 0.1 < covered < 0.3


def test_codes_that_were_merged_do_not_agree():
    """Half of them have no number of their own in the smaller codebook."""
    before = np.random.default_rng(0).integers(0, 64, 20_000)
    halves = [confusion(before[half], before[half] // 2, 64, 32) for half in (slice(10_000), slice(10_000, None))]
    agreement, covered = held_out_agreement(*halves)
    assert agreement == pytest.approx(0.5, abs=0.05)
    assert covered == 1


def test_halves_with_nothing_in_common_tell_nothing():
    assert held_out_agreement(confusion([0], [1], 2, 2), confusion([1], [0], 2, 2)) == (0, 0)


def test_numbers_that_hardly_changed_may_stay():
    first, second = confusion([0, 0, 1], [1, 0, 1], 2, 2), confusion([0, 0, 1], [0, 0, 1], 2, 2)
    assert held_out_agreement(first, second) == (5 / 6, 1)


def test_fewer_codes_leave_some_without_a_number():
    matching = best_matching(confusion([0, 1, 2], [0, 1, 1], 3, 2))
    assert sorted(matching.tolist()) == [-1, 0, 1]


@pytest.mark.parametrize(
    ("before", "after", "bits"),
    [([1, 1], [5, 5], 0.0), ([1, 0], [0, 1], 1.0), ([1, 1, 0], [0, 1, 1], 0.5), ([3, 1], [1, 3], 0.188_722)],
)
def test_jensen_shannon(before, after, bits):
    assert jensen_shannon(np.array(before), np.array(after)) == pytest.approx(bits, abs=1e-6)
