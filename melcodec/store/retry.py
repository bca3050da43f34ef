"""Trying failures again: units that hold error rows lose their markers, and are then processed again.

    OUT/retry.json    which units they are, and when their markers were written; there until all is done

Only error rows are made again: rows with codes are taken from the part as it was, because their sound may be out of
reach by now. A run that is killed meanwhile is resumed instead of started again: one that takes longer than its machine
is lent for would never end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.store.commit import committed
from melcodec.store.layout import PARTS, marker_path, part_name, part_path, read_json, read_marker
from melcodec.store.parquet import Row, part_spec, read_rows, storable
from melcodec.store.plan import Segment, Unit

RETRY = "retry.json"
RESTORE = f"put it back from a copy; or remove {RETRY}, and its units are made again as a whole, rows with codes included"


def begin_retry(folder: Path, segments: Sequence[Segment]) -> list[str]:
    """Open the units of the store ``folder`` that hold error rows; their names.

    The list is written before the first marker is removed, so that a retry that is killed here can be resumed.
    """
    found = [(segment, number) for segment in segments for number in range(len(segment.units))]
    opened = [part_name(segment.number, number) for segment, number in found if _failures(folder, segment, number)]
    if opened:
        written = {name: _marker(folder, name).stat().st_mtime_ns for name in opened}
        with written_aside(folder / RETRY) as aside:
            aside.write_text(json.dumps({"units": written}) + "\n", encoding="utf-8")
        resume_retry(folder)
    return opened


def resume_retry(folder: Path) -> set[str]:
    """The units of the retry that is under way in ``folder``; those not done since are open. None when there is none.

    Raises:
        MelcodecError: the list is damaged.
    """
    listed = _listed(folder)
    for name, written in listed.items():
        marker = _marker(folder, name)
        # The one that was to go: killed before, or a power cut brought it back. Its text would not tell: what fails
        # again as before gives the same.
        if marker.is_file() and marker.stat().st_mtime_ns == written:
            marker.unlink()
    return set(listed)


def end_retry(folder: Path) -> None:
    """The end of a run: the list goes, unless a unit of it was given up, whose rows with codes are still to be kept."""
    if all(_marker(folder, name).is_file() for name in _listed(folder)):
        (folder / RETRY).unlink(missing_ok=True)


def known_rows(folder: Path, unit: Unit, spec: Mapping[str, Any]) -> dict[str, Row]:
    """By id, the rows with codes that an open part of the store ``folder`` holds of ``unit``, which may be a piece of one.

    None where the part is not readable, or was not made under ``spec``.
    """
    part = part_path(folder, unit.segment, unit.number)
    try:
        rows = {row.id: row for row in read_rows(part) if row.codes is not None} if part_spec(part) == spec else {}
    except MelcodecError:
        return {}
    wanted = ((utterance.id, rows.get(storable(utterance.id))) for utterance in unit.utterances)
    return {name: replace(row, id=name) for name, row in wanted if row is not None}


def _listed(folder: Path) -> dict[str, int]:
    """Part name -> when its marker was written, in ns."""
    if not (folder / RETRY).is_file():
        return {}
    units = read_json(folder / RETRY, RESTORE).get("units")
    if not isinstance(units, dict):
        raise MelcodecError(f"{folder / RETRY}: damaged: not a list of units", RESTORE)
    return units


def _marker(folder: Path, name: str) -> Path:
    return marker_path(folder / PARTS / f"{name}.parquet")


def _failures(folder: Path, segment: Segment, number: int) -> bool:
    """Whether a unit is committed and its marker counts error rows."""
    part = part_path(folder, segment.number, number)
    try:
        return marker_path(part).is_file() and bool(read_marker(part).get("errors")) and bool(committed(folder, segment, number))
    except MelcodecError:  # damaged: the survey reports it, and nothing of it is kept
        return False
