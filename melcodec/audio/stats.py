"""Per-band norms of the mel front end: measured over a corpus, and kept in files.

XTTS divides every band by its mean natural log-mel. ``.pth`` is its own file, one bare float32 tensor (80,); ``.npy`` and
``.json`` hold the same numbers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melcodec.audio.io import read_blocks
from melcodec.audio.mel import MelFrontend
from melcodec.config import N_MELS
from melcodec.errors import MelcodecError
from melcodec.files import written_aside

SUFFIXES = (".pth", ".npy", ".json")
Progress = Callable[[int, int], None]  # files done, files in all
Read = Callable[[Any], Iterable[np.ndarray]]


@dataclass(frozen=True)
class MelStatistics:
    """What ``mel_statistics`` measured.

    Args:
        norms: (M,) mean natural log-mel of every band.
        num_frames: how many frames it is the mean of.
        failures: the files that could not be read, and why.
    """

    norms: tuple[float, ...]
    num_frames: int
    failures: dict[Path | int, str]


def mel_statistics(
    paths: Sequence[Path | int], frontend: MelFrontend, progress: Progress | None = None, read: Read | None = None
) -> MelStatistics:
    """Mean natural log-mel of every band over all frames of ``paths``, each frame counting once; files are streamed.

    A file that turns out to be damaged half-way is not counted at all.

    Args:
        read: gives the blocks (n,) of one of ``paths``, which may then be numbers of sounds; None reads files.

    Raises:
        MelcodecError: not one file could be read.
    """
    total, num_frames, failures = np.zeros(frontend.n_mels), 0, {}
    for done, path in enumerate(paths, start=1):
        try:
            part, frames = _sum_of(read(path) if read else read_blocks(Path(str(path)), frontend.sample_rate), frontend)
        except (MelcodecError, OSError) as error:
            failures[path] = str(error)
        else:
            total += part
            num_frames += frames
        if progress:
            progress(done, len(paths))
    if num_frames == 0:
        raise MelcodecError("no file of the corpus could be read", next(iter(failures.values()), None))
    return MelStatistics(checked_norms(total / num_frames, "the corpus", frontend.n_mels), num_frames, failures)


def _sum_of(blocks: Iterable[np.ndarray], frontend: MelFrontend) -> tuple[np.ndarray, int]:
    """The sum (M,) float64 over the frames of a sound, and their number."""
    total, num_frames = np.zeros(frontend.n_mels), 0
    for mel in frontend.stream(blocks):
        total += mel.sum(axis=1, dtype=np.float64)
        num_frames += mel.shape[1]
    return total, num_frames


def save_mel_norms(path: Path, norms: Sequence[float], overwrite: bool = True) -> None:
    """Write norms (80,) to ``path`` as .pth, .npy or .json; the same norms give the same bytes.

    Raises:
        MelcodecError: another suffix, norms that ``load_mel_norms`` would refuse, or an unwritable place.
    """
    suffix, values = _suffix(path), checked_norms(norms, f"{path}")
    floats = np.array(values, dtype=np.float32)
    buffer = io.BytesIO()
    if suffix == ".pth":
        torch.save(torch.from_numpy(floats), buffer)  # to memory: a path's name would become part of the file
    elif suffix == ".npy":
        np.save(buffer, floats, allow_pickle=False)
    else:
        buffer.write((json.dumps(values, indent=1) + "\n").encode())
    with written_aside(path, overwrite) as aside:
        aside.write_bytes(buffer.getvalue())


def load_mel_norms(path: Path, n_mels: int = N_MELS) -> tuple[float, ...]:
    """Read norms (M,) from .pth (``weights_only``), .npy (no pickle) or .json.

    Raises:
        MelcodecError: missing, not such a file, of another shape, or with zeros, NaN or infinity.
    """
    suffix = _suffix(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MelcodecError(f"{path}: no such file") from None
    except OSError as error:
        raise MelcodecError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return checked_norms(_parsed(content, suffix), f"{path}", n_mels)
    except MelcodecError:
        raise
    except Exception:  # bytes that are no pickle raise whatever they happen to decode to
        raise MelcodecError(
            f"{path}: holds no mel norms", f"expected: {n_mels} numbers, as melcodec mel-stats writes them"
        ) from None


def checked_norms(norms: Any, where: str, n_mels: int = N_MELS) -> tuple[float, ...]:
    """Norms (M,) as the shortest decimals that are these float32 values, which is how configurations hold them.

    Raises:
        MelcodecError: naming ``where``; another shape, or zeros, NaN or infinity.
    """
    values = np.asarray(norms, dtype=np.float32)
    if values.shape != (n_mels,):
        raise MelcodecError(f"{where}: mel norms of shape {values.shape}, not ({n_mels},)")
    if not np.isfinite(values).all() or not values.all():
        raise MelcodecError(f"{where}: mel norms with zeros, NaN or infinity", "the mel spectrogram is divided by them")
    return tuple(float(str(value)) for value in values)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MelcodecError(f"{path}: mel norms cannot be stored as '{suffix}'", f"use one of {', '.join(SUFFIXES)}")
    return suffix


def _parsed(content: bytes, suffix: str) -> Any:
    if suffix == ".pth":
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if suffix == ".npy":
        return np.load(io.BytesIO(content), allow_pickle=False)
    return json.loads(content)
