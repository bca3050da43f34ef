"""From what a user names to utterances."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

from melcodec.audio.io import is_audio
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.manifests.folder import READABLE, read_files, read_folder
from melcodec.manifests.jsonl import read_jsonl
from melcodec.manifests.kaldi import read_kaldi
from melcodec.manifests.names import absolute
from melcodec.manifests.patterns import fixed_folder, is_pattern, matching
from melcodec.manifests.rows import is_remote
from melcodec.manifests.shards import read_shards
from melcodec.manifests.tables import read_table
from melcodec.walk import Found

LISTS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".csv", ".tsv", ".txt"), "table"),
    ".scp": "kaldi",
    ".tar": "shard",
}
LISTING = frozenset({*LISTS.values(), "pattern"})  # what names speech and is none itself
TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")  # may be packed
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # pathlib makes one slash of two; a drive has one letter


def find_utterances(sources: Sequence[str | Path], note: Callable[[str], None] | None = None) -> list[Utterance]:
    """Every utterance of ``sources``, sorted by id. Nothing is decoded, and no header of an audio file is read.

    A source is a folder, an audio file, a list (JSONL, lhotse's cuts, CSV, TSV, LJSpeech's metadata.csv, Kaldi's wav.scp
    or its folder), a tar archive, or a quoted pattern of audio files, or else of lists or archives. Ids are what lists
    say, and otherwise paths without suffix, seen from the folder, from the pattern's folder, from the list, or from the
    folder that holds all files named one by one. A file that two sources name is taken from the first.

    Args:
        note: called with a sentence about what lies in the sources and is not used: files that are not audio, counted
            by kind, and lists of texts that cannot be read.

    Raises:
        MelcodecError: nothing there, a folder that cannot be entered, a bad row (named with its list and line), a list
            whose columns are not clear, or two utterances of one id.
    """
    gathered = _Gathered(note or (lambda text: None))
    for source in map(str, sources):
        gathered.add(source, kind_of(source))
    found = sorted(_united(gathered.read()), key=attrgetter("id"))
    if note and (passed_over := gathered.others.not_taken("audio")):
        note(passed_over)
    if not found:  # empty folders and archives have raised their own errors
        raise MelcodecError(f"{', '.join(map(str, sources))}: there are no rows in it", "a list has a row for every file")
    for one, other in pairwise(found):
        if one.id == other.id:
            raise _clash(one, other, gathered.rows_of(one.id))
    return found


def find_speech(sources: Sequence[str | Path], note: Callable[[str], None] | None = None) -> list[Utterance]:
    """The utterances of each of ``sources`` in turn, for callers that need no ids: two sources may have equal ones.

    See ``find_utterances`` for the rest.
    """
    return list(_united([find_utterances([source], note) for source in sources]))


def kind_of(source: str) -> str:
    """What ``source`` is: folder, audio, json, table, kaldi, shard or pattern; MelcodecError for anything else."""
    path = Path(source)
    if source == "-":
        raise MelcodecError("-: standard input cannot be used here", "name folders, files or lists")
    if not source:  # pathlib takes it for the folder where one stands
        raise MelcodecError("'': no such file or folder")
    if path.is_dir():
        return "kaldi" if (path / "wav.scp").is_file() else "folder"
    if path.exists():
        if not path.is_file():
            raise MelcodecError(f"{source}: is neither a file nor a folder")
        if is_audio(path):
            return "audio"
        if _suffix(source) not in LISTS:
            packed = source.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz"))
            hint = "unpack it" if packed else f"{READABLE}, and lists: {', '.join(LISTS)}"
            raise MelcodecError(f"{source}: is neither audio nor a list of it", hint)
        return LISTS[_suffix(source)]
    if URL.match(source):
        raise MelcodecError(f"{source}: folders on the network cannot be listed", "name their files in a JSONL or CSV list")
    if is_pattern(source):
        return "pattern"
    raise MelcodecError(f"{source}: no such file or folder")


class _Gathered:
    """What sources name, read at once but for files and archives, which are one source each, however many are named."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self.others = Found()
        self.parts: list[list[Utterance]] = []
        self.lists: list[tuple[str, list[Utterance]]] = []  # those of the parts that are rows
        self.files: dict[str, str] = {}  # by absolute path
        self.shards: dict[str, str] = {}

    def add(self, source: str, kind: str) -> None:
        match kind:
            case "folder":
                self.parts.append(read_folder(source, self.others, self.note))
            case "kaldi":
                self.parts.append(read_kaldi(source))
            case "json":
                self._add_list(source, read_jsonl(source))
            case "table":
                self._add_list(source, read_table(source))
            case "shard":
                self.shards[absolute(source)] = source
            case "audio":
                self.files[absolute(source)] = source
            case "pattern":
                self._add_pattern(source)

    def _add_list(self, source: str, rows: list[Utterance]) -> None:
        self.lists.append((source, rows))
        self.parts.append(rows)

    def rows_of(self, name: str) -> str:
        """``rows 3 and 8 of a.jsonl``: where the id ``name`` stands, when one list has it more than once; empty otherwise."""
        for source, rows in self.lists:
            numbers = [str(number) for number, utterance in enumerate(rows, 1) if utterance.id == name]
            if len(numbers) > 1:
                return f"rows {', '.join(numbers[:-1])} and {numbers[-1]} of {source}"
        return ""

    def _add_pattern(self, pattern: str) -> None:
        matched = matching(pattern)
        sounds = [path for path in matched if is_audio(Path(path))]
        if sounds:
            self.others.others.update(_suffix(path) or "without a suffix" for path in matched if not is_audio(Path(path)))
            self.parts.append(read_files(sounds, fixed_folder(pattern)))
            return
        lists = [path for path in matched if _suffix(path) in LISTS]
        for path in lists:
            self.add(path, LISTS[_suffix(path)])
        if not lists:
            raise MelcodecError(f"'{pattern}' matches {len(matched)} files, but no audio and no list of it", READABLE)

    def read(self) -> list[list[Utterance]]:
        """One list of utterances per source."""
        if self.files:
            self.parts.append(read_files(list(self.files.values())))
        if self.shards:
            self.parts.append(read_shards(list(self.shards.values())))
        return self.parts


