"""Codes as tokens of a language model: the one place that says which number means what.

With Q codebooks of sizes K_0 .. K_(Q-1) and an offset (the size of a vocabulary that the codes are appended to, such as
that of a text model; 0 for a model of codes alone):

    offset + K_0 + ... + K_(q-1) + code     code ``code`` of codebook q
    offset + K_0 + ... + K_(Q-1)            begin, before the first code of an utterance
                                     + 1    end, after its last one
                                     + 2    padding, never predicted

Two patterns lay (Q, N) codes out as rows (R, W) of tokens, one row per step of the model:

    flat    W = 1, R = Q N: c[0, 0], c[1, 0], ..., c[Q-1, 0], c[0, 1], ... Exact for every Q; needs Q steps a code.
    delay   W = Q, R = N + Q - 1: codebook q is q steps late, so that it follows those before it (Copet et al. 2023,
            "Simple and Controllable Music Generation", section 2.2). Padding fills the corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from melcodec.errors import MelcodecError

Pattern = Literal["flat", "delay"]


@dataclass(frozen=True)
class Tokens:
    """The vocabulary and the layout of codes.

    Args:
        sizes: K of each codebook; Q = len(sizes).
        pattern: how Q > 1 codes become rows. For Q = 1 both are the same.
        offset: number of the first code's token.
    """

    sizes: tuple[int, ...]
    pattern: Pattern = "flat"
    offset: int = 0

    @property
    def begin(self) -> int:
        """The token before the first code."""
        return self.offset + sum(self.sizes)

    @property
    def end(self) -> int:
        """The token after the last code."""
        return self.begin + 1

    @property
    def pad(self) -> int:
        """The token that fills a row or a batch up and is never predicted."""
        return self.begin + 2

    @property
    def vocabulary(self) -> int:
        """Tokens in all, those below ``offset`` included."""
        return self.begin + 3

    @property
    def width(self) -> int:
        """W, tokens per row."""
        return len(self.sizes) if self.pattern == "delay" else 1

    def first(self, book: int) -> int:
        """The token of code 0 of codebook ``book``."""
        return self.offset + sum(self.sizes[:book])

    def book(self, row: int, column: int) -> int:
        """Which codebook the token at (``row``, ``column``) belongs to, the first row after begin being row 0."""
        return column if self.pattern == "delay" else row % len(self.sizes)

    def num_rows(self, num_codes: int) -> int:
        """R for N codes, without begin and end."""
        return num_codes + len(self.sizes) - 1 if self.pattern == "delay" else num_codes * len(self.sizes)

    def rows(self, codes: np.ndarray) -> np.ndarray:
        """Codes (Q, N) -> (R, W) int64 tokens, without begin and end.

        Raises:
            MelcodecError: another Q, or codes outside their codebook.
        """
        checked(codes, self.sizes)
        tokens = codes.astype(np.int64) + np.array([[self.first(book)] for book in range(len(self.sizes))])
        if self.pattern == "flat":
            return np.ascontiguousarray(tokens.T).reshape(-1, 1)
        rows = np.full((self.num_rows(codes.shape[1]), self.width), self.pad)
        for book, line in enumerate(tokens):
            rows[book : book + len(line), book] = line
        return rows

    def codes(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of ``rows``: (R, W) tokens -> (Q, N) int64; what is incomplete at the end is left out."""
        firsts = [self.first(book) for book in range(len(self.sizes))]
        return self.by_book(rows).astype(np.int64) - np.array(firsts)[:, None]

    def by_book(self, rows: np.ndarray) -> np.ndarray:
        """One value per token (R, W) -> one per code (Q, N), as ``codes`` does with the tokens themselves."""
        books = len(self.sizes)
        if self.pattern == "flat":
            return rows[: len(rows) // books * books, 0].reshape(-1, books).T
        count = max(0, len(rows) - books + 1)
        return np.stack([rows[book : book + count, book] for book in range(books)])

    def sequence(self, codes: np.ndarray) -> np.ndarray:
        """Codes (Q, N) -> (1 + R + E, W): begin, the rows, and end in column 0 of the row after codebook 0's last code.

        E is 1, and 0 for the delay pattern with Q > 1, whose last rows have room for the end.
        """
        rows, count = self.rows(codes), codes.shape[1] * (len(self.sizes) if self.pattern == "flat" else 1)
        total = np.full((max(len(rows), count + 1), self.width), self.pad)
        total[: len(rows)] = rows
        total[count, 0] = self.end
        return np.concatenate([np.full((1, self.width), self.begin), total])


def checked(codes: np.ndarray, sizes: tuple[int, ...]) -> None:
    """Raise MelcodecError unless ``codes`` is (Q, N) and every code lies inside its codebook."""
    if codes.ndim != 2 or len(codes) != len(sizes):
        raise MelcodecError(f"codes of shape {codes.shape}, not ({len(sizes)}, N)")
    for book, (line, size) in enumerate(zip(codes, sizes, strict=True)):
        if len(line) and not 0 <= int(line.min()) <= int(line.max()) < size:
            low, high = int(line.min()), int(line.max())
            raise MelcodecError(f"codes of codebook {book} reach from {low} to {high}; it has 0 .. {size - 1}")


def collapse(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N,) -> the code of each run (R,) and how many codes it lasts (R,): run-length coding with durations."""
    edges = np.flatnonzero(np.diff(codes)) + 1
    starts = np.concatenate([[0], edges]) if len(codes) else np.empty(0, np.int64)
    return codes[starts.astype(np.int64)], np.diff(np.append(starts, len(codes))).astype(np.int64)


def expand(codes: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """The inverse of ``collapse``: codes (R,) and durations (R,) -> (N,)."""
    return np.repeat(codes, durations)
