"""Tables: CSV and TSV with a header, and the lists of text-to-speech trainers without one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from melcodec.audio.io import is_audio
from melcodec.errors import MelcodecError, from_os
from melcodec.manifests.base import Utterance
from melcodec.manifests.layouts import field_places
from melcodec.manifests.names import folder_of, joined, stem
from melcodec.manifests.rows import Rows, columns, opened

DELIMITERS = "\t|,;"


NAMED_FOLDERS = ("wavs", "wav")  # beside a list, where the files lie that it names without a folder
WHAT_TO_DO = "add a first line that names the columns, such as path|speaker|text"


def read_table(path: str) -> list[Utterance]:
    """The utterances of ``path``: ``.csv``, ``.tsv`` or ``.txt``, perhaps ``.gz``; tabs, bars, commas or semicolons.

    With a header, columns are found by name and others are left alone (``seconds`` is not used as ``duration``, which must
    be exact). Common Voice's files are looked for in its ``clips/``. Without a header, only lists with bars are read, in the
    layouts of ``layouts``; ``ID|text`` names a file of ``wavs/`` or ``wav/`` beside the list.

    Raises:
        MelcodecError: no column says where the audio is, it is not clear which column is the text, or a row is not usable;
            names the line.
    """
    with opened(path) as file:
        first = file.readline()
        file.seek(0)
        delimiter = next((mark for mark in DELIMITERS if mark in first), ",")
        header = [cell.strip().strip('"').lower() for cell in first.split(delimiter)]
        cells = _cells(file, delimiter, path)
        folder, known = folder_of(path), columns(header)
        if "path" in known:
            next(cells)
            clips = joined(folder, "clips")
            return _named(cells, header, Rows(path, clips if "client_id" in header and Path(clips).is_dir() else folder))
        if delimiter == "|" and len(known) < 2:  # with two known names it is a header that lacks the files
            return _bare(list(cells), Rows(path, folder))
    raise MelcodecError(f"{path}: its first line names no column of audio files", WHAT_TO_DO.replace("|", delimiter))


def _cells(file: IO[str], delimiter: str, path: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not empty."""
    # only commas and semicolons stand in texts so often that texts are quoted; elsewhere a quote is a quote
    reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if delimiter in ",;" else csv.QUOTE_NONE)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise MelcodecError(f"{path}, line {reader.line_num}: is not a row of a table ({error})") from None


def _named(cells: Iterator[tuple[int, list[str]]], header: list[str], rows: Rows) -> list[Utterance]:
    places = {field: header.index(name) for field, name in columns(header).items()}
    found = []
    for number, row in cells:
        if len(row) != len(header):
            raise rows.wrong(number, f"has {len(row)} cells where the header has {len(header)}")
        found.append(rows.utterance({field: row[place] for field, place in places.items()}, number))
    return found


def _bare(cells: list[tuple[int, list[str]]], rows: Rows) -> list[Utterance]:
    """The utterances of rows without a header."""
    if not cells:
        return []
    width = len(cells[0][1])
    for number, row in cells:
        if len(row) != width:
            raise rows.wrong(number, f"has {len(row)} columns where the first line has {width}", "a text must hold no '|'")
    places = field_places([row for _, row in cells])
    if places is None:
        raise MelcodecError(f"{rows.source}: it is not clear which of its {width} columns is the text", WHAT_TO_DO)
    if is_audio(Path(cells[0][1][0])):
        rows.start_where_it_is(cells[0][1][0], [joined(rows.folder, name) for name in NAMED_FOLDERS])
        files = None
    else:
        files = _Named(rows)
    found = []
    for number, row in cells:
        facts = {field: next((row[place] for place in at if row[place].strip()), "") for field, at in places.items()}
        facts |= (
            {"path": row[0]} if files is None or is_audio(Path(row[0])) else {"id": row[0], "path": files.path(row[0], number)}
        )
        found.append(rows.utterance(facts, number))
    return found


class _Named:
    """The audio files that a list means by their names without suffix."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.folder = next((name for name in NAMED_FOLDERS if Path(joined(rows.folder, name)).is_dir()), NAMED_FOLDERS[0])
        self.files: dict[str, list[str]] = {}
        try:
            names = sorted(path.name for path in Path(joined(rows.folder, self.folder)).iterdir())
        except FileNotFoundError:  # reading the files gives the error
            names = []
        except OSError as error:
            raise from_os(error) from None
        for name in names:
            if is_audio(Path(name)) and not name.startswith("."):
                self.files.setdefault(stem(name), []).append(name)

    def path(self, name: str, number: int) -> str:
        """The file called ``name``, whatever its audio suffix; MelcodecError when there are several."""
        there = self.files.get(name, [f"{name}.wav"])
        if len(there) > 1:
            hint = "write the name with its suffix in the list, or remove the other file"
            raise self.rows.wrong(number, f"'{name}' can be {' or '.join(there)} in {self.folder}/", hint)
        return f"{self.folder}/{there[0]}"
