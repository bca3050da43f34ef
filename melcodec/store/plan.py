"""The plan: which utterance is in which unit, sorted, hashed and written before work starts, and never changed again.

    OUT/segments/0000/plan.jsonl   a line per utterance: its fields and its unit
    OUT/segments/0000/plan.json    the SHA-256 of those bytes, and how much every unit holds; written last

What later runs find in addition becomes segment 0001; what is planned stays as it is. A unit is a stretch of lines, so
a run holds as many utterances in memory as its workers are busy with.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.manifests.base import Utterance
from melcodec.store.layout import SEGMENTS, read_json

LINES, FACTS = "plan.jsonl", "plan.json"
SEGMENT = re.compile(r"[0-9]{4}|[1-9][0-9]{4,}")  # names of their folders: one for each number
UNIT_SIZE = 1000  # utterances
FEWER_UNITS, LEAST_UNIT = 64, 100  # a small corpus is cut finer, so that every core has something: by its size alone
UNIT_SECONDS = 4 * 3600.0  # of sound that a unit holds at most, unless a single utterance is longer
LOSSLESS = frozenset(".wav .flac .aif .aiff .aifc .au .caf .w64 .rf64 .snd".split())
LOSSLESS_BYTES, LOSSY_BYTES = 32_000, 6_000  # per second: 16 kHz in 16 bits; 48 kbit/s. Where no list gives the duration
ASSUMED_SECONDS = 10.0  # of what cannot be looked at: members of archives, URLs
MAX_NAMED = 3  # conflicts that a message names
RESTORE = "put it back from a copy, or give another output folder: what was done belongs to the plan as it was"
Say = Callable[[str], None]
_Sound = tuple[str, str, float, float | None]  # path, member, start, duration


@dataclass(frozen=True)
class Unit:
    """What is encoded at once and becomes one part.

    Args:
        segment, number: its place in the plan, and the part's name.
        plan_hash: of the segment's plan.
        seconds: of sound, about.
    """

    segment: int
    number: int
    plan_hash: str
    seconds: float
    utterances: tuple[Utterance, ...]


@dataclass(frozen=True)
class UnitLines:
    """Where a unit's lines stand: ``size`` bytes from ``offset`` on, ``count`` lines, about ``seconds`` of sound."""

    offset: int
    size: int
    count: int
    seconds: float


@dataclass(frozen=True)
class Segment:
    """A frozen part of the plan."""

    folder: Path
    number: int
    hash: str
    units: tuple[UnitLines, ...]

    @property
    def utterances(self) -> int:
        """How many are planned."""
        return sum(unit.count for unit in self.units)

    def unit(self, number: int) -> Unit:
        """Read unit ``number``."""
        place = self.units[number]
        with (self.folder / LINES).open("rb") as file:
            file.seek(place.offset)
            lines = file.read(place.size).splitlines()
        return Unit(self.number, number, self.hash, place.seconds, tuple(_utterance(json.loads(line)) for line in lines))


def read_plan(folder: Path) -> list[Segment]:
    """The segments of the store ``folder``, checked against their hashes.

    Raises:
        MelcodecError: a plan is damaged, or gone while a later one is there.
    """
    homes = [home for home in segment_folders(folder) if (home / FACTS).is_file()]  # without its facts, it was not finished
    for number, home in enumerate(homes):
        if int(home.name) != number:
            raise MelcodecError(f"{folder / SEGMENTS / f'{number:04d}' / FACTS}: is gone", RESTORE)
    return [_read_segment(home, number) for number, home in enumerate(homes)]


def segment_folders(folder: Path) -> list[Path]:
    """The folders of segments in the store ``folder``, in order; a copy that somebody left there, ``0000.bak``, is none."""
    homes = (folder / SEGMENTS).glob("[0-9]*")
    return sorted((home for home in homes if SEGMENT.fullmatch(home.name) and home.is_dir()), key=lambda home: int(home.name))


def plan_files(folder: Path, name: str) -> list[Path]:
    """The files ``name`` of all segments that have one."""
    return [path for path in (home / name for home in segment_folders(folder)) if path.is_file()]


