"""Codes on disk: one utterance, (Q, N), in the smallest unsigned type that holds K - 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.formats.arrays import SUFFIXES, Facts, read_array, write_array
from melcodec.walk import walk

NAME = "codes"


@dataclass(frozen=True)
class Codes:
    """One utterance as codes, and what is known about it (a ``.npy`` knows nothing).

    Args:
        codes: (Q, N) int64.
        num_samples: S at the codec's rate, so that decoding crops exactly.
        source_rate: Hz of the file that was encoded.
        fingerprint: of the checkpoint that made them.
        codebook_size: K.
    """

    codes: np.ndarray
    num_samples: int | None = None
    source_rate: int | None = None
    fingerprint: str | None = None
    codebook_size: int | None = None


def smallest_unsigned(codebook_size: int) -> np.dtype[Any]:
    """uint8 up to K = 256, uint16 up to 65,536, uint32 beyond."""
    return np.min_scalar_type(codebook_size - 1)


def save_codes(path: Path, codes: Codes, overwrite: bool = True) -> None:
    """Write ``codes`` to ``path``: .npy, .npz or .safetensors; where K is not known, the largest code picks the type."""
    codebook_size = codes.codebook_size or int(codes.codes.max()) + 1
    facts: Facts = {
        "num_samples": codes.num_samples,
        "source_rate": codes.source_rate,
        "fingerprint": codes.fingerprint,
        "codebook_size": codes.codebook_size,
    }
    write_array(path, NAME, codes.codes.astype(smallest_unsigned(codebook_size)), facts, overwrite)


def load_codes(path: Path) -> Codes:
    """Read what ``save_codes`` wrote, or any integer array (Q, N) or (N,).

    Raises:
        MelcodecError: unreadable, needs pickle, wrong shape or dtype, empty, or negative.
    """
    array, facts = read_array(path, NAME)
    if array.dtype.kind not in "ui":
        raise MelcodecError(f"{path}: {array.dtype} values are not codes", "codes are integers; a mel file cannot be decoded")
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or 0 in array.shape:
        raise MelcodecError(f"{path}: codes of shape {array.shape}, not (Q, N)")
    array = array.astype(np.int64)
    if array.min() < 0:
        raise MelcodecError(f"{path}: negative codes")
    return Codes(
        array,
        _int(facts.get("num_samples")),
        _int(facts.get("source_rate")),
        str(facts["fingerprint"]) if "fingerprint" in facts else None,
        _int(facts.get("codebook_size")),
    )


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
