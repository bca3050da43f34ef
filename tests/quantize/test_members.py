"""Every quantizer: its interface, its gradients, its padding; and composites against their parts done by hand."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from melcodec.config import (
    CodebookConfig,
    ConvConfig,
    EMAConfig,
    FSQConfig,
    GradientConfig,
    GroupedConfig,
    GumbelConfig,
    LibraryConfig,
    ModelConfig,
    ObjectiveConfig,
    QuantizerConfig,
    ResidualConfig,
)
from melcodec.formats.checkpoint import for_inference, from_model, load_checkpoint, save_checkpoint
from melcodec.objective.build import Objective
from melcodec.quantize.base import Quantizer
from melcodec.quantize.build import build_quantizer
from melcodec.vqvae import build_vqvae

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
    "ema, as the article writes it": EMAConfig(codebook_size=8, rule="article"),
    "fsq": FSQConfig(levels=(4, 3)),
    "fsq, two codebooks": FSQConfig(levels=(300, 300)),
    "residual fsq": ResidualConfig(stages=2, inner=FSQConfig(levels=(5, 3))),
    "gumbel": GumbelConfig(codebook_size=8),
    "grouped gumbel": GroupedConfig(groups=2, inner=GumbelConfig(codebook_size=8)),
}
LIBRARY: dict[str, QuantizerConfig] = {
    "library VectorQuantize": LibraryConfig(codebook_size=8),
    "library ResidualVQ": LibraryConfig(module="ResidualVQ", codebook_size=8, num_quantizers=3),
    "library GroupedResidualVQ": LibraryConfig(module="GroupedResidualVQ", codebook_size=8, num_quantizers=2, groups=3),
    "library FSQ": LibraryConfig(module="FSQ", levels=(4, 3)),
    "library LFQ": LibraryConfig(module="LFQ", codebook_size=8),
    "library SimVQ": LibraryConfig(module="SimVQ", codebook_size=8),
}
if find_spec("vector_quantize_pytorch"):
    MEMBERS |= LIBRARY
DRAWN = ("dropout", "sampled", "gumbel")  # a batch in parts, or padded otherwise, draws other numbers


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
    assert all(codes[:, book].max() < size for book, size in enumerate(quantizer.sizes))
    decoded = quantizer.decode(codes)
    assert decoded.shape == z.shape
    assert decoded.dtype == torch.float32
    passed = quantizer(z)
    assert torch.equal(passed.codes, codes)
    assert passed.moments is None
    torch.testing.assert_close(passed.latents, decoded, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MEMBERS)
def test_gradients_reach_latents_and_whatever_learns_by_them(name):
    quantizer, z = built(name).train(), latents().requires_grad_()
    passed = quantizer(z, None, seeded())
    (passed.latents * torch.randn(z.shape, generator=seeded(1))).sum().backward(retain_graph=True)
    assert z.grad.abs().sum() > 0
    if passed.losses:
        sum(passed.losses.values()).backward()
    for parameter_name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", [name for name in MEMBERS if built(name).straight_through])
def test_the_straight_through_gradient_is_the_identity(name):
    quantizer, z = built(name).train(), latents().requires_grad_()
    upstream = torch.randn(z.shape, generator=seeded(1))
    (gradient,) = torch.autograd.grad(quantizer(z, None, seeded()).latents, z, upstream)
    torch.testing.assert_close(gradient, upstream)


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in LIBRARY])
def test_forward_changes_nothing_and_update_learns(name):
    quantizer = built(name).train()
    quantizer.start(torch.randn(100, D, generator=seeded()), seeded(), 30)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    passed = quantizer(latents(), None, seeded())
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
    told = quantizer.update([passed.moments], 0, seeded())
    assert told.keys() == ({"temperature"} if "gumbel" in name else set() if "fsq" in name else {"revived"})
    changed = {key for key, value in quantizer.state_dict().items() if not torch.equal(value, before[key])}
    assert quantizer.training_only <= set(before)
    assert changed >= {key for key in before if key.endswith(("cluster_size", "temperature"))}


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in LIBRARY])
def test_a_batch_in_parts_learns_as_the_whole(name):
    if any(word in name for word in DRAWN):
        pytest.skip("draws for every item of a batch in one go")
    whole, parts = built(name).train(), built(name).train()
    z = latents()
    whole.update([whole(z).moments], 0, seeded())
    parts.update([parts(z[:1]).moments, parts(z[1:]).moments], 0, seeded())
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value)


@pytest.mark.parametrize("name", MEMBERS)
def test_padding_counts_nowhere(name):
    if any(word in name for word in DRAWN[:2]):
        pytest.skip("draws for the padding too")
    one, other = built(name).train(), built(name).train()
    z, lengths = latents(), torch.tensor([10, 4, 7])
    noisy = z.clone()
    for item, length in enumerate(lengths):
        noisy[item, :, length:] = 50.0
    first, second = one(z, lengths, seeded()), other(noisy, lengths, seeded())
    for item, length in enumerate(lengths):
        assert torch.equal(first.codes[item, :, :length], second.codes[item, :, :length])
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


@pytest.mark.parametrize("name", MEMBERS)
def test_training_saving_and_loading_inside_a_codec(name, tmp_path):
    """Two steps, a save, a load: the same codes and the same mel from them, also without training's state."""
    config = ModelConfig(dim=D, backbone=ConvConfig(hidden=8, num_blocks=1), quantizer=MEMBERS[name])
    torch.manual_seed(0)
    model = build_vqvae(config, CodebookConfig(start="data", revive_below=0.3)).train()
    mel, optimizer = torch.randn(2, 80, 32, generator=seeded(1)), torch.optim.Adam(model.parameters(), 1e-3)
    objective = Objective(ObjectiveConfig(), torch.ones(80))
    for step in range(2):
        output = model(mel, None, seeded(step))
        optimizer.zero_grad()
        objective.total(objective(output, mel)).backward()
        optimizer.step()
        model.quantizer.update([output.quantized.moments], step, seeded(step))
    model.eval()
    kept = from_model(model, config, (1.0,) * 80, {})
    with torch.no_grad():
        codes = model.encode(mel)
        expected = model.decode(codes)
        save_checkpoint(tmp_path / "whole.safetensors", kept)
        save_checkpoint(tmp_path / "small.safetensors", for_inference(kept, torch.float32))
        for path in sorted(tmp_path.iterdir()):
            loaded = load_checkpoint(path)
            assert loaded.fingerprint == kept.fingerprint
            assert loaded.config == config
            again = loaded.build()
            assert torch.equal(again.encode(mel), codes)
            assert torch.equal(again.decode(codes), expected)


@pytest.mark.parametrize("name", MEMBERS)
def test_only_residual_codes_can_be_decoded_in_part(name):
    quantizer = built(name).eval()
    count, codes = len(quantizer.sizes), quantizer.encode(latents())
    whole_stages = name.startswith("residual") or name == "library ResidualVQ"
    assert quantizer.decodable == (tuple(range(1, count + 1)) if whole_stages else (count,))
    for fewer in quantizer.decodable:
        assert quantizer.decode(codes[:, :fewer]).shape == (3, D, 10)
    error = [(quantizer.decode(codes[:, :fewer]) - quantizer.decode(codes)).abs().sum().item() for fewer in quantizer.decodable]
    assert error[-1] == 0
    assert all(each > 0 for each in error[:-1])
