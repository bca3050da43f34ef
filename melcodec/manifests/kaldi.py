"""Kaldi's data folders: ``wav.scp``, and beside it ``segments``, ``utt2spk``, ``utt2lang`` and ``text``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from melcodec.manifests.base import Utterance
from melcodec.manifests.names import folder_of, joined
from melcodec.manifests.rows import Rows, opened

Place = tuple[int, str, dict[str, str]]  # line number, id, and path, start and duration
ARCHIVE = re.compile(r"\.ark(:\d+)?$")


def read_kaldi(path: str) -> list[Utterance]:
    """The utterances of ``path``, a ``wav.scp`` or its folder; those of ``segments`` where there is one.

    Paths may hold spaces. Relative ones start where Kaldi's user stands, unless the first one lies beside the list.
    Entries that are commands (``... |``) are refused by name, never run.

    Raises:
        MelcodecError: a line is not usable; names it.
    """
    if Path(path).is_dir():
        path = joined(path, "wav.scp")
    folder = folder_of(path)
    rows = Rows(path, folder)
    recordings = _recordings(path, rows)
    speakers, languages, texts = (_table(joined(folder, name)) for name in ("utt2spk", "utt2lang", "text"))
    places: Iterator[Place] = ((number, name, {"path": file}) for name, (number, file) in recordings.items())
    segments = joined(folder, "segments")
    if Path(segments).is_file():
        rows = Rows(segments, rows.folder)
        places = _segments(rows, recordings)
    found = []
    for number, name, place in places:
        words = {"speaker": speakers.get(name), "language": languages.get(name), "text": texts.get(name)}
        found.append(rows.utterance({"id": name, **words, **place}, number))
    return found


def _recordings(path: str, rows: Rows) -> dict[str, tuple[int, str]]:
    """Line number and file of every recording, by name."""
    found: dict[str, tuple[int, str]] = {}
    for number, name, file in _lines(path):
        if _is_command(file):
            more = sum(_is_command(other) for _, _, other in _lines(path)) - 1
            others = f", as {'is' if more == 1 else 'are'} {more} more; none is ever run" if more else ", and none is ever run"
            hint = "write what it prints to a file and list that, or leave its line out"
            raise rows.wrong(number, f"'{name}' is a command{others}", hint)
        if ARCHIVE.search(file):
            raise rows.wrong(number, f"'{name}' lies in a Kaldi archive, which is not read", "list audio files")
        if not file or file == "-":
            raise rows.wrong(number, f"'{name}' names no audio file")
        if name in found:
            raise rows.wrong(number, f"'{name}' occurs already, in line {found[name][0]}: {found[name][1]} and {file}")
        found[name] = number, file
        rows.start_beside_or_here(file)
    return found


def _is_command(file: str) -> bool:
    return file.startswith("|") or file.endswith("|")


def _segments(rows: Rows, recordings: dict[str, tuple[int, str]]) -> Iterator[Place]:
    for number, name, rest in _lines(rows.source):
        parts = rest.split()
        if len(parts) < 3:
            raise rows.wrong(number, "is not of the form: segment recording start end")
        recording, start, end = parts[:3]
        if recording not in recordings:
            raise rows.wrong(number, f"'{name}' is a part of '{recording}', which wav.scp does not name")
        place = {"path": recordings[recording][1], "start": start}
        yield number, name, place if end in ("-1", "-1.0") else place | {"end": end}  # -1: to the end of the file


def _table(path: str) -> dict[str, str]:
    return {name: value for _, name, value in _lines(path)} if Path(path).is_file() else {}


def _lines(path: str) -> Iterator[tuple[int, str, str]]:
    """(line number, first word, the rest) of every line that is not blank."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            words = line.split(None, 1)
            if words:
                yield number, words[0], words[1].strip() if len(words) > 1 else ""
