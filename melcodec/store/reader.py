"""The one reader of stored codes: of a file, of a folder of files, or of a store, as the same items in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.formats.arrays import SUFFIXES
from melcodec.store.codes import Codes, find_codes, load_codes
from melcodec.store.layout import is_store, parts, read_spec


@dataclass(frozen=True)
class Item:
    """An utterance with codes.

    Args:
        id: of a store's row; of a file, its path below the folder without suffix.
        path: the file, or the part of the store, that it was read from.
        speaker, language, text: as the corpus says; empty when it does not, as in files.
    """

    id: str
    codes: Codes
    path: Path
    speaker: str = ""
    language: str = ""
    text: str = ""


def is_stored(path: Path) -> bool:
    """Whether ``path`` is a codes file by its suffix, or a store."""
    return path.suffix.lower() in SUFFIXES if not path.is_dir() else is_store(path)


def read_items(path: Path, failed: Callable[[Path, MelcodecError], None] | None = None) -> Iterator[Item]:
    """Every utterance with codes of ``path``: a codes file, a folder of them, or a store.

    Args:
        failed: told of files that cannot be read; without it the first one is raised. A damaged store is always raised.

    Raises:
        MelcodecError: nothing there, a damaged file or store, or a folder whose files are of different checkpoints.
    """
    if is_store(path):
        yield from _store_items(path)
        return
    folder = path.is_dir()
    files = find_codes(path) if folder else [path]
    if not files:
        hint = f"they are {', '.join(SUFFIXES)} files, or what melcodec preprocess wrote"
        raise MelcodecError(f"{path}: no codes in this folder", hint, "missing")
    origin = Origin()
    for file in files:
        try:
            codes = load_codes(file)
        except MelcodecError as error:
            if failed is None:
                raise
            failed(file, error)
            continue
        origin.check(codes, file)
        yield Item(file.relative_to(path).with_suffix("").as_posix() if folder else file.stem, codes, file)


def read_codes(path: Path, wanted: str | None = None) -> Codes:
    """The codes of a file, or of the utterance ``wanted`` of a store.

    Raises:
        MelcodecError: unreadable, no such utterance, or one without codes.
    """
    if wanted is None:
        return load_codes(path)
    from melcodec.store.parquet import find_row

    spec, row = read_spec(path), find_row(path, wanted)
    if row.codes is None:
        raise MelcodecError(f"{wanted}: has no codes: {row.status}: {row.error}", code="missing")
    sizes = tuple(spec["sizes"])
    return Codes(row.codes.astype(np.int64), row.num_samples, row.source_rate, spec["fingerprint"], sizes)


class Origin:
    """What codes were made by: all that is counted or compared together must be of one checkpoint.

    Attributes:
        fingerprint: None as long as it is not known.
        sizes: K of each codebook; where it is not known, the largest code so far plus one.
        unknown: files that do not say who made them.
    """

    def __init__(self) -> None:
        self.fingerprint: str | None = None
        self.unknown: list[Path] = []
        self._said: tuple[int, ...] | None = None
        self._seen: tuple[int, ...] = ()

    @property
    def known_sizes(self) -> tuple[int, ...] | None:
        """K of each codebook, if somebody said so."""
        return self._said

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each codebook, or how many of each have been seen."""
        return self._said or self._seen

    def check(self, codes: Codes, path: Path) -> None:
        """Take in ``codes`` of ``path``.

        Raises:
            MelcodecError: another checkpoint made them than those before, or they have other codebooks.
        """
        hint = "their codes mean different things: keep and count them apart"
        if codes.fingerprint is None:
            self.unknown.append(path)
        elif self.fingerprint not in (None, codes.fingerprint):
            message = f"{path}: made by checkpoint {codes.fingerprint}, files before it by {self.fingerprint}"
            raise MelcodecError(message, hint, "mismatch")
        self.fingerprint = codes.fingerprint or self.fingerprint
        if self._seen and len(self._seen) != len(codes.codes):
            message = f"{path}: codes of {len(codes.codes)} codebooks, files before it of {len(self._seen)}"
            raise MelcodecError(message, hint, "mismatch")
        seen = (codes.codes.max(axis=1) + 1).tolist()
        self._seen = tuple(map(max, self._seen, seen)) if self._seen else tuple(seen)
        self._said = codes.sizes or self._said


def _store_items(folder: Path) -> Iterator[Item]:
    from melcodec.store.parquet import read_rows

    spec = read_spec(folder)
    for part in parts(folder):
        for row in read_rows(part):
            if row.codes is not None:
                codes = Codes(
                    row.codes.astype(np.int64), row.num_samples, row.source_rate, spec["fingerprint"], tuple(spec["sizes"])
                )
                yield Item(row.id, codes, part, row.speaker, row.language, row.text)
