"""From a cached corpus to batches: which crops a step sees, and what is done to them.

Crops are a pure function of (seed, step). The position in the data is therefore the step number, a resumed run sees
exactly what an undisturbed one would have seen, and every process of a run knows the whole batch.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from melcodec.config import RunConfig
from melcodec.errors import MelcodecError
from melcodec.training.cache import MelCache

MEMORY_SHARE = 0.5  # of what a GPU has free, that a corpus may take there


@dataclass(frozen=True)
class Draw:
    """The crops of a step, B of them, in order.

    clips (B,): which entry of the cache; first (B,): its first row there; taken (B,): rows; lengths (B,): frames they
    become, crop_frames unless the clip is shorter; flipped (B,) bool; gain (B,): in natural log power.
    """

    clips: np.ndarray
    first: np.ndarray
    taken: np.ndarray
    lengths: np.ndarray
    flipped: np.ndarray
    gain: np.ndarray
    masks: np.ndarray  # (B, n, 4): from band, to band, from frame, to frame

    def part(self, part: slice) -> Draw:
        """Some of the crops."""
        return Draw(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


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

    A clip is drawn in proportion to its length, then a start within it. A clip that is shorter than a crop is taken
    whole, padded, and masked from there on.

    Args:
        cache: the corpus.
        config: of the run; ``data``, ``augment``, ``train.seed`` and the mel floor are read.
        device: where batches are wanted.
    """

    def __init__(self, cache: MelCache, config: RunConfig, device: torch.device) -> None:
        self.cache, self.config, self.device = cache, config, device
        self.log_floor = math.log(config.model.mel.floor)
        if len(cache.mels) == 0:
            raise MelcodecError("the corpus holds no frame of speech")
        self.mels = torch.from_numpy(cache.mels)
        if wants_on_device(config.data.on_device, self.mels.numel() * self.mels.element_size(), device):
            self.mels = self.mels.to(device)

    def draw(self, step: int) -> Draw:
        """The crops of ``step``, over all processes."""
        data, augment = self.config.data, self.config.augment
        rng = np.random.default_rng((self.config.train.seed, step))
        size, frames = data.batch_size, data.crop_frames
        starts = self.cache.starts
        clips = np.searchsorted(starts, rng.integers(starts[-1], size=size), side="right") - 1
        wanted = np.full(size, frames)
        if augment.time_scale:
            wanted = np.maximum(1, np.rint(frames * rng.uniform(1 - augment.time_scale, 1 + augment.time_scale, size))).astype(
                int
            )
        room = starts[clips + 1] - starts[clips]
        taken = np.minimum(wanted, room)
        first = starts[clips] + (rng.random(size) * (room - taken + 1)).astype(np.int64)
        lengths = np.maximum(1, np.rint(taken * frames / wanted)).astype(np.int64)
        flipped = rng.random(size) < augment.time_flip if augment.time_flip else np.zeros(size, bool)
        # a gain of g dB moves log power by g ln(10) / 10
        decibels = rng.uniform(-augment.gain_db, augment.gain_db, size) if augment.gain_db else np.zeros(size)
        return Draw(clips, first, taken, lengths, flipped, decibels * math.log(10) / 10, self._masks(rng))

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
        if self.config.augment.gain_db:
            gain = torch.from_numpy(draw.gain.astype(np.float32)).to(self.device)
            mel = (mel + gain[:, None, None]).clamp(min=self.log_floor)
        mel = mel.transpose(1, 2).contiguous()
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
