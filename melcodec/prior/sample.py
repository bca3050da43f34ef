"""Codes drawn from a prior: from nothing or after a prompt, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.prior.models import Prior

LONGEST_PERIOD = 64  # codes of a repetition that is looked for, 3 s
LEAST_REPEATS = 3  # the first time included
LEAST_CODES = 16  # 0.74 s
SILENT_CODES = 32  # 1.5 s, longer than most pauses of speakers
SILENT_SHARE = 0.9  # of a repetition that is called silence


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn.

    Args:
        temperature: divides the logits; 0 takes the most probable code.
        top_p: only the most probable codes that together have this probability (Holtzman et al. 2020).
        seed: of the draws; the i-th sample depends on (seed, i) alone, however many are drawn together.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Loop:
    """A stretch in which nothing new is said.

    Args:
        start: its first code.
        period: codes per repetition; 1 is one code that is held, 0 is silence.
        length: codes in all.
    """

    start: int
    period: int
    length: int


def sample(
    prior: Prior,
    num_codes: int,
    prompts: Sequence[np.ndarray | None],
    sampling: Sampling | None = None,
    update: Callable[[int, int], None] = lambda done, total: None,
) -> list[np.ndarray]:
    """Draw one sequence after each of ``prompts``.

    Args:
        num_codes: N at most, prompts included; a network may end an utterance earlier.
        prompts: codes (Q, P) that are continued, all equally long, or None.
        update: told how many rows of how many are drawn.

    Returns:
        Codes (Q, N_i) of each, prompts included.

    Raises:
        MelcodecError: prompts of different lengths, or longer than ``num_codes``.
    """
    drawer = _Drawer.of(prior, num_codes, prompts, sampling or Sampling())
    for row in drawer.rows():
        update(row + 1, len(drawer.drawn[0]))
    tokens, drawn = prior.tokens, zip(drawer.drawn, drawer.lengths, strict=True)
    return [tokens.codes(rows[: tokens.num_rows(int(length))]) for rows, length in drawn]


def stream(
    prior: Prior, num_codes: int, prompt: np.ndarray | None = None, sampling: Sampling | None = None, block: int = 8
) -> Iterator[np.ndarray]:
    """The codes of ``sample`` with one prompt, as they are drawn: parts (Q, n), n <= ``block``, the prompt's included.

    Raises:
        MelcodecError: as ``sample``.
    """
    drawer, books, done = _Drawer.of(prior, num_codes, [prompt], sampling or Sampling()), len(prior.tokens.sizes), 0
    waiting: list[np.ndarray] = []
    for row in drawer.rows():
        if drawer.ends_code(row) and done < drawer.lengths[0]:
            waiting.append(prior.tokens.codes(drawer.drawn[0, row + 1 - books : row + 1]))
            done += 1
        if len(waiting) == block:
            yield np.concatenate(waiting, axis=1)
            waiting.clear()
    if waiting:
        yield np.concatenate(waiting, axis=1)


@dataclass
class _Drawer:
    """The rows of sequences that are drawn together.

    Args:
        prior: that predicts them.
        given: rows (B, P, W) of the prompts, of ``known`` codes each.
        drawn: rows (B, R, W), padding where nothing is drawn yet.
        lengths: (B,) codes of each sequence; lower once it has ended.
        random: a generator for each sequence.
    """

    prior: Prior
    given: np.ndarray
    known: int
    drawn: np.ndarray
    lengths: np.ndarray
    random: list[np.random.Generator]
    sampling: Sampling

    @classmethod
    def of(cls, prior: Prior, num_codes: int, prompts: Sequence[np.ndarray | None], sampling: Sampling) -> _Drawer:
        """For ``num_codes`` codes at most after each of ``prompts``; MelcodecError where they do not fit."""
        tokens, count = prior.tokens, len(prompts)
        counts = {0 if codes is None else codes.shape[1] for codes in prompts}
        if len(counts) != 1:
            raise MelcodecError("prompts that are continued together must be equally long", "continue them one by one")
        if (known := counts.pop()) >= num_codes:
            raise MelcodecError(f"the prompt has {known} codes and {num_codes} were asked for", "give a larger --seconds")
        given = [tokens.rows(codes) if codes is not None else np.empty((0, tokens.width), np.int64) for codes in prompts]
        rows = np.full((count, tokens.num_rows(num_codes), tokens.width), tokens.pad)
        random = [np.random.default_rng(sampling.seed + (index << 32)) for index in range(count)]
        return cls(prior, np.stack(given), known, rows, np.full(count, num_codes), random, sampling)

    def rows(self) -> Iterator[int]:
        """Draw; the number of every row when it is there, until all sequences have ended."""
        tokens, total = self.prior.tokens, self.drawn.shape[1]
        growing, row = self.prior.start(len(self.drawn)), np.full((len(self.drawn), tokens.width), tokens.begin)
        for index in range(total):
            logits = growing.next(row)
            for column in range(tokens.width):
                self._fill(index, column, logits)
            row = self.drawn[:, index]
            yield index
            if self.ends_code(index) and all(self._code(index, tokens.width - 1) >= length - 1 for length in self.lengths):
                break

    def _fill(self, index: int, column: int, logits: np.ndarray) -> None:
        """Set the token at (``index``, ``column``) of every sequence, by its prompt or drawn from its logits (B, V)."""
        tokens, code = self.prior.tokens, self._code(index, column)
        if code < self.known:
            self.drawn[:, index, column] = self.given[:, index, column] if code >= 0 else tokens.pad
            return
        for item in np.flatnonzero(code < self.lengths):
            token = self._draw(logits[item], index, column, self.random[item])
            if token == tokens.end:
                self.lengths[item] = max(code, 1)
            self.drawn[item, index, column] = tokens.first(0) if token == tokens.end and code == 0 else token

    def ends_code(self, row: int) -> bool:
        """Whether ``row`` holds the last codebook's code of a moment, so that all of them are there."""
        books = len(self.prior.tokens.sizes)
        return row >= books - 1 if self.prior.tokens.pattern == "delay" else (row + 1) % books == 0

    def _code(self, row: int, column: int) -> int:
        """Which code of its codebook stands at (row, column); negative before the first."""
        tokens = self.prior.tokens
        return row - column if tokens.pattern == "delay" else row // len(tokens.sizes)

    def _draw(self, logits: np.ndarray, row: int, column: int, random: np.random.Generator) -> int:
        """Logits (V,) -> a token of the codebook whose turn it is, or end."""
        tokens = self.prior.tokens
        book = tokens.book(row, column)
        begin = tokens.first(book)
        choices = np.arange(begin, begin + tokens.sizes[book])
        if book == 0 and self.prior.can_end and row > 0:
            choices = np.append(choices, tokens.end)
        return int(choices[draw(logits[choices], self.sampling, random)])


