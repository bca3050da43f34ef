"""Mel spectrograms on disk: (M, T) float32, natural log power unless ``normalized`` says otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.formats.arrays import read_array, write_array

NAME = "mel"


def save_mel(path: Path, mel: np.ndarray, normalized: bool = False, overwrite: bool = True) -> None:
    """Write mel (M, T) to ``path``: .npy, .npz or .safetensors; the latter two say which domain it is in."""
    write_array(path, NAME, mel.astype(np.float32), {"domain": "normalized" if normalized else "natural"}, overwrite)


def load_mel(path: Path, n_mels: int = 80) -> np.ndarray:
    """Read a natural log-mel (M, T) float32.

    Raises:
        MelcodecError: unreadable, of another shape, not finite, or in the normalised domain.
    """
    array, facts = read_array(path, NAME)
    if array.dtype.kind != "f":
        raise MelcodecError(f"{path}: {array.dtype} values are not a mel spectrogram", "codes become a mel with melcodec decode")
    if array.ndim != 2 or array.shape[0] != n_mels or array.shape[1] == 0:
        raise MelcodecError(f"{path}: shape {array.shape}, not ({n_mels}, T)")
    if not np.isfinite(array).all():
        raise MelcodecError(f"{path}: holds NaN or infinity")
    if facts.get("domain") == "normalized":
        raise MelcodecError(f"{path}: is in the model's domain", "decode again without --normalized")
    return array.astype(np.float32)
