"""Committing a unit: first the part, then the marker that makes it count. Done means marker present and matching."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melcodec.errors import MelcodecError, from_os
from melcodec.files import written_aside
from melcodec.store.layout import PARTS, marker_path, part_path, read_marker
from melcodec.store.parquet import Row, write_part
from melcodec.store.plan import Segment, Unit

HASHED_BYTES = 1 << 20  # at once


@dataclass(frozen=True)
class Receipt:
    """What a marker holds.

    Args:
        rows, ok, errors: utterances in all, with codes and without.
        codes: N, of all of them together; Q codes each.
        seconds: of sound that became codes.
        sha256: of the part.
    """

    unit: int
    plan_hash: str
    rows: int
    ok: int
    errors: int
    codes: int
    seconds: float
    sha256: str


def commit(unit: Unit, rows: Sequence[Row], folder: Path, spec: dict[str, Any]) -> Receipt:
    """Write the part of ``unit`` and its marker.

    Raises:
        MelcodecError: they cannot be written.
    """
    assert [row.id for row in rows] == [utterance.id for utterance in unit.utterances]
    path = part_path(folder, unit.segment, unit.number)
    good = [row.codes.shape[1] for row in rows if row.codes is not None]
    seconds = sum(row.duration or 0.0 for row in rows if row.codes is not None)
    digest = write_part(path, rows, spec)
    receipt = Receipt(
        unit.number, unit.plan_hash, len(rows), len(good), len(rows) - len(good), sum(good), round(seconds, 3), digest
    )
    with written_aside(marker_path(path)) as aside:
        aside.write_text(json.dumps(asdict(receipt)) + "\n", encoding="utf-8")
    return receipt


def committed(folder: Path, segment: Segment, unit: int) -> Receipt | None:
    """The receipt of a unit that is done; None where there is no marker.

    Raises:
        MelcodecError: there is a marker, but the part is not what it says.
    """
    path = part_path(folder, segment.number, unit)
    if not marker_path(path).is_file():
        return None
    try:
        receipt = Receipt(**read_marker(path))
    except TypeError:
        raise MelcodecError(f"{marker_path(path)}: damaged: not a marker") from None
    if (receipt.unit, receipt.plan_hash, receipt.rows) != (unit, segment.hash, segment.units[unit].count):
        raise MelcodecError(f"{marker_path(path)}: belongs to another plan")
    if not path.is_file():
        raise MelcodecError(f"{path}: is gone")
    if _sha256(path) != receipt.sha256:
        raise MelcodecError(f"{path}: is not what its marker says")
    return receipt


def sweep(folder: Path) -> None:
    """Remove what killed workers left half-written in the store ``folder``."""
    for path in (folder / PARTS).glob(".[0-9]*"):  # written_aside names them so
        path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(HASHED_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise from_os(error) from None
    return digest.hexdigest()