def extend_plan(folder: Path, utterances: Iterable[Utterance], unit_size: int = 0, say: Say = print) -> list[Segment]:
    """The plan of ``folder``, with what of ``utterances`` is not in it yet as a new segment.

    Sound that is planned under another id is in it: ``a`` becomes ``a.flac`` in a listing when ``a.wav`` joins it.

    Args:
        unit_size: utterances per unit of a new segment, at most; 0: about a thousand, fewer in a small corpus.
        say: told what does not stop the work: planned utterances whose ids or words have changed.

    Raises:
        MelcodecError: an id twice, or one that was planned for other sound.
    """
    segments = read_plan(folder)
    new = _by_id(utterances)
    _take_planned(segments, new, say)
    if not new and not segments:
        raise MelcodecError("there is nothing to encode", "give folders, files or lists that hold audio")
    if new:
        number = len(segments)
        write_segment(folder / SEGMENTS / f"{number:04d}", [new[key] for key in sorted(new)], unit_size)
        segments.append(_read_segment(folder / SEGMENTS / f"{number:04d}", number))
    return segments


def write_segment(folder: Path, utterances: Sequence[Utterance], unit_size: int = 0) -> None:
    """Freeze ``utterances``, already sorted, as the segment ``folder``."""
    unit_size = unit_size or usual_size(len(utterances))
    digest, seconds = hashlib.sha256(), []
    with written_aside(folder / LINES) as aside, aside.open("wb") as file:
        for number, (unit, length) in enumerate(cut(utterances, unit_size)):
            seconds.append(round(length, 3))
            for utterance in unit:
                line = json.dumps({**asdict(utterance), "unit": number}).encode() + b"\n"
                digest.update(line)
                file.write(line)
    facts = {"hash": digest.hexdigest(), "utterances": len(utterances), "units": len(seconds), "seconds": seconds}
    with written_aside(folder / FACTS) as aside:
        aside.write_text(json.dumps(facts) + "\n", encoding="utf-8")


