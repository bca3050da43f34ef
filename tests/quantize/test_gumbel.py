"""The straight-through Gumbel softmax: its draws, its temperature, its divergence."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from melcodec.config import GumbelConfig, ObjectiveConfig
from melcodec.objective.build import Objective
from melcodec.quantize.build import build_quantizer

CONFIG = GumbelConfig(codebook_size=5, temperature=2.0, final_temperature=0.5, anneal_steps=4)


def quantizer():
    torch.manual_seed(0)
    return build_quantizer(CONFIG, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_codes_are_drawn_from_the_softmax_of_the_logits():
    gumbel = quantizer().train()
    latents = 3 * torch.randn(1, 3, 1, generator=seeded()).expand(1, 3, 20_000)
    counts = gumbel(latents, None, seeded()).codes.flatten().bincount(minlength=5)
    expected = gumbel.logits(latents[..., :1]).softmax(1).flatten()
    torch.testing.assert_close(counts / 20_000, expected.detach(), atol=0.015, rtol=0)
    assert gumbel.eval()(latents).codes.unique().tolist() == [int(expected.argmax())]


def test_the_generator_decides():
    gumbel, latents = quantizer().train(), torch.randn(2, 3, 20)
    drawn = [gumbel(latents, None, seeded(seed)).codes for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_forward_gives_codewords_and_the_gradient_of_the_softmax():
    gumbel, latents = quantizer().train(), torch.randn(2, 3, 7, requires_grad=True)
    passed = gumbel(latents, None, seeded())
    torch.testing.assert_close(passed.latents, gumbel.decode(passed.codes))
    upstream = torch.randn(2, 3, 7)
    (gradient,) = torch.autograd.grad(passed.latents, latents, upstream)
    uniform = torch.rand(2, 5, 7, generator=seeded())
    soft = ((gumbel.logits(latents) - (-uniform.log()).log()) / 2.0).softmax(1)  # at the temperature of the first step
    (expected,) = torch.autograd.grad(torch.einsum("dk,bkn->bdn", gumbel.embed, soft), latents, upstream)
    torch.testing.assert_close(gradient, expected)


def test_the_temperature_falls_by_the_same_factor_in_each_step():
    gumbel, found = quantizer(), []
    for step in range(6):
        found.append(gumbel.update([None], step, seeded())["temperature"].item())
    assert found == pytest.approx([2 * 0.25 ** (n / 4) for n in (1, 2, 3, 4, 4, 4)])
    assert gumbel.temperature.item() == 0.5
    gumbel.forget_training()
    assert gumbel.temperature.item() == 2
    assert gumbel.training_only == {"temperature"}


def test_divergence_from_the_uniform_distribution():
    gumbel, latents = quantizer(), torch.randn(2, 3, 6)
    p = gumbel.logits(latents).softmax(1)
    expected = (p * (p * 5).log()).sum(1)
    torch.testing.assert_close(gumbel(latents).losses["kl"], expected.mean())
    lengths = torch.tensor([6, 2])
    real = torch.cat([expected[0], expected[1, :2]])
    torch.testing.assert_close(gumbel(latents, lengths).losses["kl"], real.mean())
    gumbel.logits.weight.data.zero_()
    gumbel.logits.bias.data = torch.tensor([100.0, 0, 0, 0, 0])
    assert gumbel(latents).losses["kl"].item() == pytest.approx(math.log(5))
    gumbel.logits.bias.data.zero_()
    assert gumbel(latents).losses["kl"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("weight", "expected"), [(5e-4, 5e-4), (2.0, 2.0)])
def test_its_weight_in_the_loss(weight, expected):
    assert ObjectiveConfig().kl == 5e-4
    total = Objective(ObjectiveConfig(kl=weight), torch.ones(80)).total({"kl": torch.tensor(1.0)})
    assert total.item() == pytest.approx(expected)


def test_codewords_by_hand():
    gumbel, codes = quantizer(), torch.tensor([[[4, 0, 2]]])
    assert torch.equal(gumbel.decode(codes)[0].T, F.embedding(codes[0, 0], gumbel.embed.T))
    assert torch.equal(gumbel.tables()[0], gumbel.embed.T)
