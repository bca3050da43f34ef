"""Utterances as training sequences: everything is a function of (seed, step), so that a resumed run needs no position.

Packed (Llama): the utterances of an epoch stand in a row, in an order drawn for that epoch, each from begin to end; every C
rows of that are a sequence. Two utterances in one sequence never see each other: each has its own document number, which the
attention mask compares, and positions that begin at 0. An utterance that a border cuts goes on in the next sequence without
its past. Nothing is padded.

Apart (Mamba, whose state has no mask): a sequence is one utterance, or C rows of it; padding fills it up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.prior.network import IGNORED
from melcodec.tokens import Tokens


class Batch(NamedTuple):
    """B sequences of C rows: inputs and targets (B, C, W), positions and documents (B, C), all int64."""

    inputs: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    documents: np.ndarray

    def part(self, rank: int, count: int) -> Batch:
        """The share of process ``rank`` of ``count``."""
        size = len(self.inputs) // count
        return Batch(*(values[rank * size : (rank + 1) * size] for values in self))


class Sequences:
    """Training sequences of codes (Q, N_i).

    Args:
        utterances: at least one.
        tokens: vocabulary and layout.
        length: C, rows per sequence.
        packed: see the module's text.
        seed: of the order and of what is hidden.
    """

    def __init__(self, utterances: Sequence[np.ndarray], tokens: Tokens, length: int, packed: bool, seed: int = 0) -> None:
        if not utterances:
            raise MelcodecError("there is nothing to learn from: no utterance has codes")
        self.tokens, self.length, self.packed, self.seed = tokens, length, packed, seed
        pieces = [tokens.sequence(codes) for codes in utterances]
        if not packed:
            pieces = [piece[start : start + length + 1] for piece in pieces for start in range(0, len(piece) - 1, length)]
        self.rows = np.concatenate(pieces)
        self.bounds = np.cumsum([0, *map(len, pieces)])
        self.epoch_size = max(1, len(self.rows) // length) if packed else len(pieces)
        self._epoch = lru_cache(maxsize=2)(self._drawn)

    def batch(self, step: int, size: int, hidden: float = 0.0) -> Batch:
        """The batch of ``step``: ``size`` sequences, with a share ``hidden`` of its input tokens replaced by padding."""
        batch = self._join([self._one(index) for index in range(step * size, (step + 1) * size)])
        if hidden:
            drawn = np.random.default_rng((self.seed, 1, step)).random(batch.inputs.shape)
            begins = batch.inputs == self.tokens.begin
            batch = batch._replace(inputs=np.where((drawn < hidden) & ~begins, self.tokens.pad, batch.inputs))
        return batch

    def once(self, size: int) -> Iterator[Batch]:
        """Every utterance once, in order, in batches of at most ``size`` sequences: for validation."""
        order = np.arange(len(self.bounds) - 1)
        for start in range(0, self._count(), size):
            yield self._join([self._cut(order, index) for index in range(start, min(start + size, self._count()))])

    def _count(self) -> int:
        return -(-len(self.rows) // self.length) if self.packed else len(self.bounds) - 1

    def _one(self, index: int) -> Batch:
        """Sequence ``index`` of the endless row of epochs."""
        epoch, inside = divmod(index, self.epoch_size)
        return self._cut(self._epoch(epoch), inside)

    def _drawn(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.bounds) - 1)

    def _cut(self, order: np.ndarray, index: int) -> Batch:
        """Sequence ``index`` of the pieces in ``order``."""
        if not self.packed:
            begin, end = self.bounds[order[index] : order[index] + 2]
            return self._sequence([self.rows[begin:end]])
        sizes = np.diff(self.bounds)[order]
        ends = np.cumsum(sizes)
        start, stop = index * self.length, (index + 1) * self.length + 1
        first = int(np.searchsorted(ends, start, side="right"))
        parts = []
        for place in range(first, len(order)):
            offset = int(ends[place] - sizes[place])
            if offset >= stop:
                break
            base = int(self.bounds[order[place]]) - offset
            parts.append(self.rows[base + max(offset, start) : base + min(int(ends[place]), stop)])
        return self._sequence(parts)

    def _sequence(self, parts: list[np.ndarray]) -> Batch:
        """Pieces of utterances that follow each other, with one row more than the sequence has -> B = 1."""
        count, pad = self.length, self.tokens.pad
        inputs = np.full((count + 1, self.tokens.width), pad)
        targets = np.full((count, self.tokens.width), IGNORED)
        positions, documents = np.zeros(count + 1, np.int64), np.full(count + 1, len(parts))
        at = 0
        for number, part in enumerate(parts):
            size = len(part)
            inputs[at : at + size] = part
            targets[at : at + size - 1] = np.where(part[1:] == pad, IGNORED, part[1:])
            positions[at : at + size], documents[at : at + size] = np.arange(size), number
            at += size
        positions[at:] = np.arange(count + 1 - at)
        return Batch(inputs[None, :count], targets[None], positions[None, :count], documents[None, :count])

    @staticmethod
    def _join(parts: Sequence[Batch]) -> Batch:
        return Batch(*map(np.concatenate, zip(*parts, strict=True)))
