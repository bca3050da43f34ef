"""The waves that a vocoder learns from: a corpus as one memory-mapped int16 file, and the crops of a step.

``waves.i16`` holds the samples of all utterances one after the other, at the mel's rate; ``index.jsonl`` has a line for
each, in order: its samples, or why it has none. A build that was killed is resumed after its last line. The folder's name is
a hash of the rate and of every utterance with the size and time of its file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melcodec.audio.io import Span, load
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.training.cache import cache_root

WAVES, INDEX, LOCK = "waves.i16", "index.jsonl", "lock"
FULL_SCALE = 32_767
Update = Callable[[int, int], None]


@dataclass(frozen=True)
class WaveCache:
    """Opened waves of F utterances.

    Args:
        samples: (S_total,) int16, memory-mapped.
        starts: (F + 1,) int64: utterance f is ``samples[starts[f]:starts[f + 1]]``.
        ids: (F,) of the utterances.
        failures: by id, why an utterance is not among them.
        key: hash of all it was made from.
    """

    samples: np.ndarray
    starts: np.ndarray
    ids: list[str]
    failures: dict[str, str]
    key: str

    def wave(self, index: int) -> np.ndarray:
        """(S,) float32 in [-1, 1] of one utterance."""
        return self.samples[self.starts[index] : self.starts[index + 1]].astype(np.float32) / FULL_SCALE


def cache_waves(utterances: Sequence[Utterance], sample_rate: int, update: Update = lambda done, total: None) -> WaveCache:
    """The waves of ``utterances`` at ``sample_rate`` Hz, decoded as far as an earlier call has not done it.

    Args:
        update: called with the utterances done and those in all. An exception in it ends the work; the next call resumes.

    Raises:
        MelcodecError: no utterance could be read. Some that could not are in ``failures``.
    """
    from filelock import FileLock

    key = _key(utterances, sample_rate)
    folder = cache_root() / "waves" / key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        rows = _build(folder, utterances, sample_rate, update)
    good = [row for row in rows if "samples" in row]
    if not sum(row["samples"] for row in good):
        raise MelcodecError("no file of the corpus could be read", next((row["reason"] for row in rows if "reason" in row), None))
    starts = np.concatenate([[0], np.cumsum([row["samples"] for row in good])]).astype(np.int64)
    samples = np.memmap(folder / WAVES, np.int16, "r", shape=(int(starts[-1]),))
    failures = {row["id"]: row["reason"] for row in rows if "reason" in row}
    return WaveCache(samples, starts, [row["id"] for row in good], failures, key)


def _key(utterances: Sequence[Utterance], sample_rate: int) -> str:
    digest = hashlib.sha256(str(sample_rate).encode())
    for item in utterances:
        try:
            stat = Path(item.path).stat()
            stamp = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            stamp = ""
        digest.update(
            f"{item.id}\0{item.path}\0{item.member}\0{item.start}\0{item.duration}\0{stamp}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()[:16]


def _build(folder: Path, utterances: Sequence[Utterance], sample_rate: int, update: Update) -> list[dict[str, Any]]:
    """Decode what is missing; the index's rows, one for each utterance."""
    rows = _read_rows(folder / INDEX)
    if len(rows) == len(utterances):
        return rows
    with (folder / WAVES).open("ab") as waves, (folder / INDEX).open("w", encoding="utf-8") as index:
        index.writelines(json.dumps(row) + "\n" for row in rows)
        waves.truncate(2 * sum(row.get("samples", 0) for row in rows))
        for item in utterances[len(rows) :]:
            try:
                wav = load(item.path, sample_rate, Span(item.start, item.duration), item.member)
                waves.write(np.rint(np.clip(wav, -1, 1) * FULL_SCALE).astype("<i2").tobytes())
                waves.flush()
                row: dict[str, Any] = {"id": item.id, "samples": len(wav)}
            except MelcodecError as error:
                row = {"id": item.id, "reason": error.message}
            index.write(json.dumps(row) + "\n")
            index.flush()
            rows.append(row)
            update(len(rows), len(utterances))
    return rows


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of an index; one that a kill cut short is dropped."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]


class WaveCrops:
    """Random crops of cached waves, as a pure function of (seed, step).

    An utterance is drawn in proportion to its length, then a start within it. One that is shorter than a crop is followed
    by zeros.

    Args:
        cache: the waves.
        num_samples: S of a crop.
        batch_size: B.
        gain_db: each crop's level moves by a uniform draw from +-gain_db, as far as it does not clip.
        seed: of the draws.
    """

    def __init__(self, cache: WaveCache, num_samples: int, batch_size: int, gain_db: float = 0.0, seed: int = 0) -> None:
        self.cache, self.num_samples, self.batch_size, self.gain_db, self.seed = cache, num_samples, batch_size, gain_db, seed

    def batch(self, step: int) -> Tensor:
        """wav (B, S) float32 of ``step``."""
        rng = np.random.default_rng((self.seed, step))
        starts, size = self.cache.starts, self.num_samples
        clips = np.searchsorted(starts, rng.integers(starts[-1], size=self.batch_size), side="right") - 1
        places, gains = rng.random(self.batch_size), rng.uniform(-self.gain_db, self.gain_db, self.batch_size)
        crops = np.zeros((self.batch_size, size), np.float32)
        for row, (clip, place, gain) in enumerate(zip(clips, places, gains, strict=True)):
            room = max(0, int(starts[clip + 1] - starts[clip]) - size)
            first = starts[clip] + int(place * (room + 1))
            taken = self.cache.samples[first : min(first + size, starts[clip + 1])].astype(np.float32) / FULL_SCALE
            peak = np.abs(taken).max(initial=1e-4)
            crops[row, : len(taken)] = taken * min(10 ** (gain / 20), max(1.0, 1 / peak))
        return torch.from_numpy(crops)
