"""Rows of lists, whatever their format: from named values to an utterance; every error names the list and the line."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from melcodec.errors import MelcodecError, from_os
from melcodec.manifests.base import Utterance
from melcodec.manifests.names import SPLITS, absolute, joined, split_called, stem

# what lists call things; the first name that a row has is taken
ALIASES = {
    "path": (
        *("audio_filepath", "path", "audio", "wav", "file", "file_name", "filename", "filepath", "file_path"),
        *("audio_file", "audio_path", "wav_path", "wav_filename"),
    ),
    "id": ("id", "utt_id", "utterance_id"),
    "start": ("offset", "start"),
    "duration": ("duration",),
    "end": ("end",),
    "speaker": ("speaker", "speaker_id", "speaker_name", "client_id"),
    "language": ("language", "lang", "locale"),
    "text": ("text", "sentence", "transcript", "transcription"),
    "split": ("split",),
}
# empty, '.' and '..' between slashes: an id becomes a path one day
UNFIT_ID = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f\ud800-\udfff]")


def columns(keys: Iterable[str]) -> dict[str, str]:
    """Which of ``keys`` holds which field: ``{"path": "audio_filepath", "start": "offset"}``."""
    known = set(keys)
    found = {field: next((name for name in names if name in known), "") for field, names in ALIASES.items()}
    return {field: name for field, name in found.items() if name}


@contextmanager
def opened(path: str) -> Iterator[IO[str]]:
    """A list as text, UTF-8 with or without a mark, unpacked when it is ``.gz``; MelcodecError for what goes wrong."""
    try:
        # newline="": a quoted cell of a CSV may hold line ends
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise MelcodecError(f"{path}: is not UTF-8 text ({error.reason})") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MelcodecError(f"{path}: is damaged ({error})") from None
    except OSError as error:
        raise from_os(error) from None


@cache
def missing_reader(protocol: str) -> tuple[str, str | None] | None:
    """Why URLs of ``protocol`` (``s3``, ``https``) cannot be read here, and a hint; None when they can. Nothing is downloaded."""
    try:
        fsspec = import_module("fsspec")  # it brings no types
        for each in protocol.split("::"):  # as in simplecache::s3
            fsspec.get_filesystem_class(each)
    except ImportError as error:  # fsspec itself, or what it needs for this protocol
        return f"reading it needs an optional package ({error})", "pip install 'melcodec[remote]'"
    except ValueError:
        return f"nothing reads {protocol}:// here", None
    return None


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL."""
    return "://" in path


class Rows:
    """Makes utterances of one list's rows.

    Args:
        source: the list, as errors name it.
        folder: where relative paths start.
        noun: what a row is called: ``line`` or ``entry``.
    """

    def __init__(self, source: str, folder: str, noun: str = "line") -> None:
        self.source, self.folder, self.noun = source, folder, noun
        self.settled = False

    def wrong(self, number: int, what: str, hint: str | None = None) -> MelcodecError:
        """What to raise about row ``number``."""
        return MelcodecError(f"{self.source}, {self.noun} {number}: {what}", hint)

    def start_beside_or_here(self, path: str) -> None:
        """Let relative paths begin where the first one, ``path``, is: beside it, or where the user stands.

        Kaldi and lhotse mean the latter. One look decides for the whole list.
        """
        if not self.settled and not Path(joined(self.folder, path)).exists() and Path(path).exists():
            self.folder = ""
        self.settled = True

    def start_where_it_is(self, path: str, folders: Iterable[str]) -> None:
        """Let relative paths begin where the first one, ``path``, is: by the list, in ``folders`` or in the working folder."""
        places = (self.folder, *folders, "")
        self.folder = next((place for place in places if Path(joined(place, path)).exists()), self.folder)

    def utterance(self, facts: Mapping[str, Any], number: int) -> Utterance:
        """The utterance that row ``number`` describes; ``facts`` are its values by the names that ``ALIASES`` has."""
        path = facts.get("path")
        if not isinstance(path, str) or not path.strip():
            raise self.wrong(number, "names no audio file")
        start = self._seconds(facts, "start", number) or 0.0
        duration = self._seconds(facts, "duration", number)
        if duration is None and (end := self._seconds(facts, "end", number)) is not None:
            duration = end - start
        if duration is not None and duration <= 0:
            raise self.wrong(number, f"a duration of {duration:g} s holds no speech")
        name = self._word(facts, "id", number) or self._id(path, start)
        if UNFIT_ID.search(name):
            raise self.wrong(number, f"the id {name!r} cannot name a file", "no '..', no '//', no '/' at an end")
        return Utterance(
            id=name,
            path=self._path(path, number),
            start=start,
            duration=duration,
            speaker=self._word(facts, "speaker", number),
            language=self._word(facts, "language", number),
            text=self._word(facts, "text", number),
            split=self._split(facts, number),
        )

    def _path(self, path: str, number: int) -> str:
        if not is_remote(path):
            return joined(self.folder, path)
        if missing := missing_reader(path.partition("://")[0]):
            reason, hint = missing
            raise self.wrong(number, f"{path}: {reason}", hint)
        return path

    def _id(self, path: str, start: float) -> str:
        """From the path: as seen from the list's folder, else whole; with its start in seconds for what begins later."""
        if is_remote(path):
            path = path.partition("://")[2].partition("?")[0]
        elif path.startswith(os.sep) and path.startswith(inside := joined(absolute(self.folder), "")):
            path = path[len(inside) :]
        name = stem(os.path.normpath(path)).replace(os.sep, "/").lstrip("/")
        while name.startswith("../"):
            name = name[3:]
        return f"{name}@{start:.3f}" if start else name

    def _seconds(self, facts: Mapping[str, Any], field: str, number: int) -> float | None:
        value = facts.get(field)
        if value is None or value == "":
            return None
        try:
            seconds = float(value)
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(number, f"{field} is {value!r}, not a number of seconds") from None
        if not 0 <= seconds < math.inf:
            raise self.wrong(number, f"{field} is {value}: a time in seconds is 0 or more")
        return seconds

    def _word(self, facts: Mapping[str, Any], field: str, number: int) -> str:
        value = facts.get(field)
        if value is None:
            return ""
        if isinstance(value, (list, dict)):
            raise self.wrong(number, f"{field} is {value!r}, not a text")
        return str(value).strip()

    def _split(self, facts: Mapping[str, Any], number: int) -> str:
        word = self._word(facts, "split", number)
        if word and not split_called(word):
            raise self.wrong(number, f"split '{word}' is none of {', '.join(SPLITS)}", "rename a column that means other things")
        return split_called(word)