def usual_size(count: int) -> int:
    """Utterances per unit for a corpus of ``count``."""
    return min(UNIT_SIZE, max(LEAST_UNIT, -(-count // FEWER_UNITS)))


def cut(
    utterances: Sequence[Utterance], unit_size: int = UNIT_SIZE, unit_seconds: float = UNIT_SECONDS
) -> Iterator[tuple[list[Utterance], float]]:
    """Units of at most ``unit_size`` utterances and ``unit_seconds`` of sound, but at least one; and their seconds."""
    unit: list[Utterance] = []
    total = 0.0
    for utterance in utterances:
        seconds = estimated_seconds(utterance)
        if unit and (len(unit) == unit_size or total + seconds > unit_seconds):
            yield unit, total
            unit, total = [], 0.0
        unit.append(utterance)
        total += seconds
    if unit:
        yield unit, total


def estimated_seconds(utterance: Utterance) -> float:
    """The duration that the list gives, or a guess from the file's size that is rather too long."""
    if utterance.duration is not None:
        return utterance.duration
    if utterance.member or "://" in utterance.path:
        return ASSUMED_SECONDS
    path = Path(utterance.path)
    try:
        size = path.stat().st_size
    except OSError:  # it becomes an error row
        return 0.0
    return max(0.0, size / (LOSSLESS_BYTES if path.suffix.lower() in LOSSLESS else LOSSY_BYTES) - utterance.start)


def _by_id(utterances: Iterable[Utterance]) -> dict[str, Utterance]:
    """``utterances`` by id, with paths that hold wherever a worker runs."""
    found: dict[str, Utterance] = {}
    for utterance in utterances:
        path = _settled(utterance.path)
        if utterance.id in found:
            raise MelcodecError(f"'{utterance.id}' is the id of two utterances: {found[utterance.id].path} and {path}")
        found[utterance.id] = replace(utterance, path=path)
    return found


def _settled(path: str) -> str:
    """``path`` from the root on, without ``..`` unless a link makes another place of it; links stay."""
    if "://" in path:
        return path
    path = str(Path(path).absolute())
    folder, name = os.path.split(path)
    return os.path.join(_without_ups(folder), name) if os.pardir in folder else path  # noqa: PTH118  a million of them


@lru_cache(maxsize=4096)
def _without_ups(folder: str) -> str:
    plain = os.path.normpath(folder)
    return plain if os.path.realpath(plain) == os.path.realpath(folder) else folder


def _take_planned(segments: Sequence[Segment], new: dict[str, Utterance], say: Say) -> None:
    """Remove from ``new`` what is planned, under its id or another; refuse an id that is planned for other sound."""
    named: dict[_Sound, list[str]] = {}
    for utterance in new.values() if segments else ():
        named.setdefault(_sound(utterance), []).append(utterance.id)
    reworded = 0
    absent: list[Utterance] = []  # planned, and under another id now, if at all
    moved: dict[str, Utterance] = {}  # planned, and other sound has their id now
    for planned in (utterance for segment in segments for utterance in _lines(segment.folder / LINES)):
        sound = _sound(planned)
        if (found := new.get(planned.id)) is None:
            if sound in named:
                absent.append(planned)
        elif _sound(found) == sound:
            reworded += _words(found) != _words(planned)
            del new[planned.id]
        else:
            moved[planned.id] = planned
    renamed = _take_renamed(absent, moved, named, new)
    _refuse_moved([(planned, new[name]) for name, planned in moved.items()])
    if renamed:
        found, planned = renamed[0]
        what = "1 utterance is" if len(renamed) == 1 else f"{len(renamed)} utterances are"
        say(f"{what} planned already under another id: '{found.id}' is '{planned.id}' there, and keeps that id")
    reworded += sum(_words(found) != _words(planned) for found, planned in renamed)
    if reworded:
        say(f"{reworded} utterances have another text, speaker, language or split than when planned; those of the plan are kept")


def _take_renamed(
    absent: Iterable[Utterance], moved: dict[str, Utterance], named: dict[_Sound, list[str]], new: dict[str, Utterance]
) -> list[tuple[Utterance, Utterance]]:
    """Remove from ``new`` what is the sound of an ``absent`` id under another: one for each; (found, planned).

    What has a planned id itself and is taken leaves ``moved``: its planned sound may have a new id, too. Ids that are
    swapped stay there, since none of them is absent.
    """
    renamed = []
    waiting = deque(absent)
    while waiting:
        planned = waiting.popleft()
        found = [new[name] for name in named.get(_sound(planned), ()) if name in new]
        if not found:
            continue
        taken = min(found, key=lambda item: (item.id not in moved, _words(item) != _words(planned), item.id))
        renamed.append((new.pop(taken.id), planned))
        if taken.id in moved:
            waiting.append(moved.pop(taken.id))
    return renamed


def _refuse_moved(moved: Sequence[tuple[Utterance, Utterance]]) -> None:
    """Raise MelcodecError if there is any (planned, found) of one id and different sound."""
    if moved:
        named = [f"'{found.id}' was {_where(planned)} and is now {_where(found)}" for planned, found in moved[:MAX_NAMED]]
        more = f"; and {len(moved) - MAX_NAMED} more" if len(moved) > MAX_NAMED else ""
        raise MelcodecError(
            f"the sound of these ids has changed since they were planned: {'; '.join(named)}{more}",
            "give the sources as before, their common parent folder, or another output folder",
        )


def _sound(utterance: Utterance) -> _Sound:
    path = _settled(utterance.path) if os.pardir in utterance.path else utterance.path  # as an older melcodec planned it
    return path, utterance.member, utterance.start, utterance.duration


def _words(utterance: Utterance) -> tuple[str, ...]:
    return utterance.text, utterance.speaker, utterance.language, utterance.split


def _where(utterance: Utterance) -> str:
    member = f"#{utterance.member}" if utterance.member else ""
    whole = utterance.start == 0.0 and utterance.duration is None
    return f"{utterance.path}{member}" + ("" if whole else f" ({utterance.duration} s from {utterance.start} s)")


def _read_segment(folder: Path, number: int) -> Segment:
    facts = read_json(folder / FACTS, RESTORE)
    digest, offset = hashlib.sha256(), 0
    places: list[tuple[int, int, int]] = []  # offset, size, count
    try:
        with (folder / LINES).open("rb") as file:
            for line in file:
                digest.update(line)
                unit = json.loads(line)["unit"]
                if unit == len(places):
                    places.append((offset, 0, 0))
                first, size, count = places[unit]
                places[unit] = first, size + len(line), count + 1
                offset += len(line)
    except OSError as error:
        raise MelcodecError(f"{folder / LINES}: {error.strerror or error}", RESTORE) from None
    except (ValueError, KeyError, IndexError, TypeError):
        places.clear()
    if not places or digest.hexdigest() != facts.get("hash") or len(places) != len(facts.get("seconds", ())):
        raise MelcodecError(f"{folder / LINES}: the plan was changed or damaged", RESTORE)
    units = tuple(UnitLines(*place, seconds=seconds) for place, seconds in zip(places, facts["seconds"], strict=True))
    return Segment(folder, number, facts["hash"], units)


def _lines(path: Path) -> Iterator[Utterance]:
    with path.open("rb") as file:
        for line in file:
            yield _utterance(json.loads(line))


def _utterance(fields: dict[str, Any]) -> Utterance:
    fields.pop("unit")
    return Utterance(**fields)
