"""How two tokenizers differ: their codes one by one, what they lose, how they use their codebooks, and what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.evaluation.pairing import LeftOut, Pair, Tokenizer, Update, from_folders, from_speech
from melcodec.evaluation.subjects import find_subjects
from melcodec.formats.shipped import is_run
from melcodec.metrics.agreement import best_matching, count_pairs, exact_agreement, held_out_agreement, jensen_shannon
from melcodec.metrics.codes import CodeUsage, code_usage
from melcodec.metrics.statistics import Estimate, estimate
from melcodec.version import __version__

KIND, FORMAT = "comparison", 1
MOST_MOVED = 12
MAX_SIZE = 8192  # K; memory grows by its square, and the matching's time by its cube
TELLING = 0.5  # share of codes that both halves of the speech must have before a renumbering is spoken of
RENUMBERED = 0.99  # agreement after matching from which two codebooks are one, in another order


@dataclass(frozen=True)
class Side:
    """One of the two.

    Args:
        sizes, usage: of each codebook, K and how it is used.
        error: log-mel L1 over files; None for stored codes.
    """

    name: str
    fingerprint: str | None
    sizes: tuple[int, ...]
    usage: list[CodeUsage]
    error: Estimate | None = None
    bands: list[float] | None = None


@dataclass(frozen=True)
class Move:
    """A code that another one took the place of: ``count`` times, ``share`` of what ``before`` was."""

    codebook: int
    before: int
    after: int
    count: int
    share: float


@dataclass(frozen=True)
class BookAgreement:
    """One codebook.

    Args:
        exact: share of codes that are the same number.
        matched: the same after the best one-to-one renumbering, learned from one half of every utterance and measured on
            the other, over codes that both halves have.
        covered: the share of codes that ``matched`` is about.
        drift: Jensen-Shannon divergence of the usages, in bits, 0 to 1.
        matching: the renumbering (K,): new numbers of A's codes, -1 for those that A never used or B has no number left for.
    """

    exact: float
    matched: float
    covered: float
    drift: float
    matching: list[int]


@dataclass(frozen=True)
class Language:
    """One language: the share of codes that stayed, and both errors."""

    files: int
    exact: float
    before: Estimate | None
    after: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """Everything that was found.

    Args:
        difference: B's error less A's, file by file.
        errors: log-mel L1 of A and of B for every utterance, by id; empty for folders of codes.
        left_out: reasons, by id.
    """

    a: Side
    b: Side
    files: int
    codes: int
    books: list[BookAgreement]
    moved: list[Move]
    difference: Estimate | None
    languages: dict[str, Language]
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def exact(self) -> float:
        """Share of all codes that are the same number."""
        return sum(book.exact for book in self.books) / len(self.books)

    @property
    def matched(self) -> float:
        """The same after renumbering, where that can be told."""
        return sum(book.matched for book in self.books) / len(self.books)

    @property
    def covered(self) -> float:
        """Share of all codes of which it can be told."""
        return sum(book.covered for book in self.books) / len(self.books)

    @property
    def same_space(self) -> bool:
        """Whether both have one fingerprint: then no sound gets other codes."""
        return self.a.fingerprint is not None and self.a.fingerprint == self.b.fingerprint

    @property
    def retrain(self) -> bool:
        """Whether a GPT trained on A's codes must be trained again for B's."""
        return not self.same_space and self.exact < 1

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        words = {name: getattr(self, name) for name in ("exact", "matched", "covered", "same_space", "retrain")}
        return {"kind": KIND, "format": FORMAT, "melcodec": __version__, "verdict": verdict(self), **words, **asdict(self)}


def compare(
    a: str | Path,
    b: str | Path,
    data: Sequence[str | Path] = (),
    limit: int | None = None,
    seed: int = 0,
    update: Update = lambda done, total: None,
    note: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> Comparison:
    """Compare two checkpoints on ``data``, or two folders of codes.

    Args:
        a, b: checkpoints, by path, run folder or shipped name; or folders that melcodec preprocess or encode wrote.
        limit: take that many utterances of ``data``, chosen by ``seed``; not for folders.
        update: is told (done, total).
        note: called with sentences about what lies in ``data`` and is not used.
        device: where checkpoints compute.

    Raises:
        MelcodecError: one is a folder and the other is not, no data, or no utterance that both have and can be compared.
    """
    folders = [Path(side).is_dir() and not is_run(side) for side in (a, b)]
    if folders[0] != folders[1]:
        raise MelcodecError(
            f"{a} and {b}: one is a folder of codes, the other is not", "compare two checkpoints, or two folders of codes"
        )
    if all(folders):
        if data:
            raise MelcodecError("folders of codes are compared as they are", "leave out the audio, or give two checkpoints")
        if limit is not None:
            raise MelcodecError("--limit is for speech; folders of codes are compared whole")
        one, other, pairs = from_folders(Path(a), Path(b), update)
    else:
        if not data and all(Path(side).suffix in (".npy", ".npz") for side in (a, b)):
            raise MelcodecError(f"{a} and {b}: single codes files", "compare two folders, in which they have equal names")
        if not data:
            raise MelcodecError("two checkpoints are compared on speech", "melcodec compare A B DATA")
        one, other, pairs = from_speech(a, b, find_subjects(data, limit, seed, note), update, device)
    tally = _Tally(one.sizes, other.sizes)
    for pair in pairs:
        tally.add(pair)
    return tally.summary(one, other, seed)


@dataclass
class _Counts:
    """Counts over the utterances that were added: codes, codes that are the same, and both errors of each by its id."""

    files: int = 0
    codes: int = 0
    same: int = 0
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, pair: Pair) -> None:
        """Count ``pair`` in."""
        self.files += 1
        self.codes += pair.codes[0].size
        self.same += int((pair.codes[0] == pair.codes[1]).sum())
        if pair.bands is not None:
            self.errors[pair.id] = float(pair.bands[0].mean()), float(pair.bands[1].mean())

    def error(self, side: int, seed: int) -> Estimate | None:
        """Mean log-mel L1 of A (0) or B (1); None without sound."""
        return estimate([pair[side] for pair in self.errors.values()], seed=seed) if self.errors else None


class _Tally:
    """Counts over pairs; holds no codes."""

    def __init__(self, one: tuple[int, ...], other: tuple[int, ...]) -> None:
        if (largest := max(one + other)) > MAX_SIZE:
            raise MelcodecError(f"a codebook of {largest} codes is too large to be compared; the limit is {MAX_SIZE}")
        if len(one) != len(other):
            raise MelcodecError(f"{len(one)} and {len(other)} codebooks cannot be compared")
        self.all = _Counts()
        self.languages: dict[str, _Counts] = {}
        # of every codebook (2, K, K'): the first halves of utterances, and the second
        self.counts = [np.zeros((2, *sizes), np.int64) for sizes in zip(one, other, strict=True)]
        self.bands: list[tuple[np.ndarray, np.ndarray]] = []
        self.left_out: dict[str, str] = {}

    def add(self, pair: Pair | LeftOut) -> None:
        """Count ``pair`` in, or note why it is left out."""
        if isinstance(pair, LeftOut):
            self.left_out[pair.id] = pair.reason
            return
        if len(pair.codes[0]) != len(self.counts):
            self.left_out[pair.id] = f"{len(pair.codes[0])} codebooks, not {len(self.counts)}"
            return
        for counts, before, after in zip(self.counts, *pair.codes, strict=True):
            middle = len(before) // 2
            count_pairs(counts[0], before[:middle], after[:middle])
            count_pairs(counts[1], before[middle:], after[middle:])
        self.all.add(pair)
        if pair.language:
            self.languages.setdefault(pair.language, _Counts()).add(pair)
        if pair.bands is not None:
            self.bands.append(pair.bands)

    def summary(self, one: Tokenizer, other: Tokenizer, seed: int) -> Comparison:
        """What all pairs show; MelcodecError when there were none."""
        if not self.all.files:
            reason = next(iter(self.left_out.values()), "nothing there")
            hint = "are both of one code rate, over the same speech?"
            raise MelcodecError(f"no utterance can be compared; the first: {reason}", hint)
        moved = [move for book, counts in enumerate(self.counts) for move in _moves(book, counts.sum(0))]
        return Comparison(
            a=self._side(one, 0, seed),
            b=self._side(other, 1, seed),
            files=self.all.files,
            codes=self.all.codes,
            books=[_agreement(counts) for counts in self.counts],
            moved=sorted(moved, key=lambda move: -move.count)[:MOST_MOVED],
            difference=estimate([b - a for a, b in self.all.errors.values()], seed=seed) if self.all.errors else None,
            languages={
                name: Language(seen.files, seen.same / seen.codes, seen.error(0, seed), seen.error(1, seed))
                for name, seen in sorted(self.languages.items())
            },
            errors=self.all.errors,
            left_out=self.left_out,
        )

    def _side(self, maker: Tokenizer, side: int, seed: int) -> Side:
        usage = [code_usage(counts.sum((0, 2 - side))) for counts in self.counts]
        bands = np.mean([pair[side] for pair in self.bands], axis=0).round(6).tolist() if self.bands else None
        return Side(maker.name, maker.fingerprint, maker.sizes, usage, self.all.error(side, seed), bands)


def _agreement(halves: np.ndarray) -> BookAgreement:
    counts = halves.sum(0)
    size = max(counts.shape)
    before, after = (np.pad(counts.sum(1 - side), (0, size - counts.shape[side])) for side in (0, 1))
    matching = best_matching(counts)
    matching[counts.sum(1) == 0] = -1  # a code that never occurs would match anything
    drift = jensen_shannon(before, after)
    return BookAgreement(exact_agreement(counts), *held_out_agreement(*halves), drift, matching.tolist())


def _moves(book: int, counts: np.ndarray) -> Iterator[Move]:
    """The most frequent changes of number."""
    changed = counts.copy()
    np.fill_diagonal(changed, 0)
    for place in np.argsort(changed, axis=None)[::-1][:MOST_MOVED]:
        before, after = np.unravel_index(place, counts.shape)
        if not changed[before, after]:
            return
        share = float(changed[before, after] / counts[before].sum())
        yield Move(book, int(before), int(after), int(changed[before, after]), share)


def verdict(found: Comparison) -> list[str]:
    """What follows, in plain words."""
    lines = [_codes_verdict(found)]
    if found.difference is not None and found.a.error is not None and found.b.error is not None:
        change = found.difference
        sure = change.low is None or change.high is None or change.low <= 0 <= change.high
        word = "no measurable difference" if sure else "B is better" if change.mean < 0 else "B is worse"
        words = f"Log-mel L1 {found.a.error.mean:.3f} before, {found.b.error.mean:.3f} after: {word}"
        if change.low is not None:
            words += (
                f" (B less A: {change.mean:+.4f}, 95 % between {change.low:+.4f} and {change.high:+.4f}, {change.count} files)"
            )
        lines.append(f"{words}.")
    for number, book in enumerate(found.books):
        name = f"Codebook {number}: " if len(found.books) > 1 else ""
        before, after = found.a.usage[number], found.b.usage[number]
        lines.append(
            f"{name}{before.used} codes used before, {after.used} after; perplexity {before.perplexity:.0f} and "
            f"{after.perplexity:.0f}. How often each code is used differs by {book.drift:.3f} (0: equal, 1: no code in common)."
        )
    return lines


def _codes_verdict(found: Comparison) -> str:
    if found.same_space:
        return f"Same code space ({found.a.fingerprint}): the codes are unchanged, and a GPT trained on them stays valid."
    if found.exact == 1:
        known = found.a.fingerprint and found.b.fingerprint
        though = "although the checkpoints differ" if known else "although it is not known whether one checkpoint made them"
        words = f"All {found.codes} codes are the same, {though}"
        return f"{words}: as far as this speech shows, a GPT trained on A's codes stays valid."
    words = f"{1 - found.exact:.1%} of {found.codes} codes changed: a GPT trained on A's codes must be trained again for B's."
    if found.covered < TELLING:
        return f"{words} This is too little speech to tell whether they are only renumbered."
    if found.matched >= RENUMBERED:
        return f"{words} {found.matched:.1%} agree once renumbered: reordering its code embeddings and outputs may do instead."
    return f"{words} The best renumbering, learned from one half of the speech, makes {found.matched:.1%} agree in the other."
