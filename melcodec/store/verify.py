"""Whether all of a folder of codes is there and whole, and what helps. One part in memory at a time; no torch."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from melcodec.errors import MelcodecError
from melcodec.store import layout, parquet
from melcodec.store.plan import FACTS, LINES, plan_files, segment_folders

PART = re.compile(r"(\d{4,})-(\d{5,})\.parquet")
AGAIN = "run melcodec preprocess again as before: it makes again what is missing or damaged"
REMOVE = "remove these parts and run melcodec preprocess again as before: it makes them again"
STRAY = "remove parts that are in no plan, and their markers: they cannot be made again or repaired"
NEW_PLAN = "a plan cannot be made again: put segments/ back from a copy, or start in a new folder"
SLACK_SECONDS = 0.01  # sums of seconds depend on their order; counts do not
Unit = tuple[int, int]  # segment and unit


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a folder of codes: ``where``, a file within it, ``what``, and what to do about it."""

    where: str
    what: str
    cure: str


@dataclass(frozen=True)
class Verdict:
    """What ``verify`` found. ``leftovers`` are files that no command reads, such as those of a killed run."""

    parts: int
    planned: int
    problems: list[Problem]
    leftovers: list[str]

    @property
    def cures(self) -> list[str]:
        """What to do, in order; with a plan that is damaged, nothing else helps."""
        found = {problem.cure for problem in self.problems}
        return [NEW_PLAN] if NEW_PLAN in found else [cure for cure in (STRAY, REMOVE, AGAIN) if cure in found]


def verify(folder: Path) -> Verdict:
    """Check everything that can be checked about ``folder``, and list all that is wrong.

    Every planned id stands in exactly one committed row; parts have their marker's SHA-256 and counts, sound pages, the
    right columns and the run's code space; codes are below K and as many as their samples make.

    Raises:
        MelcodecError: not a folder of codes at all.
    """
    spec = layout.read_spec(folder)
    problems: list[Problem] = []
    plan = _Plan()
    segments = segment_folders(folder)
    for segment in segments:
        unfinished = segment == segments[-1] and not (segment / FACTS).is_file()  # as a killed run leaves it
        problems += _named(segment.relative_to(folder), plan.read(segment), AGAIN if unfinished else NEW_PLAN)
    if not plan.hashes:
        problems.append(Problem(layout.SEGMENTS, "there is no plan", AGAIN))
    problems += [Problem(layout.SEGMENTS, f"'{name}' is planned more than once", NEW_PLAN) for name in plan.repeated(folder)]
    found = _files(folder)
    for unit in sorted({*plan.units, *found}):
        part = layout.part_path(folder, *unit)
        where = part.relative_to(folder).as_posix()
        problems += [Problem(where, what, cure) for what, cure in _part_problems(part, unit, plan, spec)]
    return Verdict(len(found), sum(map(len, plan.units.values())), problems, _leftovers(folder))


class _Plan:
    """What was planned: 8-byte hashes of ids instead of ids, so that a hundred million utterances fit."""

    def __init__(self) -> None:
        self.hashes: dict[int, str] = {}  # of each segment's plan
        self.units: dict[Unit, array[int]] = {}

    def read(self, segment: Path) -> Iterator[str]:
        """Take in ``segment``; yields what is wrong with it."""
        number, digest = int(segment.name), hashlib.sha256()
        self.hashes[number] = ""
        try:
            facts = layout.read_json(segment / FACTS)
            with (segment / LINES).open("rb") as lines:
                for line in lines:
                    digest.update(line)
                    entry = json.loads(line)
                    self.units.setdefault((number, int(entry["unit"])), array("q")).append(fold(entry["id"]))
        except MelcodecError as error:
            yield error.message
            return
        except OSError as error:
            yield f"{LINES}: {error.strerror}"
            return
        except (ValueError, KeyError, TypeError):
            yield f"{LINES}: damaged: a line is no planned utterance"
            return
        self.hashes[number] = digest.hexdigest()
        planned = {unit: ids for unit, ids in self.units.items() if unit[0] == number}
        if facts.get("hash") != self.hashes[number]:
            yield f"{LINES}: its SHA-256 is not that of {FACTS}: damaged or changed"
        if (facts.get("utterances"), facts.get("units")) != (sum(map(len, planned.values())), len(planned)):
            yield f"{LINES}: not the utterances or units that {FACTS} counts"

    def repeated(self, folder: Path) -> list[str]:
        """Ids that are planned more than once, over all segments."""
        hashes = np.concatenate([np.empty(0, np.int64), *(np.frombuffer(ids, np.int64) for ids in self.units.values())])
        values, counts = np.unique(hashes, return_counts=True)
        suspects = set(values[counts > 1].tolist())
        names = Counter(name for _, name in _planned(folder, suspects)) if suspects else Counter()
        return sorted(name for name, count in names.items() if count > 1)


def fold(name: str) -> int:
    """An id as 8 bytes; python's own hash, the same within a process and no longer."""
    return hash(parquet.storable(name))


def _planned(folder: Path, wanted: Collection[int]) -> Iterator[tuple[Unit, str]]:
    """Unit and id of the planned utterances whose ``fold`` is ``wanted``."""
    for path in plan_files(folder, LINES):
        with path.open("rb") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    if fold(entry["id"]) in wanted:
                        yield (int(path.parent.name), int(entry["unit"])), entry["id"]
                except (ValueError, KeyError, TypeError):
                    continue  # read has said so


def _files(folder: Path) -> set[Unit]:
    """Units that have a part or a marker, or both."""
    names = (path.name.replace(layout.MARKER_SUFFIX, ".parquet") for path in (folder / layout.PARTS).glob("[0-9]*"))
    return {(int(match[1]), int(match[2])) for match in map(PART.fullmatch, names) if match}


