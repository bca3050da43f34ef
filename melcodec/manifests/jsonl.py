"""JSON lists: one object a line (NeMo's manifests, lhotse's cuts), or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any

from melcodec.manifests.base import Utterance
from melcodec.manifests.cuts import facts_of_cut, is_cut
from melcodec.manifests.names import folder_of
from melcodec.manifests.rows import Rows, columns, opened


def read_jsonl(path: str) -> list[Utterance]:
    """The utterances of ``path``: ``.jsonl`` or ``.json``, perhaps ``.gz``.

    Relative paths start at the list's folder (for lhotse's cuts see ``cuts``). ``offset`` and ``duration`` are taken at
    their word, as NeMo does. A row without an ``id`` is named by its path, and by its offset where that is not 0.

    Raises:
        MelcodecError: a row is not JSON or not usable; names the line.
    """
    with opened(path) as file:
        whole = file.read(64).lstrip().startswith("[")
        file.seek(0)
        rows = Rows(path, folder_of(path), "entry" if whole else "line")
        values = enumerate(_array(file, rows), 1) if whole else _lines(file, rows)
        return [rows.utterance(_facts(row, rows, number), number) for number, row in values]


def _lines(file: IO[str], rows: Rows) -> Iterator[tuple[int, Any]]:
    loads = json.loads
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            yield number, loads(line)
        except ValueError as error:
            raise rows.wrong(number, f"is not JSON ({error})") from None


def _array(file: IO[str], rows: Rows) -> list[Any]:
    try:
        return json.load(file)
    except json.JSONDecodeError as error:
        raise Rows(rows.source, rows.folder).wrong(error.lineno, f"is not JSON ({error.msg})") from None


def _facts(row: Any, rows: Rows, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise rows.wrong(number, "is JSON, but not an object", 'one object a line: {"audio_filepath": "a.wav"}')
    if is_cut(row):
        return facts_of_cut(row, rows, number)
    names = _columns(tuple(row))
    if "path" not in names:
        hint = "make cuts of recordings: lhotse cut simple" if "sources" in row else "name it audio_filepath, path or wav"
        raise rows.wrong(number, "names no audio file", hint)
    return {field: row[name] for field, name in names.items()}


_columns = lru_cache(maxsize=64)(columns)  # most rows of a list have the same keys
