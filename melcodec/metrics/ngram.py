"""N-gram models over codes: uniform, unigram, bigram and trigram, interpolated with the shorter ones, and calibrated.

With h the n - 1 codes before code w, c counts, t(h) the number of different codes seen after h, and p_0 uniform:

    p_n(w | h) = (max(c(h, w) - d_n, 0) + (a_n + d_n t(h)) p_(n-1)(w | h')) / (c(h) + a_n)

d_n = discount, a_n = concentration: the predictive rule of the hierarchical Pitman-Yor model with one table per type (Teh 2006,
"A hierarchical Bayesian language model based on Pitman-Yor processes"); a_n = 0 is interpolated Kneser-Ney (Kneser and
Ney 1995). As there, what a shorter n-gram counts when it serves a longer one is not how often it occurs but after how many
different codes. The 2 n numbers are chosen on speakers that were not counted (``calibrated``).

Every codebook has a model of its own, over its own past. Before the first code stands the symbol K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

NAMES = ("uniform", "unigram", "bigram", "trigram")  # by order
DISCOUNTS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95)
CONCENTRATIONS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
SWEEPS = 2  # of the coordinate search over all discounts and concentrations


@dataclass(frozen=True)
class Counts:
    """n-grams of one order, sorted: contexts (M,), next codes (M,) and counts (M,), and where each context begins.

    Args:
        contexts: int64, the n - 1 codes before as digits of a number in base K + 1; (M,).
        codes: int64, (M,).
        counts: float64, (M,).
        starts: int64, (C + 1,): n-grams of the c-th context are starts[c] : starts[c + 1].
        totals: float64, (C,): occurrences of each context.
    """

    contexts: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    totals: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, contexts: np.ndarray, codes: np.ndarray, counts: np.ndarray) -> Counts:
        """From sorted n-grams (M,), each once."""
        starts = np.flatnonzero(np.diff(contexts, prepend=-1))
        totals = np.add.reduceat(counts, starts) if len(starts) else np.zeros(0)
        return cls(contexts, codes, counts, np.append(starts, len(contexts)), totals)

    def without(self, below: int) -> Counts:
        """Only n-grams that occurred at least ``below`` times."""
        kept = self.counts >= below
        return Counts.of(self.contexts[kept], self.codes[kept], self.counts[kept])

    def find(self, contexts: np.ndarray) -> np.ndarray:
        """(N,) -> (N,) int64: which context each is, -1 where it was never seen."""
        known = self.contexts[self.starts[:-1]]
        place = np.searchsorted(known, contexts)
        inside = place < len(known)
        inside[inside] = known[place[inside]] == contexts[inside]
        return np.where(inside, place, -1)


@dataclass(frozen=True)
class Smoothing:
    """How much an order gives to the shorter one: discount d in [0, 1) and concentration a >= 0."""

    discount: float = 0.8
    concentration: float = 1.0


@dataclass(frozen=True)
class BookModel:
    """The model of one codebook.

    Args:
        size: K.
        counts: by order, from 1 on; the last one holds occurrences, those before it numbers of different predecessors.
        smoothing: of each order.
    """

    size: int
    counts: tuple[Counts, ...]
    smoothing: tuple[Smoothing, ...]

    @property
    def order(self) -> int:
        """n: codes per n-gram; 0 is uniform."""
        return len(self.counts)

    def probabilities(self, history: np.ndarray) -> np.ndarray:
        """The codes so far (N,) -> (K,) float64 probabilities of the next one."""
        result = np.full(self.size, 1 / self.size)
        for order, (table, smooth) in enumerate(zip(self.counts, self.smoothing, strict=True), start=1):
            (place,) = table.find(contexts_of(np.append(history[-order:], 0), order, self.size)[-1:])
            if place < 0:
                break  # a longer context that holds this one was not seen either
            begin, end = table.starts[place : place + 2]
            given = smooth.concentration + smooth.discount * (end - begin)
            total = table.totals[place] + smooth.concentration
            result *= given / total
            result[table.codes[begin:end]] += (table.counts[begin:end] - smooth.discount) / total
        return result

    def likelihoods(self, codes: np.ndarray) -> np.ndarray:
        """Codes (N,) of one utterance -> (N,) float64: the probability of each given those before it."""
        result = np.full(len(codes), 1 / self.size)
        for part in self.parts(codes):
            result = part.apply(self.smoothing[part.order - 1], result)
        return result

    def parts(self, codes: np.ndarray) -> list[_Evidence]:
        """What each order saw of every code of an utterance (N,)."""
        found = []
        for order, table in enumerate(self.counts, start=1):
            contexts = contexts_of(codes, order, self.size)
            places = table.find(contexts)
            keys = table.contexts * self.size + table.codes
            at = np.minimum(np.searchsorted(keys, contexts * self.size + codes), max(len(keys) - 1, 0))
            hit = keys[at] == contexts * self.size + codes if len(keys) else np.zeros(len(codes), bool)
            seen = np.where(hit, table.counts[at] if len(keys) else 0.0, 0.0)
            safe = np.maximum(places, 0)
            types = np.where(places >= 0, np.diff(table.starts)[safe] if len(keys) else 0, 0)
            totals = np.where(places >= 0, table.totals[safe] if len(keys) else 0.0, 0.0)
            found.append(_Evidence(order, seen, types.astype(np.float64), totals))
        return found


@dataclass(frozen=True)
class _Evidence:
    """Of every code (N,): its count after its context, and the context's types and total."""

    order: int
    seen: np.ndarray
    types: np.ndarray
    totals: np.ndarray

    def apply(self, smooth: Smoothing, shorter: np.ndarray) -> np.ndarray:
        """Probabilities (N,) of the order below -> of this one."""
        own = np.maximum(self.seen - smooth.discount, 0.0)
        total = self.totals + smooth.concentration
        mixed = (own + (smooth.concentration + smooth.discount * self.types) * shorter) / np.maximum(total, 1e-9)
        return np.where(self.totals > 0, mixed, shorter)


