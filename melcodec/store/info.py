"""What a folder of codes holds, counted. One part in memory at a time; no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pyarrow import compute

from melcodec.errors import MelcodecError
from melcodec.metrics.codes import CodeUsage, bit_rate, code_usage
from melcodec.store import layout, parquet
from melcodec.store.plan import FACTS, plan_files


@dataclass(frozen=True)
class CorpusInfo:
    """What a folder of codes holds.

    Args:
        planned: utterances in all plans; ``pending`` of them have no committed row yet.
        utterances: those with codes; ``truncated`` of them are what a truncated file still held.
        failures: those without codes, by reason.
        hours: of the utterances with codes.
        codes: N of all utterances, per codebook.
        usage: of each codebook, over all utterances.
        sizes: K of each codebook.
        bits_per_second: of the codes at log2(K) bits each, over what they stand for.
        entropy_bits_per_second: the same at the entropy of each codebook: what an ideal order-0 coder needs.
        stored_bytes: of all parts, everything in them counted.
        languages: utterances of each; ``""`` where the corpus does not say. ``speakers`` counts different ones.
    """

    folder: str
    checkpoint: str | None
    fingerprint: str
    parts: int
    planned: int
    pending: int
    utterances: int
    truncated: int
    failures: dict[str, int]
    hours: float
    codes: int
    sizes: tuple[int, ...]
    usage: list[CodeUsage]
    bits_per_second: float
    entropy_bits_per_second: float
    stored_bytes: int
    languages: dict[str, int]
    speakers: int


@dataclass
class _Sums:
    """Counts over the rows of all parts: of each code of each of Q codebooks, (K,), and of statuses with codes and without."""

    counts: list[np.ndarray]
    samples: int = 0
    codes: int = 0
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    speakers: set[str] = field(default_factory=set)


def corpus_info(folder: Path) -> CorpusInfo:
    """Count what the committed parts of ``folder`` hold.

    Raises:
        MelcodecError: not a folder of codes, or a part is damaged.
    """
    spec, paths = layout.read_spec(folder), layout.parts(folder)
    sums = _Sums([np.zeros(size, np.int64) for size in spec["sizes"]])
    for path in paths:
        _count(path, sums)
    planned = sum(layout.read_json(path)["utterances"] for path in plan_files(folder, FACTS))
    usage = [code_usage(counts) for counts in sums.counts]
    seconds = sums.samples / spec["sample_rate"]
    rate = sums.codes / seconds if seconds else 0.0
    entropy = sum(book.entropy_bits for book in usage)
    return CorpusInfo(
        folder=str(folder),
        checkpoint=spec.get("checkpoint"),
        fingerprint=spec["fingerprint"],
        parts=len(paths),
        planned=planned,
        pending=max(0, planned - sums.done.total() - sums.failed.total()),
        utterances=sums.done.total(),
        truncated=sums.done[parquet.TRUNCATED],
        failures=dict(sorted(sums.failed.items())),
        hours=seconds / 3600,
        codes=sums.codes,
        sizes=tuple(spec["sizes"]),
        usage=usage,
        bits_per_second=rate * bit_rate(1, 1, spec["sizes"]),
        entropy_bits_per_second=rate * entropy,
        stored_bytes=sum(path.stat().st_size for path in paths),
        languages=dict(sorted(sums.languages.items())),
        speakers=len(sums.speakers - {""}),
    )


def _count(path: Path, sums: _Sums) -> None:
    table = parquet.read_part(path, ["codes", "num_codebooks", "num_samples", "speaker", "language", "status"])
    sums.failed.update(table.filter(compute.is_null(table.column("codes"))).column("status").to_pylist())
    done = table.filter(compute.is_valid(table.column("codes")))
    sums.done.update(done.column("status").to_pylist())
    sums.samples += compute.sum(done.column("num_samples")).as_py() or 0
    sums.languages.update(done.column("language").to_pylist())
    sums.speakers.update(done.column("speaker").unique().to_pylist())
    codes = [item for item in parquet.codes_of(done) if item is not None]
    if not codes:
        return
    sizes = np.array([len(counts) for counts in sums.counts])
    if any(len(item) != len(sizes) or (item.max(axis=1) >= sizes).any() for item in codes):
        raise MelcodecError(f"{path}: codes of another codebook", "melcodec corpus verify says where")
    whole = np.concatenate(codes, axis=1)
    sums.codes += whole.shape[1]
    sums.counts = [counts + np.bincount(row, minlength=len(counts)) for counts, row in zip(sums.counts, whole, strict=True)]
