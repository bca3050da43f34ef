"""A folder of codes as a PyTorch dataset: by number, by id, and in batches of like lengths.

    dataset = melcodec.CodesDataset("codes/")
    batches = dataset.length_bucketed_batches(max_codes=16_384, seed=0)
    for batch in DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=2):
        batch.codes, batch.lengths          # (B, Q, N) int64 and (B,)

In memory, codes take two bytes each. Memory-mapped (``in_memory=False``), the parts are unpacked once, part by part, into
one Arrow file ``cache/codes-HASH.arrow`` in the folder, two bytes a code as well; the system then keeps in memory what is
being read and nothing more. The file may be deleted at any time, and is made again when other parts have been committed.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pyarrow import ipc
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.store import layout, parquet

CACHE = "cache"
POOL_BATCHES = 64  # batches that are sorted by length together: similar lengths, but in other combinations in every epoch


class CodesItem(NamedTuple):
    """One utterance: codes (Q, N) int64, (0, 0) where there are none; the rest as in ``formats.parquet.Row``."""

    id: str
    codes: Tensor
    num_samples: int | None
    source_rate: int | None
    duration: float | None
    source: str
    speaker: str
    language: str
    text: str
    status: str
    error: str


class CodesBatch(NamedTuple):
    """Utterances together: their items without codes, codes (B, Q, N) int64, padded, and the N of each (B,) int64."""

    ids: list[str]
    codes: Tensor
    lengths: Tensor


class _Index(NamedTuple):
    """Where item i lies: row ``rows[i]`` of part ``parts[i]``; it has ``lengths[i]`` codes. All (I,)."""

    ids: pa.ChunkedArray
    parts: np.ndarray
    rows: np.ndarray
    lengths: np.ndarray


class CodesDataset(Dataset[CodesItem]):
    """The committed utterances of a folder that ``melcodec preprocess`` wrote, in the order of its plan.

    Which parts there are is settled here once: what is committed later belongs to a dataset that is made later. A pickle
    holds the path and the parts' names; a worker that is spawned reads the table for itself, one that is forked shares it.

    Args:
        path: the folder.
        in_memory: hold all codes; False maps them from a file that is written once, into the folder.
        with_errors: also rows that have a reason instead of codes. What was kept of a truncated file has both, and is in.

    Raises:
        MelcodecError: not a folder of codes, or a part is damaged.
    """

    def __init__(self, path: str | Path, in_memory: bool = True, with_errors: bool = False) -> None:
        self._settle(Path(path), in_memory, with_errors, [part.name for part in layout.parts(Path(path))])
        _ = self._index  # report a damaged part here rather than in a worker

    def _settle(self, path: Path, in_memory: bool, with_errors: bool, names: list[str]) -> None:
        self.path, self.in_memory, self.with_errors = path, in_memory, with_errors
        self.spec: dict[str, Any] = layout.read_spec(path)
        self._names = names

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "in_memory": self.in_memory, "with_errors": self.with_errors, "names": self._names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._settle(**state)

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each of the Q codebooks."""
        return tuple(self.spec["sizes"])

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return len(self.sizes)

    @property
    def ids(self) -> list[str]:
        """The id of every item, in order."""
        return self._index.ids.to_pylist()

    @property
    def lengths(self) -> np.ndarray:
        """(I,) int64: N of every item, 0 where there are no codes."""
        return self._index.lengths

    def __len__(self) -> int:
        return len(self._index.rows)

    def __contains__(self, wanted: object) -> bool:
        return wanted in self._positions

    def __iter__(self) -> Iterator[CodesItem]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> CodesItem:
        """Item ``index``; negative ones count from the end. Raises IndexError as a list does."""
        try:
            place = range(len(self))[operator.index(index)]
        except TypeError:
            raise TypeError(f"an index is one number, not {index!r}; [dataset[i] for i in range(2)] takes several") from None
        except IndexError:
            raise IndexError(f"there is no item {index}: {self.path} holds {len(self)}") from None
        return _item(self._tables[int(self._index.parts[place])], int(self._index.rows[place]))

    def by_id(self, wanted: str) -> CodesItem:
        """The item with id ``wanted``; raises MelcodecError when there is none."""
        if wanted not in self._positions:
            raise MelcodecError(f"{self.path}: holds no utterance '{wanted}'")
        return self[self._positions[wanted]]

    def length_bucketed_batches(
        self, batch_size: int | None = None, max_codes: int | None = None, seed: int | None = None
    ) -> LengthBucketedBatches:
        """A batch sampler for ``DataLoader(..., batch_sampler=...)``: items of like lengths share a batch.

        Args:
            batch_size: items per batch, or
            max_codes: B x N, padding included, that a batch may have at most; a longer item is alone.
            seed: shuffle, in another way every epoch; None goes from the shortest to the longest.
        """
        return LengthBucketedBatches(self.lengths, batch_size, max_codes, seed)

    @cached_property
    def _tables(self) -> Sequence[pa.Table]:
        paths = [self.path / layout.PARTS / name for name in self._names]
        return [parquet.read_part(path) for path in paths] if self.in_memory else _MappedTables(_unpacked(self.path, paths))

    @cached_property
    def _index(self) -> _Index:
        ids, parts, rows, lengths = [], [], [], []
        for number, table in enumerate(self._tables):
            count = table.column("num_codes").fill_null(0).to_numpy().astype(np.int64)
            kept = np.arange(len(count))
            if not self.with_errors:
                kept = kept[table.column("codes").is_valid().to_numpy()]
            ids.append(table.column("id").take(pa.array(kept)).combine_chunks())
            parts.append(np.full(len(kept), number, np.int32))
            rows.append(kept.astype(np.int32))
            lengths.append(count[kept])
        empty = np.empty(0, np.int32)
        return _Index(
            pa.chunked_array(ids, pa.string()),
            np.concatenate([empty, *parts]),
            np.concatenate([empty, *rows]),
            np.concatenate([empty.astype(np.int64), *lengths]),
        )

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.ids)}


