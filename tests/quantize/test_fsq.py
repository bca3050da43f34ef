"""Finite scalar quantization against the paper's own example and the package vector-quantize-pytorch."""

from __future__ import annotations

import pytest
import torch

from melcodec.config import FSQConfig, LibraryConfig
from melcodec.quantize.build import build_quantizer


def test_the_example_of_the_paper():
    """Appendix A.1: levels 3, 5, 4 turn (0.25, 0.6, -7) into (0, 0.5, -1), which is codeword 10 of 60."""
    quantizer = build_quantizer(FSQConfig(levels=(3, 5, 4)), 3)
    assert quantizer.sizes == (60,)
    rounded = quantizer.bounded(torch.tensor([0.25, 0.6, -7.0])[None, :, None]).round()
    assert (rounded[0, :, 0] / torch.tensor([1, 2, 2])).tolist() == [0, 0.5, -1]
    assert quantizer.indices(rounded).tolist() == [[[10]]]
    assert torch.equal(quantizer.values(torch.tensor([[[10]]])), rounded)


@pytest.mark.parametrize("levels", [(3,), (4, 3), (8, 5, 5, 5), (7, 5, 5, 5, 5)])
def test_every_level_is_reached_and_every_code_comes_back(levels):
    quantizer = build_quantizer(FSQConfig(levels=levels), 4)
    codes = torch.arange(quantizer.sizes[0])[None, None]
    values = quantizer.values(codes)
    assert torch.equal(quantizer.indices(values), codes)
    assert len(torch.unique(values[0].T, dim=0)) == quantizer.sizes[0]
    far = quantizer.bounded(torch.linspace(-9, 9, 2001).expand(1, len(levels), -1)).round()[0]
    assert [len(channel.unique()) for channel in far] == list(levels)
    assert quantizer.bounded(torch.zeros(1, len(levels), 1)).abs().max() < 1e-6


def test_beyond_65536_codewords_there_are_several_codebooks():
    assert FSQConfig(levels=(8, 8, 8, 5, 5, 5)).sizes == (64_000,)
    assert FSQConfig(levels=(256, 256)).sizes == (65_536,)
    assert FSQConfig(levels=(256, 256, 3)).sizes == (65_536, 3)
    assert FSQConfig(levels=(16,) * 9).sizes == (65_536, 65_536, 16)


def test_rounding_hands_the_gradient_to_what_was_rounded():
    quantizer = build_quantizer(FSQConfig(levels=(8, 5)), 4)
    latents = torch.randn(2, 4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(quantizer(latents).latents.sum(), latents)
    smooth = quantizer._expand(quantizer._project(latents))
    (expected,) = torch.autograd.grad(smooth.sum(), latents)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("levels", [(4, 3), (8, 5, 5, 5), (7, 6, 5)])
def test_the_library_gives_the_same_codes_and_values(levels):
    pytest.importorskip("vector_quantize_pytorch")
    ours = build_quantizer(FSQConfig(levels=levels), 6)
    theirs = build_quantizer(LibraryConfig(module="FSQ", levels=levels), 6)
    for name, convolution in (("project_in", ours.into), ("project_out", ours.out)):
        linear = getattr(theirs.module, name)
        linear.weight.data, linear.bias.data = convolution.weight.data[..., 0] * 3, convolution.bias.data * 3
        convolution.weight.data, convolution.bias.data = convolution.weight.data * 3, convolution.bias.data * 3
    latents = torch.randn(4, 6, 50)
    codes = ours.encode(latents)
    assert len(codes.unique()) > 5
    assert torch.equal(theirs.encode(latents), codes)
    torch.testing.assert_close(theirs.decode(codes), ours.decode(codes))
    torch.testing.assert_close(theirs(latents).latents, ours(latents).latents)