def _suffix(path: str) -> str:
    """The suffix that says what a file is, in small letters; of a packed list, the one before ``.gz``."""
    suffixes = Path(path.lower()).suffixes
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 and suffixes[-2] in TEXTS else "".join(suffixes[-1:])


def _united(parts: list[list[Utterance]]) -> Iterable[Utterance]:
    """All utterances, but of those that two parts have only the first part's."""
    if len(parts) == 1:
        return parts[0]
    real_folder = lru_cache(maxsize=None)(os.path.realpath)
    found: list[Utterance] = []
    seen: set[tuple[str, str, str, float]] = set()
    for part in parts:
        keys = []
        for utterance in part:
            folder, name = os.path.split(utterance.path)
            keys.append((folder if is_remote(folder) else real_folder(folder), name, utterance.member, utterance.start))
        found += [utterance for utterance, key in zip(part, keys, strict=True) if key not in seen]
        seen.update(keys)
    return found


def _clash(one: Utterance, other: Utterance, rows: str) -> MelcodecError:
    places = [utterance.path + (f" ({utterance.member})" if utterance.member else "") for utterance in (one, other)]
    where = f", in {rows}" if rows else ""
    if places[0] == places[1]:
        at = f"{places[0]} at {one.start:g} s" if one.start else places[0]
        return MelcodecError(f"'{one.id}' is listed twice: {at}{where}", "remove one of the rows, or give each an id of its own")
    return MelcodecError(
        f"two utterances are called '{one.id}': {places[0]} and {places[1]}{where}",
        "give each row an id of its own" if rows else "name the folder that holds both, or give ids in a list",
    )
