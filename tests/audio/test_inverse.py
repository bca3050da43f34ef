import math

import pytest
import torch

from melcodec.audio.inverse import invert_mel
from melcodec.audio.mel import MelFrontend
from melcodec.config import xtts_mel_norms

FLOOR = 1e-5


@pytest.fixture(scope="module")
def frontend():
    return MelFrontend(xtts_mel_norms())


@pytest.fixture(scope="module")
def mel(frontend, golden):
    """(1, M, T) natural log-mel of real speech."""
    return frontend(torch.from_numpy(golden["0.wav"])[None])


def error(power, mel, frontend):
    """Mean |difference| in natural log-mel power after the filter bank has been applied again."""
    again = (power.transpose(1, 2) @ frontend.filters).transpose(1, 2).clamp(min=FLOOR).log()
    return (again - mel).abs().mean().item()


def test_comes_back_through_the_filter_bank(frontend, mel):
    power = invert_mel(mel, frontend.filters, FLOOR, 20)
    assert power.shape == (1, 513, mel.shape[-1])
    assert power.isfinite().all()
    assert (power >= 0).all()
    assert error(power, mel, frontend) < 0.05


def test_beats_the_pseudo_inverse(frontend, mel):
    pseudo = (torch.linalg.pinv(frontend.filters.T) @ mel.exp()).clamp(min=0)
    assert error(invert_mel(mel, frontend.filters, FLOOR, 20), mel, frontend) < 0.5 * error(pseudo, mel, frontend)


def test_every_iteration_counts(frontend, mel):
    errors = [error(invert_mel(mel, frontend.filters, FLOOR, n), mel, frontend) for n in (0, 5, 20, 80)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[2]


def test_bins_that_no_filter_reaches_are_empty(frontend, mel):
    power = invert_mel(mel, frontend.filters, FLOOR, 20)
    hertz = torch.arange(513) * 22_050 / 1024
    assert (power[:, hertz >= 8_000] == 0).all()
    assert power[:, (hertz > 100) & (hertz < 7_900)].mean() > 0


def test_the_floor_is_silence(frontend):
    floor = torch.full((1, 80, 7), math.log(FLOOR))
    assert (invert_mel(floor, frontend.filters, FLOOR, 20) == 0).all()
    assert (invert_mel(floor, frontend.filters, FLOOR / 10, 20) > 0).any()


def test_a_batch_equals_its_items(frontend, mel):
    batch = torch.cat([mel, mel.flip(-1)])
    alone = torch.cat([invert_mel(item[None], frontend.filters, FLOOR, 20) for item in batch])
    torch.testing.assert_close(invert_mel(batch, frontend.filters, FLOOR, 20), alone)
