"""Codes drawn from a prior: from nothing or after a prompt, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.prior.models import Prior
from melcodec.tokens import Tokens

LONGEST_PERIOD = 64  # codes of a repetition that is looked for, 3 s
LEAST_REPEATS = 3  # the first time included
LEAST_CODES = 16  # 0.74 s


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
    """A stretch that repeats itself: first code, codes per period (1 is one code that is held, as in silence), codes in all."""

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
    tokens = prior.tokens
    given = [tokens.rows(codes) if codes is not None else np.empty((0, tokens.width), np.int64) for codes in prompts]
    counts = {0 if codes is None else codes.shape[1] for codes in prompts}
    if len(counts) != 1:
        raise MelcodecError("prompts that are continued together must be equally long", "continue them one by one")
    if (known := counts.pop()) >= num_codes:
        raise MelcodecError(f"the prompt has {known} codes and {num_codes} were asked for", "give a larger --seconds")
    drawer = _Drawer(
        tokens, num_codes, [np.random.default_rng((sampling or Sampling()).seed + (i << 32)) for i in range(len(given))]
    )
    return drawer.run(prior, np.stack(given), known, sampling or Sampling(), update)


@dataclass
class _Drawer:
    """The rows of sequences that are drawn together."""

    tokens: Tokens
    num_codes: int
    random: list[np.random.Generator]

    def run(
        self, prior: Prior, given: np.ndarray, known: int, sampling: Sampling, update: Callable[[int, int], None]
    ) -> list[np.ndarray]:
        """Given rows (B, P, W) of ``known`` codes -> the codes of each sequence."""
        tokens, batch, total = self.tokens, len(given), self.tokens.num_rows(self.num_codes)
        lengths = np.full(batch, self.num_codes)  # codes of each sequence; lower once it has ended
        rows = np.full((batch, total, tokens.width), tokens.pad)
        growing, row = prior.start(batch), np.full((batch, tokens.width), tokens.begin)
        for index in range(total):
            logits = growing.next(row)
            for column in range(tokens.width):
                code = self._code(index, column)
                if code < known:
                    rows[:, index, column] = given[:, index, column] if code >= 0 else tokens.pad
                    continue
                for item in range(batch):
                    if code >= lengths[item]:
                        continue
                    token = self._draw(logits[item], index, column, prior.can_end, sampling, self.random[item])
                    if token == tokens.end:
                        lengths[item] = max(code, 1)
                    rows[item, index, column] = tokens.first(0) if token == tokens.end and code == 0 else token
            row = rows[:, index]
            update(index + 1, total)
            if all(self._code(index, tokens.width - 1) >= length - 1 and self._last(index) for length in lengths):
                break
        return [tokens.codes(rows[item, : tokens.num_rows(int(length))]) for item, length in enumerate(lengths)]

    def _code(self, row: int, column: int) -> int:
        """Which code of its codebook stands at (row, column); negative before the first."""
        return row - column if self.tokens.pattern == "delay" else row // len(self.tokens.sizes)

    def _last(self, row: int) -> bool:
        """Whether the last codebook has its code in ``row``."""
        return self.tokens.pattern == "delay" or (row + 1) % len(self.tokens.sizes) == 0

    def _draw(
        self, logits: np.ndarray, row: int, column: int, can_end: bool, sampling: Sampling, random: np.random.Generator
    ) -> int:
        """Logits (V,) -> a token of the codebook whose turn it is, or end."""
        book = self.tokens.book(row, column)
        begin = self.tokens.first(book)
        choices = np.arange(begin, begin + self.tokens.sizes[book])
        if book == 0 and can_end and row > 0:
            choices = np.append(choices, self.tokens.end)
        return int(choices[draw(logits[choices], sampling, random)])


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


def loops(codes: np.ndarray) -> list[Loop]:
    """Where codes (Q, N) repeat themselves at least ``LEAST_REPEATS`` times and for ``LEAST_CODES`` codes, in order."""
    found: list[Loop] = []
    taken = np.zeros(codes.shape[1], bool)
    for period in range(1, min(LONGEST_PERIOD, codes.shape[1] // LEAST_REPEATS) + 1):
        for begin, end in _runs((codes[:, period:] == codes[:, :-period]).all(0)):
            length = end - begin + period
            if length >= max(LEAST_REPEATS * period, LEAST_CODES) and not taken[begin : begin + length].any():
                taken[begin : begin + length] = True
                found.append(Loop(begin, period, length))
    return sorted(found, key=lambda loop: loop.start)


def _runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of each stretch of true ``flags`` (N,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return ((int(begin), int(end)) for begin, end in list(pairwise(edges))[::2])
