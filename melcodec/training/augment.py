"""Augmentations of mel crops: what is drawn for a step, and how it changes the crops.

Everything acts on natural log-mel power, so that the cached mels of a corpus serve every setting. The draws are NumPy
arrays with one row for each crop, a pure function of the generator they come from; applying them is done in torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from melcodec.config import AugmentConfig, MelConfig

DB = math.log(10) / 10  # natural log power of one decibel
COSINES, MOST_PERIODS = 4, 3.0  # of a random equalisation curve: its cosines, and their periods over all bands
WARP_EDGE = 0.75  # share of the frequency range below which warping is proportional: 6 of 8 kHz
NOISE_DB = (15.0, 45.0)  # how far below the mean power of a crop its noise floor lies
NOISE_TILT = 3.0  # natural log power by which the floor falls at most from the lowest band to the highest
BINS_PER_BAND = 3  # independent values that one band of noise averages, which sets how much it fluctuates


@dataclass(frozen=True)
class Changes:
    """What happens to each of B crops of M bands.

    warp (B,): factor of every frequency; curve (B, M): added to the natural log power, level and equalisation together;
    noise (B, M): natural log power of the noise floor relative to the crop's mean power, -inf where there is none;
    seeds (B,): of the noise.
    """

    warp: np.ndarray
    curve: np.ndarray
    noise: np.ndarray
    seeds: np.ndarray

    def part(self, part: slice) -> Changes:
        """Some of the crops."""
        return Changes(*(getattr(self, each.name)[part] for each in fields(self)))


def draw_changes(augment: AugmentConfig, rng: np.random.Generator, changed: np.ndarray, n_mels: int) -> Changes:
    """Draw for the crops that are ``changed`` (B,) bool; the others stay as they are."""
    size = len(changed)
    # log-uniform, so that a factor and its inverse are equally likely
    warp = np.exp(rng.uniform(-1, 1, size) * math.log1p(augment.band_warp)) if augment.band_warp else np.ones(size)
    decibels = rng.uniform(-augment.gain_db, augment.gain_db, (size, 1)) if augment.gain_db else np.zeros((size, 1))
    curve = np.broadcast_to(decibels * DB, (size, n_mels))
    if augment.equalize:
        amplitude = rng.normal(0, augment.equalize, (size, COSINES, 1))
        periods, phase = rng.uniform(0, MOST_PERIODS, (size, COSINES, 1)), rng.uniform(0, 1, (size, COSINES, 1))
        place = np.arange(n_mels) / n_mels
        curve = curve + (amplitude * np.cos(2 * math.pi * (periods * place + phase))).sum(1)
    noise, seeds = np.full((size, n_mels), -np.inf), np.zeros(size, np.int64)
    if augment.noise:
        noisy = changed & (rng.random(size) < augment.noise)
        level = -rng.uniform(*NOISE_DB, (size, 1)) * DB
        tilt = rng.uniform(0, NOISE_TILT, (size, 1)) * np.linspace(0.5, -0.5, n_mels)
        noise = np.where(noisy[:, None], level + tilt, -np.inf)
        seeds = rng.integers(1 << 62, size=size)
    return Changes(np.where(changed, warp, 1.0), np.where(changed[:, None], curve, 0.0), noise, seeds)


def apply_changes(mel: Tensor, changes: Changes, config: MelConfig) -> Tensor:
    """Natural log-mel (B, M, T) -> the same shape; what is changed does not fall below the mel's floor."""
    noisy = np.flatnonzero(np.isfinite(changes.noise[:, 0])).tolist()
    if (changes.warp == 1).all() and not changes.curve.any() and not noisy:
        return mel
    if (changes.warp != 1).any():
        mel = _warped(mel, changes.warp, config)
    if changes.curve.any():
        mel = mel + torch.from_numpy(changes.curve.astype(np.float32)).to(mel.device)[..., None]
    for row in noisy:
        mel[row] = torch.logaddexp(mel[row], _noise(mel[row], changes.noise[row], int(changes.seeds[row])))
    return mel.clamp(min=math.log(config.floor))


def _warped(mel: Tensor, warp: np.ndarray, config: MelConfig) -> Tensor:
    """Every band reads what stood at its frequency divided by the factor: vocal tract length perturbation.

    Source: Jaitly & Hinton 2013, "Vocal Tract Length Perturbation (VTLP) improves speech recognition". Frequencies are
    proportional up to ``WARP_EDGE`` of the range and then linear, so that the end of the range stays in place.
    """
    lowest, highest = _htk(np.array([config.f_min, config.f_max]))
    step = (highest - lowest) / (config.n_mels + 1)
    hertz = 700 * (10 ** ((lowest + step * (1 + np.arange(config.n_mels))) / 2595) - 1)
    edge = WARP_EDGE * config.f_max / np.maximum(warp, 1)[:, None]  # in the source, as its image lies within the range too
    image = edge * warp[:, None]
    above = edge + (hertz - image) * (config.f_max - edge) / (config.f_max - image)
    source = np.where(hertz <= image, hertz / warp[:, None], above)
    place = np.clip((_htk(source) - lowest) / step - 1, 0, config.n_mels - 1)  # (B, M), in bands
    low = np.minimum(np.floor(place), config.n_mels - 2).astype(np.int64)
    index = torch.from_numpy(low).to(mel.device)[..., None].expand_as(mel)
    weight = torch.from_numpy((place - low).astype(np.float32)).to(mel.device)[..., None]
    return torch.lerp(mel.gather(1, index), mel.gather(1, index + 1), weight)


def _htk(hertz: np.ndarray) -> np.ndarray:
    """Frequencies on the HTK mel scale, where the bands stand evenly."""
    return 2595 * np.log10(1 + hertz / 700)


def _noise(mel: Tensor, floor: np.ndarray, seed: int) -> Tensor:
    """Natural log power (M, T) of Gaussian noise around ``floor`` (M,), relative to the mean power of ``mel`` (M, T)."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
    values = torch.randn(2 * BINS_PER_BAND, *mel.shape, generator=generator).square_().mean(0).clamp(min=1e-6)
    level = torch.from_numpy(floor.astype(np.float32)).to(mel.device)[:, None] + mel.exp().mean().log()
    return level + values.log().to(mel.device)
