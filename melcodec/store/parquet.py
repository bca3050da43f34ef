"""The parts of a store in Parquet: one row for each utterance, with its codes or the reason why there are none.

Codes are ``list<uint16>``, (Q, N) flattened row by row. Columns are dictionary-coded and zstd-compressed, which takes about
10.5 bits per code at K = 1,024; every page carries a checksum that is verified when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.store.layout import parts, upgraded

SPEC_KEY = b"melcodec"
OK, TRUNCATED = "ok", "truncated"  # a truncated file may keep the codes of what it still holds
REASONS = ("unreadable", TRUNCATED, "silent", "too-short", "nan", "timeout", "crash")
ROW_GROUP = 1024  # rows; about a unit, and what streaming holds at once
MAX_CODE = 65_535
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("codes", pa.list_(pa.uint16())),
        ("num_codebooks", pa.uint8()),
        ("num_codes", pa.uint32()),
        ("num_samples", pa.int64()),
        ("source_rate", pa.int32()),
        ("duration", pa.float64()),
        *((name, pa.string()) for name in ("source", "speaker", "language", "text", "status", "error")),
    ]
)


@dataclass(frozen=True)
class Row:
    """One utterance.

    Args:
        id: unique in its corpus.
        codes: (Q, N) uint16; None where there are none.
        num_samples: S at the codec's rate, so that decoding crops exactly.
        source_rate: Hz of the file.
        duration: seconds.
        source: path or URL of the file or archive.
        speaker, language, text: as the corpus says; empty when it does not.
        status: ``ok``, or one of ``REASONS``; of those only ``truncated`` may have codes.
        error: the reason in words; empty when ok.
    """

    id: str
    codes: np.ndarray | None = None
    num_samples: int | None = None
    source_rate: int | None = None
    duration: float | None = None
    source: str = ""
    speaker: str = ""
    language: str = ""
    text: str = ""
    status: str = OK
    error: str = ""


PLAIN = tuple(field.name for field in fields(Row) if field.name != "codes")


def write_part(path: Path, rows: Sequence[Row], spec: dict[str, Any]) -> str:
    """Write ``rows`` to ``path``, aside and renamed, with ``spec`` (JSON values) in its metadata; replaces what is there.

    The same rows give the same bytes, by the same pyarrow.

    Returns:
        SHA-256 of the file, hexadecimal, computed from what was to be written.
    """
    meta = {SPEC_KEY: json.dumps(spec, sort_keys=True, ensure_ascii=False).encode()}
    table = table_of(rows).replace_schema_metadata(meta)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True)
    content = sink.getvalue()
    with written_aside(path) as aside:
        aside.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def table_of(rows: Sequence[Row]) -> pa.Table:
    """``rows`` as a table of ``SCHEMA``."""
    codes = [None if row.codes is None else _flat(row) for row in rows]
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in PLAIN}
    for name, values in columns.items():
        if pa.types.is_string(SCHEMA.field(name).type):
            columns[name] = [storable(value) for value in values]
    columns["codes"] = codes
    columns["num_codebooks"] = [None if row.codes is None else row.codes.shape[0] for row in rows]
    columns["num_codes"] = [None if row.codes is None else row.codes.shape[1] for row in rows]
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], SCHEMA)


def storable(text: str) -> str:
    r"""``text`` as Parquet can hold it: names of files that are no UTF-8 keep their odd bytes as ``\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of ``path``, or some of its ``columns``, in the order of ``SCHEMA``; page checksums are verified.

    Raises:
        MelcodecError: missing, damaged, or not a part.
    """
    names = [name for name in SCHEMA.names if columns is None or name in columns]
    with opened_part(path) as file, damage_named(path):
        return file.read(names)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of ``path`` in order, a row group in memory at a time; raises as ``read_part`` does."""
    with opened_part(path) as file:
        for group in range(file.num_row_groups):
            with damage_named(path):
                table = file.read_row_group(group)
                plain = table.select(PLAIN).to_pylist()
            yield from (Row(codes=codes, **row) for codes, row in zip(codes_of(table), plain, strict=True))


def find_row(folder: Path, wanted: str) -> Row:
    """The row with id ``wanted`` of the store ``folder``; only row groups whose ids span it are read.

    Raises:
        MelcodecError: not a store, or no such id in its committed parts.
    """
    column = SCHEMA.names.index("id")
    for path in parts(folder):
        with opened_part(path) as file, damage_named(path):
            for group in range(file.num_row_groups):
                span = file.metadata.row_group(group).column(column).statistics
                if span is not None and span.has_min_max and not span.min <= wanted <= span.max:
                    continue
                ids = file.read_row_group(group, ["id"]).column(0).to_pylist()
                if wanted in ids:
                    return _row(file.read_row_group(group).slice(ids.index(wanted), 1))
    raise MelcodecError(f"{folder}: holds no utterance '{wanted}'", "ids are relative paths without suffix, such as speaker/utt1")


def _row(table: pa.Table) -> Row:
    """The only row of ``table``."""
    (codes,), (plain,) = codes_of(table), table.select(PLAIN).to_pylist()
    return Row(codes=codes, **plain)


def codes_of(table: pa.Table) -> Iterator[np.ndarray | None]:
    """Codes (Q, N) uint16 of each row, None where there are none; needs codes and num_codebooks."""
    for batch in table.select(["codes", "num_codebooks"]).to_batches():
        column, books = batch.column(0), batch.column(1).to_pylist()
        values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
        for index, count in enumerate(books):
            yield None if count is None else values[offsets[index] : offsets[index + 1]].reshape(count, -1)


def part_spec(path: Path) -> dict[str, Any]:
    """The run specification in a part's own metadata."""
    with opened_part(path) as file:
        return spec_of(file.schema_arrow, path)


def spec_of(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """The run specification in ``schema``, read from ``path``."""
    try:
        spec = json.loads((schema.metadata or {})[SPEC_KEY])
    except (KeyError, ValueError):
        raise MelcodecError(f"{path}: Parquet, but not a part that melcodec wrote") from None
    if not isinstance(spec, dict):
        raise MelcodecError(f"{path}: the run specification in it is damaged")
    return upgraded(spec)


def opened_part(path: Path) -> pq.ParquetFile:
    """``path``, open, with its schema checked and page checksums to be verified; close it, as with ``with``.

    Raises:
        MelcodecError: missing, damaged, or not a part.
    """
    if not path.is_file():
        raise MelcodecError(f"{path}: no such file")
    with damage_named(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
    if not file.schema_arrow.equals(SCHEMA):
        file.close()
        raise MelcodecError(f"{path}: not the columns of a part", f"they are {', '.join(SCHEMA.names)}")
    return file


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """A block whose Arrow errors become MelcodecError, naming ``path``."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # what Arrow raises on the way through damage
        reason = str(error).partition("\n")[0][:160] or type(error).__name__
        raise MelcodecError(
            f"{path}: damaged ({reason})", "melcodec corpus verify names what is damaged, melcodec preprocess makes it again"
        ) from None


def _flat(row: Row) -> np.ndarray:
    """Codes (Q, N) of any integer type -> (Q N,) uint16."""
    codes = row.codes
    assert codes is not None
    if codes.ndim != 2 or codes.dtype.kind not in "ui":
        raise MelcodecError(f"{row.id}: codes of shape {codes.shape} and type {codes.dtype}, not (Q, N) integers")
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) <= MAX_CODE:
        raise MelcodecError(f"{row.id}: codes outside 0 .. {MAX_CODE}")
    return np.ascontiguousarray(codes, np.uint16).reshape(-1)
