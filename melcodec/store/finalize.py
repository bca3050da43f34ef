"""The end of a run: every planned id, once, in a committed part; what failed is listed and summed up by reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.store.commit import committed
from melcodec.store.layout import part_name, part_path, read_spec
from melcodec.store.parquet import OK, read_part, storable
from melcodec.store.plan import Segment
from melcodec.walk import FAILURES

SUMMARY = "summary.json"
COLUMNS = ("id", "num_codes", "duration", "source", "status", "error")
SHARE = re.compile(r"(\d+(?:\.\d+)?)(%?)")
EXAMPLES = 3  # of what failed, per reason


@dataclass
class Summary:
    """What a store holds. Nothing of when or how it was made: the same corpus gives the same bytes.

    Args:
        fingerprint: of the checkpoint.
        utterances: planned.
        ok: with codes of the whole.
        kept: with codes of what a truncated file still held.
        failed: without codes, by reason.
        missing: planned, but in no committed part, because their unit was given up or damaged.
        seconds: of sound that became codes.
        codes: N, of all utterances together.
        examples: a few errors for each reason.
        stuck: why there are missing ones, by part.
    """

    fingerprint: str
    segments: int
    units: int
    utterances: int = 0
    ok: int = 0
    kept: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    missing: int = 0
    seconds: float = 0.0
    codes: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    stuck: dict[str, str] = field(default_factory=dict)

    def failures(self, on_truncated: str = "fail") -> int:
        """Utterances without codes that count as failures; with ``drop``, truncated ones do not."""
        return sum(count for status, count in self.failed.items() if on_truncated != "drop" or status != "truncated")


@dataclass(frozen=True)
class Limit:
    """How many failures are allowed: a count, or a share of all utterances.

    Args:
        text: ``12``, ``0.5%`` or ``0.005``.
    """

    text: str = "0"

    def allowed(self, utterances: int) -> int:
        """Of so many utterances."""
        if self.text.isdecimal():
            return int(self.text)
        found = SHARE.fullmatch(self.text)
        share = float(found[1]) / (100 if found[2] else 1) if found else 2.0
        if share > 1.0:
            raise MelcodecError(f"--max-failures {self.text}: is neither a count nor a share", "such as 12, 0.5% or 0.005")
        return int(share * utterances + 1e-9)


def finalize(folder: Path, segments: Sequence[Segment], stuck: dict[str, str] | None = None) -> Summary:
    """Reconcile the plan of the store ``folder`` with its parts; write failures.jsonl and summary.json.

    Args:
        stuck: part name -> why its unit was given up.
    """
    units = sum(len(segment.units) for segment in segments)
    summary = Summary(read_spec(folder)["fingerprint"], len(segments), units, stuck=dict(stuck or {}))
    statuses: Counter[str] = Counter()
    with written_aside(folder / FAILURES) as aside, aside.open("w", encoding="utf-8") as file:
        for segment in segments:
            for number in range(len(segment.units)):
                name = part_name(segment.number, number)
                rows, trouble = _rows(folder, segment, number)
                if trouble:
                    summary.stuck.setdefault(name, trouble)
                    _list_missing(segment, number, summary, file)
                for row in rows:
                    _count(row, summary, statuses, file)
    summary.failed = dict(sorted(statuses.items()))
    summary.examples = dict(sorted(summary.examples.items()))
    summary.seconds = round(summary.seconds, 3)
    with written_aside(folder / SUMMARY) as aside:
        aside.write_text(json.dumps(asdict(summary), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return summary


def _rows(folder: Path, segment: Segment, number: int) -> tuple[Iterator[dict[str, object]], str]:
    """The rows of a unit's part; or none, and why not."""
    try:
        if committed(folder, segment, number) is None:
            return iter(()), "its unit is not done"
        table = read_part(part_path(folder, segment.number, number), COLUMNS)
    except MelcodecError as error:
        return iter(()), error.message
    planned = [storable(utterance.id) for utterance in segment.unit(number).utterances]
    if table.column("id").to_pylist() != planned:
        return iter(()), "its part does not hold what was planned"
    return iter(table.to_pylist()), ""


def _list_missing(segment: Segment, number: int, summary: Summary, file: IO[str]) -> None:
    trouble = summary.stuck[part_name(segment.number, number)]
    for utterance in segment.unit(number).utterances:
        summary.utterances += 1
        summary.missing += 1
        line = {"id": utterance.id, "source": utterance.path, "status": "missing", "error": trouble}
        file.write(json.dumps(line) + "\n")


def _count(row: dict[str, object], summary: Summary, statuses: Counter[str], file: IO[str]) -> None:
    summary.utterances += 1
    if row["num_codes"] is not None:
        summary.codes += int(str(row["num_codes"]))
        summary.seconds += float(str(row["duration"]))
        summary.ok += row["status"] == OK
        summary.kept += row["status"] != OK
        return
    status = str(row["status"])
    statuses[status] += 1
    examples = summary.examples.setdefault(status, [])
    if len(examples) < EXAMPLES:
        examples.append(str(row["error"]))
    file.write(json.dumps({key: row[key] for key in ("id", "source", "status", "error")}) + "\n")
