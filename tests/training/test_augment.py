"""What augmentation does to mels, each setting by itself, on real speech and on spectra with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from melcodec.config import AugmentConfig, MelConfig
from melcodec.training.augment import DB, NOISE_DB, apply_changes, draw_changes

MEL = MelConfig()
FLOOR = math.log(MEL.floor)


def drawn(size: int = 64, seed: int = 0, changed: np.ndarray | None = None, **settings: float):
    changed = np.ones(size, bool) if changed is None else changed
    return draw_changes(AugmentConfig(**settings), np.random.default_rng(seed), changed, MEL.n_mels)


def band_hertz() -> np.ndarray:
    """Centres of the bands: even on the HTK scale."""
    top = 2595 * np.log10(1 + MEL.f_max / 700)
    return 700 * (10 ** (top * (1 + np.arange(MEL.n_mels)) / (MEL.n_mels + 1) / 2595) - 1)


def peaks(hertz: float) -> torch.Tensor:
    """A spectrum with one broad peak, as natural log power (1, M, 1)."""
    octaves = np.log2(band_hertz() / hertz)
    return torch.from_numpy(np.exp(-((octaves / 0.4) ** 2)).astype(np.float32))[None, :, None]


def peak_of(mel: torch.Tensor) -> float:
    weights = mel[0, :, 0].clamp(min=0.5).numpy() - 0.5
    return float(2 ** ((np.log2(band_hertz()) * weights).sum() / weights.sum()))


@pytest.mark.parametrize("factor", [1 / 1.18, 1.0, 1.18])
def test_a_warp_moves_a_formant_by_its_factor(factor):
    changes = drawn(1)
    changes.warp[:] = factor
    before, after = peaks(1500), apply_changes(peaks(1500), changes, MEL)
    assert peak_of(after) / peak_of(before) == pytest.approx(factor, rel=0.01)


def test_a_warp_keeps_both_ends_of_the_range():
    ramp = torch.linspace(-5, 0, MEL.n_mels)[None, :, None]
    for factor in (1 / 1.18, 1.18):
        changes = drawn(1)
        changes.warp[:] = factor
        after = apply_changes(ramp.clone(), changes, MEL)
        assert after[0, -1] == pytest.approx(0, abs=0.05)
        assert (after.diff(dim=1) >= 0).all()


def test_warps_are_within_their_range_and_as_often_up_as_down():
    warp = drawn(4000, band_warp=0.18).warp
    assert warp.min() > 1 / 1.18 - 1e-9
    assert warp.max() < 1.18 + 1e-9
    assert abs(np.log(warp).mean()) < 0.01


def test_gain_is_one_constant_and_equalisation_is_smooth():
    gain, tone = drawn(gain_db=6).curve, drawn(1000, equalize=0.35).curve
    assert (gain == gain[:, :1]).all()
    assert 5 * DB < abs(gain).max() <= 6 * DB
    assert tone.std() == pytest.approx(0.35 * math.sqrt(4 / 2), rel=0.1)  # four cosines, half their squares each
    assert np.abs(np.diff(tone, axis=1)).max() < 0.35 * 4 * 4 * 2 * math.pi * 3 / MEL.n_mels


def test_noise_lies_below_speech_where_it_was_drawn_and_fills_silence(golden):
    from melcodec.audio.mel import build_frontend
    from melcodec.config import xtts_mel_norms

    mel = build_frontend(MEL, xtts_mel_norms())(torch.from_numpy(golden["0.wav"])[None])
    quiet = torch.full_like(mel, FLOOR)
    quiet[..., : mel.shape[-1] // 2] = mel[..., : mel.shape[-1] // 2]
    changes = drawn(200, noise=0.2)
    noisy = np.isfinite(changes.noise[:, 0])
    assert 20 <= noisy.sum() <= 60
    row = int(np.flatnonzero(noisy)[0])
    after = apply_changes(quiet.clone(), changes.part(slice(row, row + 1)), MEL)
    added = after[..., mel.shape[-1] // 2 :].exp().mean() / quiet.exp().mean()
    assert NOISE_DB[0] - 2 < -10 * math.log10(added) < NOISE_DB[1] + 2
    still = int(np.flatnonzero(~noisy)[0])
    assert apply_changes(quiet, changes.part(slice(still, still + 1)), MEL) is quiet


def test_noise_is_the_same_in_every_part_of_a_batch():
    changes = drawn(8, noise=1.0)
    mel = torch.full((8, MEL.n_mels, 16), -4.0)
    whole = apply_changes(mel.clone(), changes, MEL)
    parts = [apply_changes(mel[i : i + 2].clone(), changes.part(slice(i, i + 2)), MEL) for i in range(0, 8, 2)]
    assert torch.cat(parts).equal(whole)
    assert not whole[0].equal(whole[1])


def test_crops_that_are_not_changed_stay_as_they_are():
    changed = np.arange(64) % 2 == 0
    changes = drawn(64, 0, changed, band_warp=0.18, equalize=0.35, gain_db=2, noise=1.0)
    mel = torch.randn(64, MEL.n_mels, 8, generator=torch.Generator().manual_seed(0)) - 4
    same = (apply_changes(mel.clone(), changes, MEL) == mel).all(dim=(1, 2)).numpy()
    assert (same == ~changed).all()


def test_nothing_falls_below_the_floor():
    changes = drawn(64, gain_db=6, equalize=1.0)
    assert apply_changes(torch.full((64, MEL.n_mels, 4), FLOOR), changes, MEL).min() == pytest.approx(FLOOR)
