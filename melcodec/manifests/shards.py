"""Tar archives in WebDataset's manner: audio members, with ``.json`` and ``.txt`` of the same name beside them."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from melcodec.audio.io import is_audio
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.manifests.names import absolute, common_folder, ids_of, relative_names, stem
from melcodec.manifests.rows import Rows, columns

NOTES = (".json", ".txt")
TOLD = ("speaker", "language", "text", "split")  # by .json; where the sound is, the archive says
MOST_NOTE_BYTES = 1 << 20
END_BYTES = 1 << 16  # of zeros behind the last member; GNU tar writes 10 KiB


@dataclass
class _Member:
    """A file in an archive."""

    name: str  # as the archive has it
    offset: int  # bytes
    size: int


def read_shards(paths: Sequence[str]) -> list[Utterance]:
    """The audio members of tar archives, found by their headers alone.

    An id is the member's name without suffix, whichever archive it lies in; where several archives have a member of that
    name, their own names come first: ``shard-003/utt1``. ``utt1.txt`` is the text of ``utt1.flac``, ``utt1.json`` gives
    text, speaker, language and split by the names that lists use.

    Raises:
        MelcodecError: not a tar archive, compressed, cut short, or without audio.
    """
    found = [_read_shard(path) for path in paths]
    seen = Counter(name for shard in found for name in {utterance.id for utterance in shard})
    base = common_folder(paths)
    shards = ids_of(relative_names((absolute(path) for path in paths), base))
    return [
        replace(utterance, id=f"{name}/{utterance.id}") if seen[utterance.id] > 1 else utterance
        for name, shard in zip(shards, found, strict=True)
        for utterance in shard
    ]


def _read_shard(path: str) -> list[Utterance]:
    try:
        with open(path, "rb") as file:
            members = _members(file, path)
            audio = [member for member in members if is_audio(Path(member.name))]
            notes = {member.name: member for member in members if member.name.endswith(NOTES)}
            rows = Rows(path, "", "member")
            ids = ids_of([member.name.removeprefix("./") for member in audio])
            found = [
                rows.utterance(_facts(member, notes, file, path) | {"id": name, "path": path}, index)
                for index, (name, member) in enumerate(zip(ids, audio, strict=True), 1)
            ]
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None
    if not found:
        raise MelcodecError(f"{path}: holds no audio files")
    return [replace(utterance, member=member.name) for utterance, member in zip(found, audio, strict=True)]


def _members(file: IO[bytes], path: str) -> list[_Member]:
    """The regular files in an archive, hidden ones left out; MelcodecError unless it is whole to its end."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            found = [
                _Member(member.name, member.offset_data, member.size)
                for member in archive
                if (member.isfile() or member.islnk()) and not member.name.rpartition("/")[2].startswith(".")
            ]
            end = archive.offset
    except (tarfile.TarError, ValueError) as error:
        hint = "compressed archives are not read: unpack them, or gunzip" if path.endswith(("z", "zst")) else None
        raise MelcodecError(f"{path}: not readable as a tar archive ({error})", hint) from None
    # tarfile takes whatever is no header for the end: a damaged header, or a second archive behind the first
    file.seek(end)
    if any(file.read(END_BYTES)):
        raise MelcodecError(f"{path}: is damaged, or two archives in one, at byte {end}", "tar tf shows what can be read")
    return found


def _facts(member: _Member, notes: dict[str, _Member], file: IO[bytes], path: str) -> dict[str, Any]:
    """What the files that share the member's name say."""
    facts: dict[str, Any] = {}
    folder, slash, base = member.name.rpartition("/")
    for name in dict.fromkeys((stem(member.name), folder + slash + base.partition(".")[0])):
        if (note := notes.get(f"{name}.json")) is not None:
            said = _json(_text(note, file, path), note, path)
            facts |= {field: said[key] for field, key in columns(said).items() if field in TOLD}
        if (note := notes.get(f"{name}.txt")) is not None:
            facts["text"] = _text(note, file, path)
    return facts


def _json(text: str, note: _Member, path: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise MelcodecError(f"{path}: {note.name} is not JSON ({error})") from None
    return said if isinstance(said, dict) else {}


def _text(note: _Member, file: IO[bytes], path: str) -> str:
    if note.size > MOST_NOTE_BYTES:
        raise MelcodecError(f"{path}: {note.name} is {note.size} bytes long, too much to be a text about one file")
    file.seek(note.offset)
    try:
        return file.read(note.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MelcodecError(f"{path}: {note.name} is not UTF-8 text ({error.reason})") from None
