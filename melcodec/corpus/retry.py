"""Failures once more: units that hold error rows lose their markers, and with that they are to be done.

    OUT/retry.json    which units they are; there until all is done

A run that is killed meanwhile goes on instead of beginning anew: one that takes longer than its machine is lent for would
never end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from melcodec.corpus.plan import Segment
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.store import marker_path, part_name, part_path, read_marker

RETRY = "retry.json"


def begin_retry(folder: Path, segments: Sequence[Segment]) -> list[str]:
    """Open the units of the store ``folder`` that hold error rows; their names. None when a retry is under way already.

    Killed in here, some are open and some are not: whatever command comes next, each is whole or done again.
    """
    if (folder / RETRY).is_file():
        return []
    opened = []
    for segment in segments:
        for number in range(len(segment.units)):
            part = part_path(folder, segment.number, number)
            if _failures(part):
                marker_path(part).unlink(missing_ok=True)
                opened.append(part_name(segment.number, number))
    with written_aside(folder / RETRY) as aside:
        aside.write_text(json.dumps({"units": opened}) + "\n", encoding="utf-8")
    return opened


def end_retry(folder: Path) -> None:
    """All is done that was to be done."""
    (folder / RETRY).unlink(missing_ok=True)


def _failures(part: Path) -> bool:
    """Whether ``part`` is committed and its marker counts error rows."""
    if not marker_path(part).is_file():
        return False
    try:
        return bool(read_marker(part).get("errors"))
    except MelcodecError:  # damaged: done again whatever it says
        return False
