"""The XTTS stack: how far it sees, padding, and the build."""

from __future__ import annotations

import copy

import pytest
import torch

from melcodec.config import ConvConfig
from melcodec.nn.base import Reach
from melcodec.nn.build import build_backbone
from melcodec.nn.conv import ConvEncoder

M, D = 80, 8


@pytest.fixture(scope="module")
def model(tiny_model):
    """In float64, so that what cannot change does not change at all and what can does."""
    return copy.deepcopy(tiny_model).double()


@pytest.fixture(scope="module")
def speech(golden) -> torch.Tensor:
    """(1, 80, 154) normalised."""
    return torch.from_numpy(golden["0.mel"])[None].double()


def changed(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Positions on the last axis where anything differs."""
    return (before != after).any(dim=1)[0].nonzero()[:, 0].tolist()


def test_reach_of_three_blocks():
    backbone = build_backbone(ConvConfig(hidden=4), M, D)
    assert (backbone.encoder.reach, backbone.decoder.reach, backbone.stride) == (Reach(27, 27), Reach(7, 7), 4)


def linear(stack: torch.nn.Module) -> torch.nn.Module:
    """A copy without ReLU and with positive weights: every input that can reach an output does, and none cancels."""
    stack = copy.deepcopy(stack).double()
    for module in stack.modules():
        if hasattr(module, "inplace"):
            module.forward = lambda x: x
    for parameter in stack.parameters():
        parameter.data.abs_().add_(1e-3)
    return stack


@pytest.mark.parametrize("num_blocks", [0, 1, 3])
def test_reach_is_exact(num_blocks):
    backbone = build_backbone(ConvConfig(hidden=4, num_blocks=num_blocks), M, D)
    halo, t = backbone.encoder.reach.halo, 12
    encoder, mel = linear(backbone.encoder), torch.zeros(1, M, 100, dtype=torch.float64)
    latents = encoder(mel)
    for offset, expected in ((-halo - 1, False), (-halo, True), (halo, True), (halo + 1, False)):
        poked = mel.clone()
        poked[..., 4 * t + offset] = 1e6
        assert (t in changed(latents, encoder(poked))) == expected, offset
    decoder, codes = linear(backbone.decoder), torch.zeros(1, D, 30, dtype=torch.float64)
    frames, halo = decoder(codes), backbone.decoder.reach.halo
    for code in (t - halo - 1, t - halo, t + halo, t + halo + 1):
        poked = codes.clone()
        poked[..., code] = 1e6
        seen = set(changed(frames, decoder(poked)))
        assert bool(seen & set(range(4 * t, 4 * t + 4))) == (abs(code - t) <= halo), code


def test_trained_weights_see_no_further_than_the_reach(model, speech):
    latents = model.encoder(speech)
    for frame in (0, 53, 80, 153):
        poked = speech.clone()
        poked[..., frame] += 10
        assert all(abs(4 * t - frame) <= 27 for t in changed(latents, model.encoder(poked)))
    frames = model.decoder(latents)
    for code in (0, 17, 38):
        poked = latents.clone()
        poked[..., code] += 10
        assert all(abs(frame // 4 - code) <= 7 for frame in changed(frames, model.decoder(poked)))


@pytest.mark.parametrize("num_blocks", [0, 2])
def test_num_blocks_and_hidden_shape_the_stack(num_blocks):
    backbone = build_backbone(ConvConfig(hidden=6, num_blocks=num_blocks), n_mels=5, dim=7)
    assert len(backbone.encoder) == len(backbone.decoder) - 1 == 3 + num_blocks
    assert backbone.encoder[0][0].weight.shape == (6, 5, 3)
    assert backbone.encoder[1][0].weight.shape == (12, 6, 3)
    assert backbone.encoder(torch.zeros(2, 5, 9)).shape == (2, 7, 3)
    assert backbone.decoder(torch.zeros(2, 7, 3)).shape == (2, 5, 12)


def test_padding_is_zeroed_after_every_convolution():
    """What lies past the end of an item may be anything."""
    torch.manual_seed(0)
    encoder = ConvEncoder(M, 4, D, 1).double()
    mel, lengths = torch.randn(2, M, 40, dtype=torch.float64), torch.tensor([40, 21])
    clean = encoder(mel, lengths)
    mel[1, :, 21:] = 1e9
    assert torch.equal(encoder(mel, lengths), clean)
    assert clean[1, :, 6:].abs().max() == 0  # ceil(21 / 4) = 6
    torch.testing.assert_close(clean[1:, :, :6], encoder(mel[1:, :, :21]))
