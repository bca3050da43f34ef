"""vector-quantize-pytorch through the adapter, and ours beside it."""

from __future__ import annotations

import sys

import pytest
import torch

from melcodec.config import EMAConfig, LibraryConfig, ResidualConfig, parse
from melcodec.errors import MelcodecError
from melcodec.quantize.build import build_quantizer

D = 6


def test_without_the_package_it_is_refused_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(MelcodecError, match="needs the package vector-quantize-pytorch") as refused:
        build_quantizer(LibraryConfig(), D)
    assert refused.value.hint == 'pip install "melcodec[library]"'


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"module": "FSQ", "decay": 0.9}, "decay is not a setting of FSQ, which has levels"),
        ({"levels": (5, 5)}, "levels is not a setting of VectorQuantize, which has codebook_size, decay, kmeans"),
        ({"module": "LFQ", "codebook_size": 1000}, "codebook_size 1000: LFQ needs a power of 2"),
        ({"module": "FSQ", "levels": (300, 300)}, "levels .300, 300.: more than 65,536 codewords"),
    ],
)
def test_settings_that_a_module_does_not_have_are_refused(settings, message):
    with pytest.raises(MelcodecError, match=message):
        parse(LibraryConfig, settings, "here")


def test_it_is_no_part_of_a_residual_quantizer_with_dropout():
    with pytest.raises(MelcodecError, match="dropout cannot be combined with"):
        parse(ResidualConfig, {"dropout": 0.5, "inner": {"kind": "library"}}, "here")


@pytest.fixture
def package():
    return pytest.importorskip("vector_quantize_pytorch")


def copied(codebook, part) -> None:
    """Set our ``codebook`` to the codewords and averages of theirs."""
    codebook.embed.copy_(part.embed[0].T)
    codebook.embed_avg.copy_(part.embed_avg[0].T)
    codebook.cluster_size.copy_(part.cluster_size[0])


def test_ema_and_vector_quantize_agree(package):
    """Codes, quantised latents, commitment, and the codewords after three steps."""
    theirs = build_quantizer(LibraryConfig(codebook_size=16, decay=0.9), D).train()
    ours = build_quantizer(EMAConfig(codebook_size=16, decay=0.9), D).train()
    part = theirs.module._codebook
    part.embed.normal_()
    theirs.forget_training()
    copied(ours, part)
    for seed in range(3):
        latents = torch.randn(3, D, 20, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(theirs.encode(latents), ours.encode(latents))
        one, other = theirs(latents), ours(latents)
        ours.update([other.moments], seed, torch.Generator())
        assert torch.equal(one.codes, other.codes)
        torch.testing.assert_close(one.latents, other.latents, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.losses["commitment"], other.losses["commitment"])
        torch.testing.assert_close(part.embed[0].T, ours.embed, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(theirs.decode(one.codes), ours.decode(one.codes), atol=1e-5, rtol=1e-4)


def test_residual_and_residual_vq_agree(package):
    theirs = build_quantizer(LibraryConfig(module="ResidualVQ", codebook_size=16, num_quantizers=3), D).eval()
    ours = build_quantizer(ResidualConfig(stages=3, inner=EMAConfig(codebook_size=16)), D).eval()
    for layer, stage in zip(theirs.module.layers, ours.members, strict=True):
        copied(stage, layer._codebook)
    latents = torch.randn(3, D, 20) / 3
    codes = ours.encode(latents)
    assert torch.equal(theirs.encode(latents), codes)
    for fewer in (1, 2, 3):
        torch.testing.assert_close(theirs.decode(codes[:, :fewer]), ours.decode(codes[:, :fewer]))


def test_its_settings_reach_the_package(package):
    grouped = build_quantizer(
        LibraryConfig(module="GroupedResidualVQ", codebook_size=16, num_quantizers=3, groups=2, decay=0.7, kmeans=True), D
    )
    assert [len(each.layers) for each in grouped.module.rvqs] == [3, 3]
    assert {(part.decay, part.codebook_size, bool(part.initted)) for part in grouped._codebooks()} == {(0.7, 16, False)}
    grouped.start(torch.randn(200, D), torch.Generator().manual_seed(0), 30)
    assert all(part.initted for part in grouped._codebooks())
    with pytest.raises(MelcodecError, match="6 channels do not make 4 equal groups"):
        build_quantizer(LibraryConfig(module="GroupedResidualVQ", groups=4), D)


def test_it_learns_in_training_only_and_from_real_positions_only(package):
    theirs = build_quantizer(LibraryConfig(codebook_size=8), D).train()
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    latents = torch.randn(2, D, 10)
    theirs.encode(latents)
    theirs.eval()(latents)
    assert all(torch.equal(value, before[name]) for name, value in theirs.state_dict().items())
    passed = theirs.train()(latents, torch.tensor([10, 3]))
    assert passed.moments is None
    assert passed.latents[1, :, 3:].abs().max() == 0
    counts = theirs.module._codebook.cluster_size[0] - 0.8 * before["module._codebook.cluster_size"][0]
    assert counts.sum().item() == pytest.approx(0.2 * 13, rel=1e-4)