def draw(logits: np.ndarray, sampling: Sampling, random: np.random.Generator) -> int:
    """Logits (K,) -> an index; see ``Sampling``."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    shares = np.exp((logits - logits.max()) / sampling.temperature)
    shares /= shares.sum()
    if sampling.top_p < 1:
        order = np.argsort(-shares, kind="stable")
        before = np.cumsum(shares[order]) - shares[order]
        shares[order[before >= sampling.top_p]] = 0.0
    ends = np.cumsum(shares)
    return int(min(np.searchsorted(ends, random.random() * ends[-1], side="right"), len(shares) - 1))


def loops(codes: np.ndarray, quiet: np.ndarray | None = None) -> list[Loop]:
    """Repetitions and silence in codes (Q, N), in order.

    A repetition takes at least ``LEAST_REPEATS`` times and ``LEAST_CODES`` codes, silence ``SILENT_CODES``.

    Args:
        quiet: (N,) bool, whether a code is silent; None: silence is not looked for.
    """
    quiet = np.zeros(codes.shape[1], bool) if quiet is None else quiet
    found: list[Loop] = []
    taken = np.zeros(codes.shape[1], bool)
    for period in range(1, min(LONGEST_PERIOD, codes.shape[1] // LEAST_REPEATS) + 1):
        for begin, end in _runs((codes[:, period:] == codes[:, :-period]).all(0)):
            length = end - begin + period
            if length >= max(LEAST_REPEATS * period, LEAST_CODES) and not taken[begin : begin + length].any():
                taken[begin : begin + length] = True
                silent = quiet[begin : begin + length].mean() >= SILENT_SHARE
                found.append(Loop(begin, 0 if silent else period, length))
    found += [Loop(begin, 0, end - begin) for begin, end in _runs(quiet & ~taken) if end - begin >= SILENT_CODES]
    return sorted(found, key=lambda loop: loop.start)


def _runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of each stretch of true ``flags`` (N,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return ((int(begin), int(end)) for begin, end in list(pairwise(edges))[::2])
