"""Codes of one utterance in a file: (Q, N), in the smallest unsigned type that holds every K - 1.

.npz and .safetensors also hold the length, the source's rate, the checkpoint's fingerprint and K of each codebook. A .npy
holds the codes alone; what ``melcodec encode`` knew about it stands in the list of its folder (``store.outputs``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.formats.arrays import SUFFIXES, Facts, checksum, read_array, read_array_header, write_array
from melcodec.store.outputs import listed_facts
from melcodec.walk import walk

NAME = "codes"


@dataclass(frozen=True)
class Codes:
    """One utterance as codes, and what is known about it; None where it is not known.

    Args:
        codes: (Q, N) int64.
        num_samples: S at the codec's rate, so that decoding crops exactly.
        source_rate: Hz of the file that was encoded.
        fingerprint: of the checkpoint that made them.
        sizes: K of each of the Q codebooks.
    """

    codes: np.ndarray
    num_samples: int | None = None
    source_rate: int | None = None
    fingerprint: str | None = None
    sizes: tuple[int, ...] | None = None

    @property
    def facts(self) -> Facts:
        """All but the codes, as files hold it; what is not known is left out."""
        sizes = None if self.sizes is None else list(self.sizes)
        known: Facts = {"num_samples": self.num_samples, "source_rate": self.source_rate}
        known |= {"fingerprint": self.fingerprint, "sizes": sizes}
        return {key: value for key, value in known.items() if value is not None}

    def check_made_by(self, fingerprint: str, where: str) -> None:
        """Refuse codes that another checkpoint made than the one of ``fingerprint``; ``where`` they are is for the message.

        Raises:
            MelcodecError: the fingerprints are both known and differ.
        """
        if self.fingerprint not in (None, fingerprint):
            raise MelcodecError(
                f"{where}: made by checkpoint {self.fingerprint}, but this one is {fingerprint}",
                "give that checkpoint with --checkpoint, or --any-checkpoint to decode regardless",
                "mismatch",
            )


def smallest_unsigned(codebook_size: int) -> np.dtype[Any]:
    """uint8 up to K = 256, uint16 up to 65,536, uint32 beyond."""
    return np.min_scalar_type(codebook_size - 1)


def save_codes(path: Path, codes: Codes, overwrite: bool = True) -> None:
    """Write ``codes`` to ``path``: .npy, .npz or .safetensors."""
    write_array(path, NAME, stored(codes), codes.facts, overwrite)


def stored(codes: Codes) -> np.ndarray:
    """The codes (Q, N) in the type that a file holds; where no K is known, the largest code decides."""
    largest = max(codes.sizes) if codes.sizes else int(codes.codes.max()) + 1
    return codes.codes.astype(smallest_unsigned(largest))


def file_facts(codes: Codes) -> Facts:
    """What the list of a folder holds about the file that ``codes`` become; see ``store.outputs``."""
    return {**codes.facts, "checksum": checksum(stored(codes), {})}


def load_codes(path: Path) -> Codes:
    """Read what ``save_codes`` wrote, or any integer array (Q, N) or (N,).

    Raises:
        MelcodecError: unreadable, needs pickle, wrong shape or dtype, empty, or negative.
    """
    array, facts = read_array(path, NAME)
    if path.suffix.lower() == ".npy":
        facts = listed_facts(path, checksum(array, {}))
    if array.dtype.kind not in "ui":
        hint = "codes are integers; a mel file cannot be decoded"
        raise MelcodecError(f"{path}: {array.dtype} values are not codes", hint, "unreadable")
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or 0 in array.shape:
        raise MelcodecError(f"{path}: codes of shape {array.shape}, not (Q, N)", code="unreadable")
    array = array.astype(np.int64)
    if array.min() < 0:
        raise MelcodecError(f"{path}: negative codes", code="unreadable")
    return with_facts(array, facts, path)


def with_facts(codes: np.ndarray, facts: Mapping[str, Any], path: Path) -> Codes:
    """Codes (Q, N) and what a file or its header says about them; raises MelcodecError when the two do not agree."""
    sizes = sizes_of(facts, len(codes))
    if sizes is not None and len(sizes) != len(codes):
        message = f"{path}: damaged: {len(codes)} rows of codes, but sizes of {len(sizes)} codebooks"
        raise MelcodecError(message, code="damaged")
    fingerprint = str(facts["fingerprint"]) if "fingerprint" in facts else None
    return Codes(codes, _int(facts.get("num_samples")), _int(facts.get("source_rate")), fingerprint, sizes)


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint in the header of a codes file; None where there is none, or no codes file."""
    try:
        found = read_array_header(path)[1].facts.get("fingerprint")
    except MelcodecError:
        return None
    return None if found is None else str(found)


def sizes_of(facts: Mapping[str, Any], num_codebooks: int) -> tuple[int, ...] | None:
    """K of each codebook as ``facts`` say it; an older melcodec wrote one ``codebook_size`` for all."""
    found = facts.get("sizes")
    if isinstance(found, list) and found and all(isinstance(size, int) and size > 0 for size in found):
        return tuple(found)
    size = _int(facts.get("codebook_size"))
    return None if size is None else (size,) * num_codebooks


def is_codes(path: Path) -> bool:
    """Whether the name is that of a codes file; ``x.mel.npy``, which an earlier decode left there, is not."""
    return path.suffix.lower() in SUFFIXES and Path(path.stem).suffix != ".mel"


def find_codes(folder: Path) -> list[Path]:
    """Every codes file below ``folder``, sorted by path; see ``walk``.

    Raises:
        MelcodecError: a folder in it cannot be entered.
    """
    return walk(folder, is_codes).checked()


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None
