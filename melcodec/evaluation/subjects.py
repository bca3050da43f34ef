"""What is evaluated: utterances, with what a manifest says about them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from melcodec.audio.io import Span, load
from melcodec.audio.sources import is_url
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.manifests.build import find_utterances

MANIFEST = "manifest.csv"
LEVELS_UP = 3  # folders above the data in which its manifest may lie
YES, NO = frozenset(("1", "true", "yes")), frozenset(("0", "false", "no"))
GROUP_LABELS = ("language", "dataset", "seen", "speaker")


@dataclass(frozen=True)
class Subject:
    """One utterance.

    Args:
        utterance: where it is, and its speaker, language and text.
        dataset: where it comes from; empty where it is not known.
        seen: ``seen`` when its speaker was trained on, ``unseen`` when not; empty where it is not known.
    """

    utterance: Utterance
    dataset: str = ""
    seen: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """What groups it belongs to, by ``GROUP_LABELS``; without those that are not known."""
        given = {
            "language": self.utterance.language,
            "dataset": self.dataset,
            "seen": self.seen,
            "speaker": self.utterance.speaker,
        }
        return {name: value for name, value in given.items() if value}


def find_subjects(
    data: Sequence[str | Path], limit: int | None = None, seed: int = 0, note: Callable[[str], None] | None = None
) -> list[Subject]:
    """The utterances of ``data``, whatever ``manifests.build`` reads, sorted by id.

    A ``manifest.csv`` in a folder, or up to three folders above it, labels the files that it names: columns ``path`` (against
    the manifest's own folder), ``speaker``, ``language``, ``text``, ``dataset`` and ``speaker_in_train``.

    Args:
        limit: take that many at random, chosen by ``seed``.
        note: called with sentences about what lies there and is not used.

    Raises:
        MelcodecError: nothing there, or a list that cannot be read.
    """
    known: dict[str, dict[str, str]] = {}
    for place in data:
        known |= _labels_near(Path(place))
    found = [_labelled(item, known.get(str(Path(item.path).resolve()), {})) for item in find_utterances(data, note)]
    if limit is None or limit >= len(found):
        return found
    picks = np.random.default_rng(seed).choice(len(found), limit, replace=False)
    return [found[index] for index in sorted(picks)]


def load_sound(subject: Subject, sample_rate: int) -> np.ndarray:
    """Its wave (S,) float32 at ``sample_rate`` Hz; raises MelcodecError as ``audio.io.load`` does."""
    item = subject.utterance
    return load(item.path, sample_rate, Span(item.start, item.duration), item.member)


def subject_key(subject: Subject, settings: str) -> str:
    """32 hex digits that change with the sound, its words and ``settings``, but not with a file's place.

    Raises:
        OSError: the file cannot be read.
    """
    item = subject.utterance
    stamp = "" if is_url(item.path) else _stamp(item.path)
    content = _content(item.path, stamp) if stamp and not item.member else f"{item.path}|{stamp}"  # an archive may be huge
    words = [settings, content, item.member, item.start, item.duration, item.language, item.text]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]


def _stamp(path: str) -> str:
    stat = Path(path).stat()
    return f"{stat.st_size}|{stat.st_mtime_ns}"


@lru_cache(maxsize=1024)  # a file may hold many utterances
def _content(path: str, stamp: str) -> str:
    """SHA-256 of a file; ``stamp`` is its size and time, which a changed file does not share."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _labels_near(place: Path) -> dict[str, dict[str, str]]:
    """Rows of the nearest manifest, or of ``place`` when it is such a list, by the resolved path of their file."""
    if place.suffix.lower() == ".csv" and place.is_file():
        return _read_manifest(place)
    folder = (place if place.is_dir() else place.parent).resolve()
    for parent in (folder, *list(folder.parents)[:LEVELS_UP]):
        manifest = parent / MANIFEST
        if manifest.is_file():
            return _read_manifest(manifest)
    return {}


def _read_manifest(manifest: Path) -> dict[str, dict[str, str]]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            rows = [{name: value or "" for name, value in row.items() if name} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MelcodecError(f"{manifest}: not readable as a list ({error})", "correct it or move it away") from None
    folder = manifest.parent
    return {str((folder / row["path"]).resolve()): row for row in rows if row.get("path")}


def _labelled(item: Utterance, row: dict[str, str]) -> Subject:
    whole = not item.member and not item.start and item.duration is None
    seen = row.get("speaker_in_train", "").lower()
    utterance = replace(
        item,
        speaker=row.get("speaker") or item.speaker,  # a folder's name is but a guess
        language=row.get("language") or item.language,
        text=(row.get("text") if whole else None) or item.text,
    )
    return Subject(utterance, row.get("dataset", ""), "seen" if seen in YES else "unseen" if seen in NO else "")
