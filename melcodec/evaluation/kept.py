"""Codes that lie in folders: what melcodec preprocess keeps in Parquet, and what melcodec encode writes file by file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.formats.arrays import SUFFIXES
from melcodec.store.codes import find_codes, load_codes
from melcodec.store.layout import is_store, parts, read_spec
from melcodec.store.parquet import read_rows


@dataclass(frozen=True)
class KeptCodes:
    """Codes (Q, N) of one utterance, and its language where it is known."""

    codes: np.ndarray
    language: str = ""


@dataclass(frozen=True)
class CodeFolder:
    """A folder of codes.

    Args:
        fingerprint: None where nobody says.
        codebook_size: K; where nobody says, the largest code and one.
        store: whether melcodec preprocess made it.
    """

    path: Path
    fingerprint: str | None
    codebook_size: int
    store: bool

    @classmethod
    def open(cls, folder: Path) -> CodeFolder:
        """Look into ``folder``.

        Raises:
            MelcodecError: no codes there, or files of more than one checkpoint.
        """
        if is_store(folder):
            spec = read_spec(folder)
            return cls(folder, str(spec["fingerprint"]), int(spec["codebook_size"]), True)
        found = find_codes(folder)
        if not found:
            raise MelcodecError(
                f"{folder}: no codes in this folder", f"they are {', '.join(SUFFIXES)} files, or melcodec preprocess's"
            )
        facts = [load_codes(path) for path in found]
        prints = {item.fingerprint for item in facts if item.fingerprint}
        if len(prints) > 1:
            raise MelcodecError(f"{folder}: holds codes of {len(prints)} checkpoints: {', '.join(sorted(prints))}")
        size = max(item.codebook_size or int(item.codes.max()) + 1 for item in facts)
        return cls(folder, next(iter(prints), None), size, False)

    def items(self) -> Iterator[tuple[str, KeptCodes]]:
        """Ids and codes, in order; utterances without codes are passed over."""
        if not self.store:
            for path in find_codes(self.path):
                yield path.relative_to(self.path).with_suffix("").as_posix(), KeptCodes(load_codes(path).codes)
            return
        for part in parts(self.path):
            for row in read_rows(part):
                if row.codes is not None:
                    yield row.id, KeptCodes(row.codes.astype(np.int64), row.language)
