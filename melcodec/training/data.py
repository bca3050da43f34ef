"""From files to batches: which files train and validate, and which crops a step sees.

Crops are a pure function of (seed, step). The position in the data is therefore the step number, and a resumed run sees
exactly what an undisturbed one would have seen.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from melcodec.audio.io import find_audio, is_audio
from melcodec.config import DataConfig, MelConfig
from melcodec.errors import MelcodecError
from melcodec.training.cache import MelCache

VALID_NAMES = ("valid", "validation", "val", "dev")
TRAIN_NAMES = ("train", "training")


@dataclass(frozen=True)
class Split:
    """Files to learn from and files to judge by, disjoint."""

    train: list[Path]
    valid: list[Path]


def find_split(sources: list[Path], valid_fraction: float) -> Split:
    """Audio under ``sources``, divided.

    A folder with ``train`` and ``valid`` (or ``dev``, ``val``) inside is taken at its word, and anything beside them
    (``test``) is left alone. Otherwise a share of the files is held out, at least one, chosen by a hash of their names,
    so that the choice hardly changes when files are added. A single file trains and nothing is held out.

    Raises:
        MelcodecError: nothing there, or no audio.
    """
    train: list[Path] = []
    valid: list[Path] = []
    rest: list[tuple[str, Path]] = []
    for source in sources:
        if not source.exists():
            raise MelcodecError(f"{source}: no such file or folder")
        if source.is_file():
            rest.append((source.name, source))
            continue
        trains = [source / name for name in TRAIN_NAMES if (source / name).is_dir()]
        valids = [source / name for name in VALID_NAMES if (source / name).is_dir()]
        if trains and valids:
            train += [path for folder in trains for path in find_audio(folder)]
            valid += [path for folder in valids for path in find_audio(folder)]
        else:
            rest += [(path.relative_to(source).as_posix(), path) for path in find_audio(source)]
    rest = [(name, path) for name, path in rest if is_audio(path)]
    count = min(len(rest) - 1, math.ceil(valid_fraction * len(rest))) if valid_fraction else 0
    ranked = sorted(rest, key=lambda item: hashlib.sha256(item[0].encode()).digest())
    held_out = {path for _, path in ranked[: max(0, count)]}
    train += [path for _, path in rest if path not in held_out]
    valid += sorted(held_out)
    if not train:
        raise MelcodecError(f"no audio files in {', '.join(map(str, sources))}", "wav, flac, mp3, ogg and opus are read")
    return Split(train, valid)


class Crops:
    """Random crops of a cached corpus.

    Every start at which a whole crop fits into a clip is equally likely. Consecutive clips that are shorter than a crop
    are joined until they hold one, so that short prompts train too and no crop is padded.

    Args:
        cache: the corpus.
        config: crop length, batch size, gain.
        mel: for its floor, below which gain cannot push.
        seed: of the crop choice.
    """

    def __init__(self, cache: MelCache, config: DataConfig, mel: MelConfig, seed: int) -> None:
        self.mels, self.config, self.seed = cache.mels, config, seed
        self.log_floor = math.log(mel.floor)
        spans = _spans(cache.starts, config.crop_frames)
        self.first = np.array([start for start, _ in spans], dtype=np.int64)
        # cumulative number of possible starts
        self.ends = np.cumsum([stop - start - config.crop_frames + 1 for start, stop in spans])

    def batch(self, step: int) -> Tensor:
        """The crops of ``step``: natural log-mel (B, M, crop_frames) float32."""
        rng = np.random.default_rng((self.seed, step))
        size, frames = self.config.batch_size, self.config.crop_frames
        draws = rng.integers(self.ends[-1], size=size)
        span = np.searchsorted(self.ends, draws, side="right")
        before = np.concatenate([[0], self.ends])[span]
        starts = self.first[span] + draws - before
        crops = np.stack([self.mels[start : start + frames] for start in starts]).astype(np.float32)
        if self.config.gain_db:
            # a gain of g dB moves log power by g ln(10) / 10
            gain = rng.uniform(-self.config.gain_db, self.config.gain_db, size=(size, 1, 1)) * math.log(10) / 10
            crops = np.maximum(crops + gain.astype(np.float32), np.float32(self.log_floor))
        return torch.from_numpy(crops).transpose(1, 2).contiguous()


def _spans(starts: np.ndarray, crop_frames: int) -> list[tuple[int, int]]:
    """Stretches of frames, each at least a crop long, from clip boundaries (F + 1,)."""
    spans = []
    joined: int | None = None  # where a run of too short clips began
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        begin = start if joined is None else joined
        if stop - start >= crop_frames:
            begin = start  # a long clip stands alone; the short run before it was too short for a crop
        if stop - begin >= crop_frames:
            spans.append((begin, stop))
            joined = None
        else:
            joined = begin
    if not spans:
        total = int(starts[-1])
        raise MelcodecError(
            f"the corpus holds {total} frames of speech, less than one crop of {crop_frames}",
            f"add recordings, or --set data.crop_frames={max(4, total // 4 * 4)}",
        )
    return spans
