"""One unit of the plan to one part: the same function on every executor, and the same bytes whoever runs it.

Threads decode ahead and compute mels; like lengths are encoded together, padded and masked, so that codes do not depend
on the batch; files of more than a minute stream on their own. Every utterance of the unit becomes one row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from melcodec.chunking import group_by_length
from melcodec.codec import BATCH_FRAMES, Codec
from melcodec.corpus.files import SHORT_SECONDS
from melcodec.corpus.reading import Rules, SoundStream, opened, reason
from melcodec.errors import MelcodecError
from melcodec.inputs import padded
from melcodec.manifests.base import Utterance
from melcodec.store.commit import Receipt, commit
from melcodec.store.parquet import OK, Row
from melcodec.store.plan import Unit

POOL_FRAMES = 1 << 18  # mels of 50 minutes, 80 MiB, are sorted by length at once: few batches of it are not full
MAX_POOL = 1024  # utterances, so that progress is seen where many fail
AHEAD = 4  # utterances per thread that are decoded before they are needed
Report = Callable[[int, float, int], None]  # utterances, seconds of sound, and failures so far
Bad = Mapping[str, tuple[str, str]]  # id -> status and error, known beforehand
Known = Mapping[str, Row]  # by id, made before
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class BatchSettings:
    """How utterances are batched: this decides speed and memory, and never the result.

    Args:
        readers: threads that decode and compute mels.
        batch_frames: mel frames per padded batch; 1 encodes every utterance alone.
        pool_frames: mel frames that are read before batches are made of them.
    """

    readers: int = 2
    batch_frames: int = BATCH_FRAMES
    pool_frames: int = POOL_FRAMES


GENTLE = BatchSettings(readers=1, batch_frames=1, pool_frames=1)  # for units that are too much at once


@dataclass(frozen=True)
class _ReadUtterance:
    """An utterance that was read: natural log-mel (M, T) of a short one, None for a long one; or its finished row."""

    utterance: Utterance
    mel: Tensor | None = None
    row: Row | None = None
    facts: tuple[int, int, str, str] = (0, 0, OK, "")  # samples at the codec's rate, Hz of the file, status, error

    @property
    def long(self) -> bool:
        """Whether it is still to be encoded, on its own."""
        return self.row is None and self.mel is None


def process_unit(
    unit: Unit,
    codec: Codec,
    folder: Path,
    spec: dict[str, Any],
    bad: Bad | None = None,
    known: Known | None = None,
    batching: BatchSettings | None = None,
    report: Report | None = None,
) -> Receipt:
    """Encode ``unit`` and commit it to the store ``folder``; see ``encode_unit``."""
    rows = encode_unit(unit, codec, Rules(**spec["settings"]), bad, known, batching, report)
    return commit(unit, rows, folder, spec)


def encode_unit(
    unit: Unit,
    codec: Codec,
    rules: Rules,
    bad: Bad | None = None,
    known: Known | None = None,
    batching: BatchSettings | None = None,
    report: Report | None = None,
) -> list[Row]:
    """One row per utterance of ``unit``, in its order.

    Args:
        bad: utterances that must not be touched, and what their rows say instead.
        known: rows that stay as they are; their utterances are not touched either.
        report: called now and then with utterances, seconds of sound and failures so far.
    """
    bad, batching = bad or {}, batching or BatchSettings()
    encoder = _Encoder(codec, rules, batching)
    rows = {utterance.id: failed(utterance, *bad[utterance.id]) for utterance in unit.utterances if utterance.id in bad}
    failures = len(rows)
    rows.update(known or {})
    todo = [utterance for utterance in unit.utterances if utterance.id not in rows]
    done, seconds = len(rows), 0.0
    for row in encoder.rows(_mapped(encoder.read, todo, batching.readers, AHEAD * batching.readers)):
        rows[row.id] = row
        done, seconds, failures = done + 1, seconds + (row.duration or 0.0), failures + (row.codes is None)
        if report:
            report(done, seconds, failures)
    return [rows[utterance.id] for utterance in unit.utterances]


def failed(utterance: Utterance, status: str, error: str) -> Row:
    """The row of an utterance without codes."""
    return Row(
        utterance.id,
        source=f"{utterance.path}#{utterance.member}" if utterance.member else utterance.path,
        speaker=utterance.speaker,
        language=utterance.language,
        text=utterance.text,
        status=status,
        error=error,
    )


class _Encoder:
    """A codec under ``rules``; reading threads call ``read``, one other thread iterates over ``rows``."""

    def __init__(self, codec: Codec, rules: Rules, batching: BatchSettings) -> None:
        self.codec, self.rules, self.batching = codec, rules, batching
        self.rate = codec.sample_rate
        self.least = max(codec.frontend.min_samples, round(rules.min_seconds * self.rate))

    def read(self, utterance: Utterance, cut: str = "") -> _ReadUtterance:
        """Decode a short utterance and compute its mel; of a long one, note that it is long; of a bad one, the reason."""
        try:
            with opened(utterance, self.rate, cut) as stream:
                wave = self._wave(utterance, stream)
        except MelcodecError as error:
            if self._keeps(error, cut):
                return self.read(utterance, error.message)
            return _ReadUtterance(utterance, row=failed(utterance, reason(error), error.message))
        if wave is None:
            return _ReadUtterance(utterance, facts=(0, 0, OK, cut))
        status, words = stream.verdict(self.least, self.rate)
        if status not in (OK, "truncated"):
            return _ReadUtterance(utterance, row=failed(utterance, status, words))
        return _ReadUtterance(utterance, self.codec.mel(wave)[0], facts=(stream.samples, stream.info.sample_rate, status, words))

    def rows(self, items: Iterable[_ReadUtterance]) -> Iterator[Row]:
        """The rows of ``items``, delayed and in another order; a thread encodes meanwhile."""
        for rows in _mapped(self._finished, self._batches(items), threads=1, ahead=2):
            yield from rows

    def _batches(self, items: Iterable[_ReadUtterance]) -> Iterator[list[_ReadUtterance]]:
        """What is finished at once: mels of like length, a long utterance, or rows that are known already."""
        for pool in self._pools(items):
            yield [item for item in pool if item.row is not None]
            yield from ([item] for item in pool if item.long)
            short = [item for item in pool if item.mel is not None]
            for group in group_by_length([_frames(item) for item in short], self.batching.batch_frames):
                yield [short[index] for index in group]

    def _pools(self, items: Iterable[_ReadUtterance]) -> Iterator[list[_ReadUtterance]]:
        pool: list[_ReadUtterance] = []
        frames = 0
        for item in items:
            pool.append(item)
            frames += _frames(item)
            if frames >= self.batching.pool_frames or len(pool) == MAX_POOL or item.long:
                yield pool
                pool, frames = [], 0
        yield pool

    def _finished(self, batch: Sequence[_ReadUtterance]) -> list[Row]:
        rows = [item.row for item in batch if item.row is not None]
        rows += [self._stream(item.utterance, item.facts[3]) for item in batch if item.long]
        return rows + self._encode([(item, item.mel) for item in batch if item.mel is not None])

    def _wave(self, utterance: Utterance, stream: SoundStream) -> np.ndarray | None:
        """(S,), or None when it is a long one."""
        seconds = utterance.duration
        if seconds is None and stream.info.seconds is not None:
            seconds = stream.info.seconds - utterance.start
        if (seconds or 0.0) > SHORT_SECONDS:
            return None
        parts = []
        for block in stream:  # a header may say nothing, or too little
            parts.append(block)
            if stream.samples > SHORT_SECONDS * self.rate:
                return None
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _encode(self, items: Sequence[tuple[_ReadUtterance, Tensor]]) -> list[Row]:
        """Rows of short utterances, encoded together."""
        if not items:
            return []
        batch, lengths = padded([mel for _, mel in items])
        whole = bool((lengths == lengths[0]).all())
        codes = self.codec.encode_mel(batch, None if whole else lengths).cpu().numpy()
        counts = map(self.codec.model.num_codes, lengths.tolist())
        return [
            self._row(item.utterance, row[:, :count], *item.facts)
            for (item, _), row, count in zip(items, codes, counts, strict=True)
        ]

    def _stream(self, utterance: Utterance, cut: str) -> Row:
        """The row of a long utterance, in memory that does not grow with it."""
        try:
            with opened(utterance, self.rate, cut) as stream:
                codes, samples = self.codec.encode_stream(_ahead(stream))
        except MelcodecError as error:
            if self._keeps(error, cut):
                return self._stream(utterance, error.message)
            return failed(utterance, reason(error), error.message)
        status, words = stream.verdict(self.least, self.rate)
        if status not in (OK, "truncated"):
            return failed(utterance, status, words)
        return self._row(utterance, codes, samples, stream.info.sample_rate, status, words)

    def _keeps(self, error: MelcodecError, cut: str) -> bool:
        return self.rules.on_truncated == "keep" and not cut and reason(error) == "truncated"

    def _row(self, utterance: Utterance, codes: np.ndarray, samples: int, rate: int, status: str, error: str) -> Row:
        row = failed(utterance, status, error)
        codes = codes.astype(np.uint16)
        return replace(row, codes=codes, num_samples=samples, source_rate=rate, duration=samples / self.rate)


def _frames(item: _ReadUtterance) -> int:
    """Of the mel that was read; 0 where there is none."""
    return 0 if item.mel is None else item.mel.shape[-1]


def _mapped(function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Iterator[R]:
    """``function`` of every item, in order, computed by ``threads`` that have up to ``ahead`` items."""
    pool = ThreadPoolExecutor(threads)
    try:
        rest = iter(items)
        waiting = deque(pool.submit(function, item) for item in islice(rest, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(blocks: Iterable[np.ndarray], depth: int = 2) -> Iterator[np.ndarray]:
    """``blocks``, of which a thread computes the next ones while the last is used."""
    with ThreadPoolExecutor(1) as pool:
        rest = iter(blocks)
        waiting = deque(pool.submit(next, rest, None) for _ in range(depth))
        while (block := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, rest, None))
            yield block
