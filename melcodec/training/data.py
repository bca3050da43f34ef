"""From a cached corpus to batches: which crops a step sees, and what is done to them.

Crops are a pure function of (seed, step). The position in the data is therefore the step number, a resumed run sees
exactly what an undisturbed one would have seen, and every process of a run knows the whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melcodec.config import RunConfig
from melcodec.errors import MelcodecError
from melcodec.training.augment import Changes, apply_changes, draw_changes
from melcodec.training.cache import MelCache

MEMORY_SHARE = 0.5  # of what a GPU has free, that a corpus may take there


@dataclass(frozen=True)
class Draw:
    """The crops of a step, B of them, in order.

    clips (B,): which entry of the cache; first (B,): its first row there; taken (B,): rows; lengths (B,): frames they
    become, crop_frames unless the clip is shorter; flipped (B,) bool; changes: of sound, see ``augment``; masks (B, n, 4):
    stripes hidden from the encoder, from band, to band, from frame, to frame.
    """

    clips: np.ndarray
    first: np.ndarray
    taken: np.ndarray
    lengths: np.ndarray
    flipped: np.ndarray
    changes: Changes
    masks: np.ndarray

    def part(self, part: slice) -> Draw:
        """Some of the crops."""
        values: list[Any] = [getattr(self, each.name) for each in fields(self)]
        parts: list[Any] = [value.part(part) if isinstance(value, Changes) else value[part] for value in values]
        return Draw(*parts)


@dataclass(frozen=True)
class Batch:
    """What a model is given and what it should give back.

    mel (B, M, crop_frames): natural log-mel, the target; lengths (B,): real frames, None when all crops are whole; seen
    (B, M, crop_frames): what the encoder gets, ``mel`` itself unless stripes of it are hidden.
    """

    mel: Tensor
    lengths: Tensor | None
    seen: Tensor


class Crops:
    """Random crops of a cached corpus.

    A clip is drawn in proportion to its length, or as ``data.speaker_power`` says, then a start within it. A clip that is
    shorter than a crop is taken whole, padded, and masked from there on.

    Args:
        cache: the corpus.
        config: of the run; ``data``, ``augment``, ``train.seed`` and ``model.mel`` are read.
        device: where batches are wanted.
        speakers: (F,) a name for each entry of the cache; empty names, and None, are one speaker.
    """

    def __init__(self, cache: MelCache, config: RunConfig, device: torch.device, speakers: Sequence[str] | None = None) -> None:
        self.cache, self.config, self.device = cache, config, device
        if len(cache.mels) == 0:
            raise MelcodecError("the corpus holds no frame of speech")
        self.bounds = np.cumsum(clip_weights(cache.lengths, speakers, config.data.speaker_power))
        self.mels = torch.from_numpy(cache.mels)
        if wants_on_device(config.data.on_device, self.mels.numel() * self.mels.element_size(), device):
            self.mels = self.mels.to(device)

    def draw(self, step: int) -> Draw:
        """The crops of ``step``, over all processes."""
        data, augment = self.config.data, self.config.augment
        rng = np.random.default_rng((self.config.train.seed, step))
        size, frames = data.batch_size, data.crop_frames
        starts = self.cache.starts
        clips = np.searchsorted(self.bounds, rng.random(size) * self.bounds[-1], side="right")
        changed = rng.random(size) < augment.probability
        wanted = np.full(size, frames)
        if augment.time_scale:
            factor = np.where(changed, rng.uniform(1 - augment.time_scale, 1 + augment.time_scale, size), 1.0)
            wanted = np.maximum(1, np.rint(frames * factor)).astype(int)
        room = starts[clips + 1] - starts[clips]
        taken = np.minimum(wanted, room)
        first = starts[clips] + (rng.random(size) * (room - taken + 1)).astype(np.int64)
        lengths = np.maximum(1, np.rint(taken * frames / wanted)).astype(np.int64)
        flipped = rng.random(size) < augment.time_flip if augment.time_flip else np.zeros(size, bool)
        changes = draw_changes(augment, rng, changed, self.config.model.mel.n_mels)
        return Draw(clips, first, taken, lengths, flipped, changes, self._masks(rng))

    def _masks(self, rng: np.random.Generator) -> np.ndarray:
        """Stripes to hide (B, n, 4), as in Park et al. 2019, "SpecAugment": any width up to the largest, anywhere."""
        augment, size = self.config.augment, self.config.data.batch_size
        bands, frames = self.config.model.mel.n_mels, self.config.data.crop_frames
        masks = np.zeros((size, augment.band_masks + augment.time_masks, 4), np.int64)
        masks[:, :, 1], masks[:, :, 3] = bands, frames
        for index in range(masks.shape[1]):
            along_time = index >= augment.band_masks
            most, extent = (augment.time_mask_size, frames) if along_time else (augment.band_mask_size, bands)
            width = rng.integers(min(most, extent) + 1, size=size)
            begin = (rng.random(size) * (extent - width + 1)).astype(np.int64)
            masks[:, index, 2 * along_time], masks[:, index, 2 * along_time + 1] = begin, begin + width
        return masks

    def batch(self, draw: Draw) -> Batch:
        """The mels of ``draw``, on the device."""
        frames = self.config.data.crop_frames
        position = np.minimum(np.arange(frames), draw.lengths[:, None] - 1)  # (B, crop_frames); the padding repeats
        position = np.where(draw.flipped[:, None], draw.lengths[:, None] - 1 - position, position)
        # from the middle of an output frame to a place among the rows
        place = (position + 0.5) * (draw.taken / draw.lengths)[:, None] - 0.5
        low = np.clip(np.floor(place), 0, draw.taken[:, None] - 1).astype(np.int64)
        mel = self._rows(draw.first[:, None] + low)
        if self.config.augment.time_scale:
            high = np.minimum(low + 1, draw.taken[:, None] - 1)
            weight = torch.from_numpy(np.clip(place - low, 0, 1).astype(np.float32)).to(self.device)[..., None]
            mel = torch.lerp(mel, self._rows(draw.first[:, None] + high), weight)
        mel = apply_changes(mel.transpose(1, 2).contiguous(), draw.changes, self.config.model.mel)
        whole = (draw.lengths == frames).all()
        lengths = None if whole else torch.from_numpy(draw.lengths).to(self.device)
        return Batch(mel, lengths, self._hidden(mel, draw.masks))

    def _rows(self, rows: np.ndarray) -> Tensor:
        """rows (B, T) of the cache -> (B, T, M) float32 on the device."""
        index = torch.from_numpy(rows).to(self.mels.device)
        return self.mels[index].to(self.device, non_blocking=True).float()

    def _hidden(self, mel: Tensor, masks: np.ndarray) -> Tensor:
        """``mel`` with the stripes ``masks`` (B, n, 4) at each crop's own mean."""
        if masks.shape[1] == 0:
            return mel
        bounds = torch.from_numpy(masks).to(mel.device)[..., None]  # (B, n, 4, 1)
        band = torch.arange(mel.shape[1], device=mel.device)
        frame = torch.arange(mel.shape[2], device=mel.device)
        in_band = (band >= bounds[:, :, 0]) & (band < bounds[:, :, 1])  # (B, n, M)
        in_frame = (frame >= bounds[:, :, 2]) & (frame < bounds[:, :, 3])  # (B, n, T)
        hidden = (in_band[..., None] & in_frame[:, :, None]).any(1)
        return torch.where(hidden, mel.mean((1, 2), keepdim=True), mel)

    def sources(self, draw: Draw) -> list[str]:
        """Names of the clips of ``draw``, each once."""
        return list(dict.fromkeys(self.cache.ids[clip] for clip in draw.clips.tolist()))


def clip_weights(lengths: np.ndarray, speakers: Sequence[str] | None, power: float) -> np.ndarray:
    """How often each clip is drawn, relative to the others.

    Args:
        lengths: (F,) frames of each clip.
        speakers: (F,) speaker of each file; None when none is known.
        power: a speaker with L frames in all is drawn in proportion to L ** power, each of its clips to its share of L.

    Returns:
        (F,) float64.
    """
    if speakers is None or power == 1:
        return lengths.astype(np.float64)
    _, speaker = np.unique(np.asarray(speakers, dtype=object).astype(str), return_inverse=True)
    totals = np.bincount(speaker, weights=lengths)
    return lengths * np.maximum(totals, 1)[speaker] ** (power - 1)


def identity(cache: MelCache) -> str:
    """What a run belongs to: 16 hex digits over the names and lengths of what is in ``cache``, left-out files apart."""
    digest = hashlib.sha256(np.ascontiguousarray(cache.starts, np.int64).tobytes())
    for name in cache.ids:
        digest.update(name.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def wants_on_device(setting: str, size: int, device: torch.device) -> bool:
    """Whether ``size`` bytes of mels should live on ``device``."""
    if device.type != "cuda" or setting == "never":
        return False
    return setting == "always" or size < MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
