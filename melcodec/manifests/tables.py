"""Tables: CSV and TSV with a header, and LJSpeech's ``metadata.csv`` without one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from melcodec.audio.io import is_audio
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.manifests.names import folder_of, joined
from melcodec.manifests.rows import Rows, columns, opened

DELIMITERS = "\t|,;"


def read_table(path: str) -> list[Utterance]:
    """The utterances of ``path``: ``.csv``, ``.tsv`` or ``.txt``, perhaps ``.gz``; tabs, bars, commas or semicolons.

    With a header, columns are found by name and others are left alone (``seconds`` is not ``duration``, which is taken at
    its word). Common Voice's files are looked for in its ``clips/``. Without one, lines are LJSpeech's
    ``ID|text|normalised text`` with ``wavs/ID.wav`` beside the list, or ``wavs/a.wav|text``.

    Raises:
        MelcodecError: no column says where the audio is, or a row is not usable; names the line.
    """
    with opened(path) as file:
        first = file.readline()
        file.seek(0)
        delimiter = next((mark for mark in DELIMITERS if mark in first), ",")
        header = [cell.strip().strip('"').lower() for cell in first.split(delimiter)]
        cells = _cells(file, delimiter, path)
        folder = folder_of(path)
        if "path" in columns(header):
            next(cells)
            clips = joined(folder, "clips")
            return _named(cells, header, Rows(path, clips if "client_id" in header and Path(clips).is_dir() else folder))
        if delimiter == "|":
            return _ljspeech(cells, Rows(path, folder))
    raise MelcodecError(f"{path}: its first line names no column of audio files", "a table begins with names: path,speaker,text")


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


def _ljspeech(cells: Iterator[tuple[int, list[str]]], rows: Rows) -> list[Utterance]:
    wavs = Path(rows.folder, "wavs")
    files = {file.stem: file.name for file in wavs.iterdir()} if wavs.is_dir() else {}
    found = []
    for number, row in cells:
        if len(row) < 2:
            raise rows.wrong(number, "is not of the form ID|text")
        facts = {"text": (row[2] if len(row) > 2 else "") or row[1]}
        if is_audio(Path(row[0])):
            facts |= {"path": row[0]}
        else:
            facts |= {"id": row[0], "path": f"wavs/{files.get(row[0], row[0] + '.wav')}"}
        found.append(rows.utterance(facts, number))
    return found
