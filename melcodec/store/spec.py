"""The run specification: all that decides which codes come out. A run is resumed only with its own specification."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from melcodec.config import flat
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.store.layout import RUN, marked_parts, read_spec
from melcodec.store.parquet import part_spec

MISSING = "nothing"
# what stands in a specification -> the option that says it, and its word there -> the user's
OPTIONS = {
    "checkpoint": "--checkpoint",
    "settings.on_truncated": "--on-truncated",
    "settings.min_seconds": "--min-seconds",
}
WORDS = {("settings.on_truncated", "drop"): "fail or drop"}


def begin_or_resume(folder: Path, spec: dict[str, Any], say: Callable[[str], None] = print) -> dict[str, Any]:
    """Write ``spec`` as the run's in a new folder; in an old one, the specification that stands there.

    Every part holds it, too: where parts are done and the run's own file is gone, it is restored from them.

    Raises:
        MelcodecError: the old one differs; every difference is named.
    """
    path = folder / RUN
    there = path.exists()
    before = read_spec(folder) if there else _spec_of_parts(folder)
    if before is not None and (found := list(differences(before, spec))):
        raise MelcodecError(
            f"{folder}: was started with other settings: {'; '.join(found)}",
            "give the same settings as before, or another output folder",
        )
    if not there:
        with written_aside(path) as aside:
            aside.write_text(json.dumps(before or spec, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if before is not None:
            say(f"{path}: was missing; it is written again from what the parts contain")
    return before or spec


def _spec_of_parts(folder: Path) -> dict[str, Any] | None:
    """What all committed parts of ``folder`` were made under; None where none is readable, so that all are made again."""
    found: dict[str, Any] | None = None
    for part in marked_parts(folder):
        try:
            made = part_spec(part)
        except MelcodecError:  # the survey reports it, and the unit will be done again
            continue
        if found is not None and made != found:
            raise MelcodecError(
                f"{folder}: has no {RUN}, and its parts are of different runs: {'; '.join(differences(found, made))}",
                f"put {RUN} back, or give another output folder",
            )
        found = made
    return found


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """``--min-seconds was 0.0 and is 0.5``, one for every difference that can change results."""
    old, new = flat(before), flat(now)
    if old.get("fingerprint") == new.get("fingerprint"):  # a checkpoint may move, and its decoder may be trained further
        new["checkpoint"] = old.get("checkpoint")
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            yield f"{OPTIONS.get(key, key)} was {_shown(key, old.get(key))} and is {_shown(key, new.get(key))}"


def _shown(key: str, value: Any) -> str:
    return MISSING if value is None else WORDS.get((key, str(value)), str(value))