def _leftovers(folder: Path) -> list[str]:
    """Temporary files of killed runs, and what else lies among the parts and the segments."""
    hidden = {path for path in folder.rglob(".*") if path.is_file() and path.name != layout.LOCK}
    strange = {
        path
        for path in (folder / layout.PARTS).glob("*")
        if not PART.fullmatch(path.name.replace(layout.MARKER_SUFFIX, ".parquet"))
    }
    strange |= {*(folder / layout.SEGMENTS).glob("*")} - {*segment_folders(folder)}
    return sorted(str(path.relative_to(folder)) for path in hidden | strange)


def _named(where: Path, found: Iterator[str], cure: str) -> list[Problem]:
    return [Problem(where.as_posix(), what, cure) for what in found]


def _part_problems(part: Path, unit: Unit, plan: _Plan, spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """All that is wrong with one part and its marker, and the cure of each."""
    if unit not in plan.units:
        yield "in no plan", STRAY
        return
    planned = plan.units[unit]
    if not part.is_file():
        marked = layout.marker_path(part).is_file()
        what = "the part is missing, its marker is there" if marked else "not done yet"
        yield f"{what}: {len(planned)} utterances missing", AGAIN
        return
    if not layout.marker_path(part).is_file():
        yield f"has no marker, so it is not committed: {len(planned)} utterances missing", AGAIN
        return
    try:
        marker = layout.read_marker(part)
    except MelcodecError as error:
        yield f"its marker is damaged ({error.message.rpartition(': ')[2]})", AGAIN
        marker = None
    if marker is not None:
        if (marker.get("unit"), marker.get("plan_hash")) != (unit[1], plan.hashes.get(unit[0])):
            yield "its marker is of another plan or unit", AGAIN
        if marker.get("sha256") != hashlib.sha256(part.read_bytes()).hexdigest():
            yield "its SHA-256 is not its marker's: damaged or replaced", AGAIN
            return  # and parsing it is left alone
    # what follows agrees with its marker, which is all that preprocess looks at
    yield from ((what, REMOVE) for what in _content_problems(part, planned, unit, marker, spec))


def _content_problems(
    part: Path, planned: array[int], unit: Unit, marker: dict[str, Any] | None, spec: dict[str, Any]
) -> Iterator[str]:
    try:
        table, made = parquet.read_part(part), parquet.part_spec(part)
    except MelcodecError as error:
        yield error.message.removeprefix(f"{part}: ")
        return
    keys = sorted({**spec, **made})
    yield from (f"{key} {made.get(key)} is not the run's {spec.get(key)}" for key in keys if made.get(key) != spec.get(key))
    yield from _count_problems(table, marker)
    yield from _id_problems(table, planned, part, unit)
    yield from _row_problems(table, spec)


def _count_problems(table: pa.Table, marker: dict[str, Any] | None) -> Iterator[str]:
    ok = table.num_rows - table.column("codes").null_count
    codes = compute.sum(table.column("num_codes")).as_py() or 0
    seconds = compute.sum(compute.if_else(compute.is_valid(table.column("codes")), table.column("duration"), 0.0)).as_py() or 0.0
    counts = {"rows": table.num_rows, "ok": ok, "errors": table.num_rows - ok, "codes": codes, "seconds": round(seconds, 3)}
    for key, count in counts.items():
        said = None if marker is None else marker.get(key)
        if marker is not None and (not isinstance(said, (int, float)) or abs(said - count) > SLACK_SECONDS):
            yield f"its marker counts {marker.get(key)} {key}, the part has {count}"


def _id_problems(table: pa.Table, planned: array[int], part: Path, unit: Unit) -> Iterator[str]:
    """Ids that are missing, repeated or not planned, one by one."""
    names = table.column("id").to_pylist()
    counts, expected = Counter(names), set(planned)
    yield from (f"'{name}' stands in it {count} times" for name, count in counts.items() if count > 1)
    yield from (f"'{name}' is not planned here" for name in counts if fold(name) not in expected)
    if missing := expected - {fold(name) for name in counts}:
        found = (name for home, name in _planned(part.parents[1], missing) if home == unit)
        yield from (f"'{name}' is missing" for name in found)


def _row_problems(table: pa.Table, spec: dict[str, Any]) -> Iterator[str]:
    """Rows whose codes and facts do not fit each other or the run."""
    hop, sizes = spec["mel"]["hop_length"], spec["sizes"]
    stride = spec["samples_per_code"] // hop
    facts = table.select(["id", "num_codebooks", "num_codes", "num_samples", "status"]).to_pylist()
    try:
        rows = list(zip(facts, parquet.codes_of(table), strict=True))
    except ValueError:
        yield "codes that do not divide into their codebooks"
        return
    for row, codes in rows:
        name, status = row["id"], row["status"]
        if codes is None:
            if status == parquet.OK or status not in parquet.REASONS:
                yield f"'{name}' has no codes, and its status is '{status}'"
            continue
        if status not in (parquet.OK, parquet.TRUNCATED):
            yield f"'{name}' has codes, and its status is '{status}'"
        if codes.shape != (len(sizes), row["num_codes"]):
            yield f"'{name}' has codes {codes.shape}, not ({len(sizes)}, {row['num_codes']})"
        elif codes.size:
            largest = zip(codes.max(axis=1).tolist(), sizes, strict=True)
            yield from (f"'{name}' has code {code}; K is {size}" for code, size in largest if code >= size)
        samples = row["num_samples"]
        if samples is None or codes.shape[1] != -(-(samples // hop + 1) // stride):
            yield f"'{name}' has {codes.shape[1]} codes, which is not what {samples} samples make"
