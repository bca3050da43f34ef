"""From what the outputs in a folder were made, so that a second run neither mixes codes nor keeps what is out of date.

Beside outputs that a command wrote into a folder lies a hidden list ``.melcodec.jsonl`` with a line for each of them:

    {"output": "a.npy", "source": "/data/a.wav", "stamp": "113900:1764072000000000000",
     "recipe": {"command": "encode", "fingerprint": "6e086a8b431f"}, "facts": {"num_samples": 22050, ...}}

``stamp`` is size and modification time of the source, in bytes and nanoseconds, ``recipe`` all that decides the output
beside it. A line is written before its output, from which what was there before is removed, so that an output with a line
is always what the line says, whenever the command is killed. The last line about an output counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from melcodec.errors import MelcodecError, from_os
from melcodec.walk import OUTPUTS

LIST = OUTPUTS
MOST_LISTS = 64  # that are kept in memory
Recipe = Mapping[str, Any]
# absent: to be made; current: made as it would be now; outdated: from an input that has changed; other: under another
# recipe; unlisted: nothing tells how it was made
State = Literal["absent", "current", "outdated", "other", "unlisted"]


# Path of a list -> its inode, the bytes of it that were read, and what they say: a list grows while its folder is worked on
_read: dict[Path, tuple[int, int, dict[str, Entry]]] = {}


@dataclass(frozen=True)
class Entry:
    """A line of the list; ``output`` is a name in the list's folder, ``facts`` are about the content, if anything is known."""

    output: str
    source: str
    stamp: str
    recipe: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


def stamp(source: Path, detail: str = "") -> str:
    """Size and time of ``source``, and ``detail``, such as the stretch that is used; empty when it cannot be looked at."""
    try:
        facts = source.stat()
    except OSError:
        return ""
    return f"{facts.st_size}:{facts.st_mtime_ns}{detail}"


def note(output: Path, source: Path, recipe: Recipe, facts: Mapping[str, Any] | None = None, detail: str = "") -> None:
    """List ``output``, which is written right after this; what is there of it is removed.

    Raises:
        MelcodecError: the folder cannot be written.
    """
    entry = Entry(output.name, str(source.absolute()), stamp(source, detail), dict(recipe), dict(facts or {}))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)
        with (output.parent / LIST).open("ab+") as file:
            if file.tell() and file.seek(-1, 2) and file.read(1) != b"\n":  # a line that a power cut tore
                file.write(b"\n")
            file.write(json.dumps(asdict(entry)).encode() + b"\n")
    except OSError as error:
        raise MelcodecError(f"{output}: cannot be written: {error.strerror or error}", code="unwritable") from None


def state(output: Path, source: Path, recipe: Recipe, detail: str = "") -> State:
    """What is known about ``output``, were it made from ``source`` under ``recipe`` now."""
    if not output.exists():
        return "absent"
    entry = entries(output.parent).get(output.name)
    if entry is None:
        return "unlisted"
    if entry.recipe != dict(recipe):
        return "other"
    return "current" if entry.stamp == stamp(source, detail) else "outdated"


def others(folder: Path, outputs: Iterable[Path], recipe: Recipe) -> list[tuple[Path, Entry]]:
    """What lies below ``folder`` beside ``outputs`` and was made by the same command under another recipe."""
    mine = {path.absolute() for path in outputs}
    found = []
    for listed in sorted(folder.rglob(LIST)):
        for name, entry in entries(listed.parent).items():
            path = listed.parent / name
            same = entry.recipe.get("command") == recipe["command"]
            if same and entry.recipe != dict(recipe) and path.absolute() not in mine and path.exists():
                found.append((path, entry))
    return found


def differences(before: Recipe, now: Recipe) -> str:
    """``fingerprint was 6e086a8b431f and is 0123456789ab``."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} was {before.get(name)} and is {now.get(name)}" for name in names)


def listed_facts(path: Path, checksum: str) -> dict[str, Any]:
    """What the list of its folder says about ``path``; nothing when the file is not the one that was listed."""
    entry = entries(path.parent).get(path.name)
    if entry is None or entry.facts.get("checksum") != checksum:
        return {}
    return {key: value for key, value in entry.facts.items() if key != "checksum"}


def entries(folder: Path) -> dict[str, Entry]:
    """The list of ``folder`` by output; empty when there is none. Lines that are no entries are passed over."""
    path = folder.absolute() / LIST
    try:
        facts = path.stat()
    except OSError:
        return {}
    inode, offset, found = _read.pop(path, (0, 0, {}))
    if inode != facts.st_ino or facts.st_size < offset:
        offset, found = 0, {}
    if facts.st_size > offset:
        try:
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read()
        except OSError as error:
            raise from_os(error) from None
        whole = content[: content.rfind(b"\n") + 1]
        found.update((entry.output, entry) for entry in map(_entry, whole.splitlines()) if entry)
        offset += len(whole)
    _read[path] = facts.st_ino, offset, found
    if len(_read) > MOST_LISTS:
        _read.pop(next(iter(_read)))
    return found


def _entry(line: bytes) -> Entry | None:
    try:
        return Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None
