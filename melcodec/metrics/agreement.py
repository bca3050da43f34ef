"""How two tokenizers' codes for the same speech relate: equal, renumbered, or different."""

from __future__ import annotations

import numpy as np


def count_pairs(counts: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
    """Add to ``counts`` (K before, K after), the confusion, how often each pair meets in codes (N,) and (N,)."""
    np.add.at(counts, (before, after), 1)


def exact_agreement(counts: np.ndarray) -> float:
    """Share of codes that are the same number in both, from the confusion (K, K')."""
    return float(np.trace(counts) / max(int(counts.sum()), 1))


def best_matching(counts: np.ndarray) -> np.ndarray:
    """The one-to-one renumbering under which most codes agree: (K, K') -> (K,) new numbers, -1 where none is left.

    Of renumberings that agree equally well, codes that never meet keep no promise: only pairs with a count matter.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(counts, maximize=True)
    matching = np.full(len(counts), -1, np.int64)
    matching[rows] = columns
    return matching


def held_out_agreement(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """How well a renumbering learned from one half of the codes holds in the other, for codes that both halves have.

    Fitted and measured on the same codes, the best of K! renumberings makes even unrelated codes agree: two thirds of
    them where each occurs about once.

    Args:
        first, second: confusions (K, K') of the halves.

    Returns:
        The share that agrees, and the share of all codes that this is about: 0 and 0 where the halves have none in common.
    """
    right = known = 0
    for learned, tested in ((first, second), (second, first)):
        matching, seen = best_matching(learned), np.flatnonzero(learned.sum(1))
        kept = seen[matching[seen] >= 0]  # where K' is smaller, some codes have no number left: they do not agree
        renumbered, same = tested[kept, matching[kept]].sum(), np.diagonal(tested)[seen[seen < min(tested.shape)]].sum()
        right += int(max(renumbered, same))  # to leave the numbers as they are is a renumbering, too
        known += int(tested[seen].sum())
    return right / max(known, 1), known / max(int(first.sum() + second.sum()), 1)


def jensen_shannon(before: np.ndarray, after: np.ndarray) -> float:
    """Jensen-Shannon divergence of two usage counts (K,) and (K,), in bits: 0 for equal shares, 1 for no code in common.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    from scipy.spatial.distance import jensenshannon

    if not (before.any() and after.any()):
        return 0.0  # nothing is known
    return float(jensenshannon(before, after, base=2) ** 2)
