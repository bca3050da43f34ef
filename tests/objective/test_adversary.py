"""The discriminator learns beside the model, waits for its step, resumes to the same bytes, and adds up over processes."""

from __future__ import annotations

import math

import pytest
import torch

from melcodec.config import DiscriminatorConfig, RunConfig, with_overrides
from melcodec.objective.adversary import Adversary
from melcodec.objective.discriminator import PatchDiscriminator

NORMS = torch.full((80,), -5.0)


def mels(seed: int = 0, size: int = 2) -> torch.Tensor:
    return torch.rand(size, 80, 32, generator=torch.Generator().manual_seed(seed)) + 0.5


def adversary(**settings) -> Adversary:
    return Adversary(DiscriminatorConfig(channels=(4, 8), **settings), NORMS, seed=0)


def state(it: Adversary) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in it.model.state_dict().items()}


def test_it_learns_to_tell_and_the_hinge_loss_falls():
    it = adversary(lr=3e-3)
    real, fake = mels(), mels(1) * 1.5
    losses = []
    for _ in range(30):
        losses.append(it.learn(fake, real, None, 1.0).item())
        it.step()
    assert losses[0] == pytest.approx(2, abs=0.5)  # it knows nothing: relu(1 + 0) + relu(1 - 0)
    assert losses[-1] < 0.5


def test_what_the_model_loses_teaches_the_model_alone():
    it = adversary()
    made = mels(1).requires_grad_()
    lost = it.losses(made, mels(), None)
    assert lost.keys() == {"adversarial", "feature_matching"}
    sum(lost.values()).backward()
    assert made.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in it.model.parameters())
    it.learn(made, mels(), None, 1.0)
    taught = {name: parameter.grad.abs().sum() > 0 for name, parameter in it.model.named_parameters()}
    assert all(taught[name] for name in taught if name != "judge.bias")  # as long as no region is beyond the hinge, it cancels
    assert it.losses(mels(), mels(), None)["feature_matching"] == 0


def test_padding_looks_the_same_in_speech_and_reconstruction():
    it, lengths = adversary(), torch.tensor([32, 12])
    made, other = mels(1), mels(1)
    other[1, :, 12:] = 9.0
    for name, value in it.losses(made, mels(), lengths).items():
        torch.testing.assert_close(it.losses(other, mels(), lengths)[name], value)


def test_parts_add_up_to_the_batch():
    whole, parts = adversary(), adversary()
    whole.learn(mels(1), mels(), None, 1.0)
    for index in range(2):
        parts.learn(mels(1)[index : index + 1], mels()[index : index + 1], None, 0.5)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("settings", [{"lr": 1e-3}, {"betas": (0.1, 0.9)}])
def test_settings_of_the_optimizer_are_not_ignored(settings):
    plain, other = adversary(), adversary(**settings)
    for it in (plain, other):
        for seed in range(2):
            it.learn(mels(seed + 5), mels(seed), None, 1.0)
            it.step()
    assert not all(torch.equal(value, other.model.state_dict()[name]) for name, value in state(plain).items())


def test_the_network_of_the_recipe():
    config = with_overrides(RunConfig(), ["objective=adversarial"]).objective
    assert (config.adversarial, config.feature_matching, config.log_mel_l1, config.mse, config.commitment) == (0.1, 0.5, 1, 0, 0)
    network = PatchDiscriminator(config.discriminator)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(0.27e6, rel=0.1)
    features = network(torch.full((2, 80, 128), -5.0))
    assert features[-1].shape == (2, 1, 10, 16)
    # a constant mel looks different from band to band, because each place knows its band
    assert features[-1][0, 0, 2:-2, 8].unique().numel() > 1
    assert math.isfinite(features[-1].detach().abs().max())