class LengthBucketedBatches(Sampler[list[int]]):
    """Lists of indices whose items have like lengths; see ``CodesDataset.length_bucketed_batches``.

    Items without codes are in no batch. With a seed, call ``set_epoch`` before each epoch, as for DistributedSampler.
    """

    def __init__(
        self, lengths: np.ndarray, batch_size: int | None = None, max_codes: int | None = None, seed: int | None = None
    ) -> None:
        if (batch_size is None) == (max_codes is None):
            raise MelcodecError("batches need batch_size or max_codes, and not both")
        if (batch_size or max_codes or 0) < 1:
            raise MelcodecError("batch_size and max_codes are at least 1")
        self.lengths, self.batch_size, self.max_codes, self.seed = lengths, batch_size, max_codes, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of ``epoch``; the same seed and epoch give the same ones everywhere."""
        candidates = np.flatnonzero(self.lengths > 0)
        if self.seed is None:
            self._batches = self._cut(candidates[np.argsort(self.lengths[candidates], kind="stable")])
            return
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(candidates)
        mean = float(self.lengths[candidates].mean()) if len(candidates) else 1.0
        pool = POOL_BATCHES * (self.batch_size or max(1, int((self.max_codes or 1) / mean)))
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        batches = [batch for each in pools for batch in self._cut(each[np.argsort(self.lengths[each], kind="stable")])]
        self._batches = [batches[index] for index in random.permutation(len(batches))]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._batches)

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut indices (I,), sorted by length, into batches."""
        if self.batch_size is not None:
            return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        starts, limit = [0], self.max_codes or 1
        for position, length in enumerate(self.lengths[order].tolist()):
            if position > starts[-1] and (position - starts[-1] + 1) * length > limit:  # the newest is the longest
                starts.append(position)
        return np.split(order, starts[1:]) if len(order) else []


def collate(items: Sequence[CodesItem], pad: int = 0) -> CodesBatch:
    """Items with codes (Q, N_i) -> a batch (B, Q, max N), filled up with ``pad``."""
    lengths = torch.tensor([item.codes.shape[1] for item in items])
    codes = torch.full((len(items), items[0].codes.shape[0], int(lengths.max())), pad)
    for row, item in enumerate(items):
        codes[row, :, : item.codes.shape[1]] = item.codes
    return CodesBatch([item.id for item in items], codes, lengths)


class _MappedTables(Sequence[pa.Table]):
    """The record batches of an Arrow file as tables, none of them read before it is used."""

    def __init__(self, path: Path) -> None:
        self._reader = ipc.open_file(pa.memory_map(str(path)))

    def __len__(self) -> int:
        return self._reader.num_record_batches

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(index)  # ends an iteration
        return pa.Table.from_batches([self._reader.get_batch(index)])


def _unpacked(folder: Path, paths: Sequence[Path]) -> Path:
    """The Arrow file with one record batch per part of ``paths``, made when it is not there."""
    digests = [[path.name, layout.read_marker(path).get("sha256")] for path in paths]
    name = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:12]
    target = folder / CACHE / f"codes-{name}.arrow"
    if target.is_file():
        return target
    with written_aside(target) as aside, pa.OSFile(str(aside), "wb") as file, ipc.new_file(file, parquet.SCHEMA) as writer:
        for path in paths:
            table = parquet.read_part(path).replace_schema_metadata(None).combine_chunks()
            writer.write_batch(*table.to_batches() or [pa.RecordBatch.from_pylist([], parquet.SCHEMA)])
    for old in target.parent.glob("codes-*.arrow"):
        if old != target:
            old.unlink(missing_ok=True)  # a process that has it open can still read it
    return target


def _item(table: pa.Table, row: int) -> CodesItem:
    """Row ``row`` of ``table``."""
    one = table.slice(row, 1)
    (codes,) = parquet.codes_of(one)
    (plain,) = one.select(parquet.PLAIN).to_pylist()
    # a copy: torch has no arithmetic for uint16, and the codes must not hold their whole part in memory
    return CodesItem(codes=torch.from_numpy((np.empty((0, 0)) if codes is None else codes).astype(np.int64)), **plain)
