"""Every quantizer: its interface, its gradients, its padding; and composites against their parts done by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from melcodec.config import (
    CodebookConfig,
    EMAConfig,
    GradientConfig,
    GroupedConfig,
    QuantizerConfig,
    ResidualConfig,
)
from melcodec.quantize.base import Quantizer
from melcodec.quantize.build import build_quantizer

D = 6
EMA, GRADIENT = EMAConfig(codebook_size=8), GradientConfig(codebook_size=8, init="normal")
NARROW = EMAConfig(codebook_size=8, code_dim=3, normalize=True)
MEMBERS: dict[str, QuantizerConfig] = {
    "ema": EMA,
    "gradient": GRADIENT,
    "ema, narrow": NARROW,
    "gradient, narrow": GradientConfig(codebook_size=8, code_dim=3, normalize=True, init="normal"),
    "residual": ResidualConfig(stages=3, inner=GRADIENT),
    "residual, narrow": ResidualConfig(stages=3, inner=NARROW),
    "residual, shared": ResidualConfig(stages=3, shared=True, inner=EMA),
    "residual, dropout": ResidualConfig(stages=3, dropout=0.5, inner=EMA),
    "residual, sampled": ResidualConfig(stages=2, shared=True, inner=EMAConfig(codebook_size=8, temperature=0.5)),
    "grouped": GroupedConfig(groups=2, inner=EMA),
    "grouped, shared": GroupedConfig(groups=3, shared=True, inner=GRADIENT),
    "grouped residual": GroupedConfig(groups=2, inner=ResidualConfig(stages=2, inner=EMA)),
}


def built(name: str) -> Quantizer:
    torch.manual_seed(0)
    return build_quantizer(MEMBERS[name], D, CodebookConfig(start="data", revive_below=0.3))


def latents(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, D, 10, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MEMBERS)
def test_shapes_sizes_and_codes(name):
    quantizer, z = built(name).eval(), latents()
    assert quantizer.sizes == MEMBERS[name].sizes
    codes = quantizer.encode(z)
    assert codes.shape == (3, len(quantizer.sizes), 10)
    assert codes.dtype == torch.int64
    assert codes.max() < 8
    decoded = quantizer.decode(codes)
    assert decoded.shape == z.shape
    assert decoded.dtype == torch.float32
    passed = quantizer(z)
    assert torch.equal(passed.codes, codes)
    assert passed.moments is None
    torch.testing.assert_close(passed.latents, decoded)


@pytest.mark.parametrize("name", MEMBERS)
def test_gradients_reach_latents_and_whatever_learns_by_them(name):
    quantizer, z = built(name).train(), latents().requires_grad_()
    passed = quantizer(z, None, seeded())
    (passed.latents * torch.randn(z.shape, generator=seeded(1))).sum().backward(retain_graph=True)
    assert z.grad.abs().sum() > 0
    sum(passed.losses.values()).backward()
    for parameter_name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", [name for name in MEMBERS if "narrow" not in name])
def test_the_straight_through_gradient_is_the_identity(name):
    quantizer, z = built(name).train(), latents().requires_grad_()
    upstream = torch.randn(z.shape, generator=seeded(1))
    (gradient,) = torch.autograd.grad(quantizer(z, None, seeded()).latents, z, upstream)
    torch.testing.assert_close(gradient, upstream)


@pytest.mark.parametrize("name", MEMBERS)
def test_forward_changes_nothing_and_update_learns(name):
    quantizer = built(name).train()
    quantizer.start(torch.randn(100, D, generator=seeded()), seeded(), 30)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    passed = quantizer(latents(), None, seeded())
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
    told = quantizer.update([passed.moments], 0, seeded())
    assert told.keys() == {"revived"}
    changed = {key for key, value in quantizer.state_dict().items() if not torch.equal(value, before[key])}
    assert quantizer.training_only <= set(before)
    assert changed >= {key for key in before if key.endswith("cluster_size")}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_batch_in_parts_learns_as_the_whole(name):
    if MEMBERS[name] in (MEMBERS["residual, dropout"], MEMBERS["residual, sampled"]):
        pytest.skip("draws for every item of a batch in one go")
    whole, parts = built(name).train(), built(name).train()
    z = latents()
    whole.update([whole(z).moments], 0, seeded())
    parts.update([parts(z[:1]).moments, parts(z[1:]).moments], 0, seeded())
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value)


@pytest.mark.parametrize("name", MEMBERS)
def test_padding_counts_nowhere(name):
    if "dropout" in name or "sampled" in name:
        pytest.skip("draws for the padding too")
    one, other = built(name).train(), built(name).train()
    z, lengths = latents(), torch.tensor([10, 4, 7])
    noisy = z.clone()
    for item, length in enumerate(lengths):
        noisy[item, :, length:] = 50.0
    first, second = one(z, lengths), other(noisy, lengths)
    for key, value in first.losses.items():
        torch.testing.assert_close(second.losses[key], value)
    one.update([first.moments], 0, seeded())
    other.update([second.moments], 0, seeded())
    for key, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value)


@pytest.mark.parametrize("name", MEMBERS)
def test_training_state_can_be_left_out(name):
    quantizer = built(name)
    kept = quantizer.weights
    assert kept.keys() | quantizer.training_only == quantizer.state_dict().keys()
    other = built(name)
    missing = other.load_state_dict(dict(kept), strict=False).missing_keys
    assert set(missing) == quantizer.training_only
    other.forget_training()
    assert all((value == 1).all() for key, value in other.state_dict().items() if key.endswith("cluster_size"))


def test_residual_by_hand():
    quantizer, z = built("residual").eval(), latents()
    residual, total = z, torch.zeros_like(z)
    for stage, codes in zip(quantizer.members, quantizer.encode(z).unbind(1), strict=True):
        table = stage.embed.detach().T  # (K, D)
        nearest = torch.cdist(residual.transpose(1, 2), table[None].expand(3, -1, -1)).argmin(-1)
        assert torch.equal(nearest, codes)
        picked = table[nearest].transpose(1, 2)
        total, residual = total + picked, residual - picked
    torch.testing.assert_close(quantizer.decode(quantizer.encode(z)), total)
    # fewer codebooks decode too: the sum of the first ones
    two = sum(F.embedding(quantizer.encode(z)[:, i], quantizer.members[i].embed.T).transpose(1, 2) for i in range(2))
    torch.testing.assert_close(quantizer.decode(quantizer.encode(z)[:, :2]), two)


def test_shared_stages_are_one_codebook():
    quantizer = built("residual, shared")
    assert [key for key in quantizer.state_dict() if key.endswith("embed")] == ["parts.0.embed"]
    assert len(quantizer.sizes) == 3


def test_dropout_leaves_later_stages_out_of_some_items():
    quantizer, z = built("residual, dropout").train(), torch.randn(200, D, 2, generator=seeded())
    passed = quantizer(z, None, seeded())
    stages = [part.embed.T[passed.codes[:, index]].transpose(1, 2) for index, part in enumerate(quantizer.members)]
    sums = torch.stack(stages).cumsum(0)
    used = [(passed.latents - partial).abs().amax((1, 2)) < 1e-5 for partial in sums]
    shares = [each.float().mean().item() for each in used]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(0.5 / 3, abs=0.08)
    assert shares[2] == pytest.approx(0.5 + 0.5 / 3, abs=0.1)
    counts = [moments.counts.sum().item() for moments in passed.moments]
    assert counts == pytest.approx([400, 400 * (shares[1] + shares[2]), 400 * shares[2]])


def test_sampling_prefers_near_codewords_and_is_for_training_only():
    torch.manual_seed(0)
    warm = build_quantizer(EMAConfig(codebook_size=8, temperature=1.0), D)
    z = latents()
    nearest = warm.eval()(z).codes
    drawn = warm.train()(z, None, seeded()).codes
    assert 0.1 < (drawn == nearest).float().mean() < 0.99
    assert torch.equal(drawn, warm(z, None, seeded()).codes)  # a function of the generator
    distances = (z.transpose(1, 2)[..., None] - warm.embed).square().sum(2)  # (B, N, K)
    expected = (-distances / warm.config.temperature).softmax(-1)
    counts = torch.zeros_like(expected)
    for seed in range(400):
        counts += F.one_hot(warm(z, None, seeded(seed)).codes[:, 0], 8)
    assert (counts / 400 - expected).abs().max() < 0.11


def test_groups_by_hand():
    quantizer, z = built("grouped").eval(), latents()
    codes = quantizer.encode(z)
    for index, part in enumerate(quantizer.members):
        assert torch.equal(codes[:, index : index + 1], part.encode(z[:, 3 * index : 3 * index + 3]))
    assert torch.equal(quantizer.decode(codes)[:, :3], quantizer.members[0].decode(codes[:, :1]))


def test_groups_must_divide_the_latents():
    from melcodec.errors import MelcodecError

    with pytest.raises(MelcodecError, match="6 channels do not make 4 equal groups"):
        build_quantizer(GroupedConfig(groups=4), D)


def test_cosine_is_the_largest_dot_product_of_unit_vectors():
    quantizer, z = built("ema, narrow").eval(), latents()
    narrow = F.normalize(quantizer.into(z), dim=1)
    scores = torch.einsum("bdn,dk->bnk", narrow, F.normalize(quantizer.embed, dim=0))
    assert torch.equal(quantizer.encode(z)[:, 0], scores.argmax(-1))