def contexts_of(codes: np.ndarray, order: int, size: int) -> np.ndarray:
    """Codes (N,) -> (N,) int64: the order - 1 codes before each, as digits in base size + 1; ``size`` before the first."""
    padded = np.concatenate([np.full(order - 1, size), codes]).astype(np.int64)
    result = np.zeros(len(codes), np.int64)
    for back in range(order - 1, 0, -1):
        result = result * (size + 1) + padded[order - 1 - back : len(padded) - back]
    return result


def count(utterances: Sequence[np.ndarray], order: int, size: int) -> Counts:
    """Occurrences of every n-gram in codes (N_i,) of many utterances."""
    contexts = np.concatenate([contexts_of(codes, order, size) for codes in utterances])
    keys, counts = np.unique(contexts * size + np.concatenate(utterances).astype(np.int64), return_counts=True)
    return Counts.of(keys // size, keys % size, counts.astype(np.float64))


def shorter(table: Counts, order: int, size: int) -> Counts:
    """n-grams of ``order`` -> those of order - 1, each counted once for every different code before it."""
    keys, counts = np.unique(table.contexts % (size + 1) ** (order - 2) * size + table.codes, return_counts=True)
    return Counts.of(keys // size, keys % size, counts.astype(np.float64))


def fit_book(utterances: Sequence[np.ndarray], order: int, size: int, min_count: int = 1) -> BookModel:
    """Count codes (N_i,); with the default smoothing, which ``calibrated`` improves."""
    tables: list[Counts] = []
    if order:
        tables = [count(utterances, order, size)]
        for longer in range(order, 1, -1):
            tables.insert(0, shorter(tables[0], longer, size))
        tables[-1] = tables[-1].without(min_count if order > 1 else 1)
    return BookModel(size, tuple(tables), (Smoothing(),) * order)


def calibrated(model: BookModel, utterances: Sequence[np.ndarray]) -> BookModel:
    """``model`` with the smoothing that gives utterances (N_i,), which it has not counted, the highest probability."""
    if not model.order or not utterances:
        return model
    evidence = [
        _Evidence(
            parts[0].order, *(np.concatenate([getattr(part, name) for part in parts]) for name in ("seen", "types", "totals"))
        )
        for parts in zip(*(model.parts(codes) for codes in utterances), strict=True)
    ]

    def bits(smoothing: Sequence[Smoothing]) -> float:
        result = np.full(len(evidence[0].seen), 1 / model.size)
        for part, smooth in zip(evidence, smoothing, strict=True):
            result = part.apply(smooth, result)
        return float(-np.log2(np.maximum(result, 1e-300)).mean())

    best = list(model.smoothing)
    for _ in range(SWEEPS):
        for index in range(model.order):
            choices = [Smoothing(discount, best[index].concentration) for discount in DISCOUNTS]
            best[index] = min(choices, key=lambda choice: bits([*best[:index], choice, *best[index + 1 :]]))
            choices = [Smoothing(best[index].discount, value) for value in CONCENTRATIONS if value + best[index].discount > 0]
            best[index] = min(choices, key=lambda choice: bits([*best[:index], choice, *best[index + 1 :]]))
    return replace(model, smoothing=tuple(best))


@dataclass(frozen=True)
class NGram:
    """One model per codebook."""

    books: tuple[BookModel, ...]

    @property
    def order(self) -> int:
        """n: codes per n-gram; 0 is uniform."""
        return self.books[0].order

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each codebook."""
        return tuple(book.size for book in self.books)

    def surprise(self, codes: np.ndarray) -> np.ndarray:
        """Codes (Q, N) -> (Q, N) bits: -log2 of the probability of each."""
        return np.stack([-np.log2(book.likelihoods(line)) for book, line in zip(self.books, codes, strict=True)])


def fit(
    utterances: Sequence[np.ndarray], held: Sequence[np.ndarray], sizes: tuple[int, ...], order: int, min_count: int = 1
) -> NGram:
    """Count codes (Q, N_i) and calibrate on ``held``, which are then counted as well."""
    books = []
    for book, size in enumerate(sizes):
        lines, held_lines = ([codes[book].astype(np.int64) for codes in part] for part in (utterances, held))
        tuned = calibrated(fit_book(lines or held_lines, order, size, min_count), held_lines if lines else [])
        both = fit_book([*lines, *held_lines], order, size, min_count)
        books.append(replace(both, smoothing=tuned.smoothing))
    return NGram(tuple(books))


def to_arrays(model: NGram) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """What a file holds of ``model``: arrays by name in the smallest unsigned types, and JSON values."""
    arrays: dict[str, np.ndarray] = {}
    for number, book in enumerate(model.books):
        for order, table in enumerate(book.counts, start=1):
            prefix = f"book{number}.order{order}"
            firsts = table.contexts[table.starts[:-1]]
            most = int(table.counts.max(initial=1))
            arrays[f"{prefix}.contexts"] = _narrow(firsts)
            arrays[f"{prefix}.types"] = _narrow(np.diff(table.starts))
            arrays[f"{prefix}.codes"] = _narrow(table.codes)
            arrays[f"{prefix}.counts"] = table.counts.astype(np.min_scalar_type(most))
    smoothing = [[[smooth.discount, smooth.concentration] for smooth in book.smoothing] for book in model.books]
    return arrays, {"sizes": list(model.sizes), "order": model.order, "smoothing": smoothing}


def from_arrays(arrays: dict[str, np.ndarray], meta: dict[str, object]) -> NGram:
    """The inverse of ``to_arrays``; raises KeyError, ValueError or TypeError when it cannot be."""
    sizes, order, smoothing = meta["sizes"], meta["order"], meta["smoothing"]
    assert isinstance(sizes, list)
    assert isinstance(order, int)
    assert isinstance(smoothing, list)
    books = []
    for number, (size, smooth) in enumerate(zip(sizes, smoothing, strict=True)):
        tables = []
        for n in range(1, order + 1):
            prefix = f"book{number}.order{n}"
            contexts, types, codes, counts = (
                arrays[f"{prefix}.{name}"].astype(np.int64) for name in ("contexts", "types", "codes", "counts")
            )
            tables.append(Counts.of(np.repeat(contexts, types), codes, counts.astype(np.float64)))
        books.append(BookModel(size, tuple(tables), tuple(Smoothing(*pair) for pair in smooth)))
    return NGram(tuple(books))


def _narrow(values: np.ndarray) -> np.ndarray:
    """``values``, none negative, in the smallest unsigned type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
