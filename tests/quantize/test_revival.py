from __future__ import annotations

import pytest
import torch

from melcodec.config import CodebookConfig, EMAConfig
from melcodec.quantize.ema import EMACodebook
from melcodec.quantize.revival import revive_from_batch, revive_two_sided


@pytest.fixture
def collapsed() -> EMACodebook:
    """Sixteen codes of width 3, of which the first four are in use and the others were never near any latent."""
    torch.manual_seed(0)
    codebook = EMACodebook(3, EMAConfig(codebook_size=16), CodebookConfig(revive="none")).train()
    codewords = torch.cat([torch.randn(4, 3), 100 + torch.randn(12, 3)])
    codebook.cluster_size.fill_(1)
    codebook.assign(torch.ones(16, dtype=torch.bool), codewords.T)
    codebook.cluster_size[4:] = 0.01
    codebook.embed_avg[:, 4:] = codewords[4:].T * 0.01
    return codebook


def batch() -> torch.Tensor:
    return torch.randn(4, 3, 25, generator=torch.Generator().manual_seed(1))


def flat(latents) -> torch.Tensor:
    return latents.transpose(1, 2).reshape(-1, 3)


def revive(codebook, latents, below=0.1, seed=0) -> int:
    return int(revive_from_batch(codebook, flat(latents), below, torch.Generator().manual_seed(seed)))


def learn(codebook, latents):
    """A forward pass in training and the update that follows."""
    quantized = codebook(latents)
    codebook.update([quantized.moments], 0, torch.Generator().manual_seed(0))
    return quantized


def test_dead_codes_become_latents_of_the_batch(collapsed):
    latents = batch()
    alive = collapsed.embed[:, :4].clone()
    mean = collapsed.cluster_size.mean()
    assert revive(collapsed, latents) == 12
    assert torch.equal(collapsed.embed[:, :4], alive)
    vectors = flat(latents)
    assert torch.cdist(collapsed.embed[:, 4:].T, vectors).min(dim=1).values.max() < 1e-6
    assert len(torch.unique(collapsed.embed.T, dim=0)) == 16  # no latent is taken twice
    assert torch.equal(collapsed.cluster_size[4:], mean.expand(12))
    torch.testing.assert_close(collapsed.embed_avg[:, 4:], collapsed.embed[:, 4:] * mean)


def test_revived_codes_survive_the_next_update_and_are_used(collapsed):
    latents = batch()
    learn(collapsed, latents)
    revive(collapsed, latents)
    revived = collapsed.embed.clone()
    assert len(learn(collapsed, latents).codes.unique()) > 12
    assert torch.linalg.vector_norm(collapsed.embed - revived, dim=0).max() < 0.2
    assert len(learn(collapsed, latents).codes.unique()) > 12


def test_forgetting_the_averages_would_undo_it(collapsed):
    """The bug that this module must not have; it shows that the test above can fail."""
    latents = batch()
    learn(collapsed, latents)
    averages = collapsed.embed_avg.clone()
    revive(collapsed, latents)
    collapsed.embed_avg.copy_(averages)
    learn(collapsed, latents)
    assert len(learn(collapsed, latents).codes.unique()) < 8


def test_below_decides_what_is_dead(collapsed):
    mean = collapsed.cluster_size.mean().item()
    assert revive(collapsed, batch(), below=0.0) == 0
    assert revive(collapsed, batch(), below=0.99 * 0.01 / mean) == 0
    assert revive(collapsed, batch(), below=1.01 * 0.01 / mean) == 12


def test_nothing_to_do_changes_nothing(collapsed):
    before = {name: value.clone() for name, value in collapsed.state_dict().items()}
    assert revive(collapsed, batch(), below=0.0) == 0
    assert all(torch.equal(value, before[name]) for name, value in collapsed.state_dict().items())


def test_a_batch_with_fewer_latents_than_dead_codes(collapsed):
    assert revive(collapsed, batch()[:1, :, :5]) == 5


def test_the_generator_decides(collapsed):
    start = {name: value.clone() for name, value in collapsed.state_dict().items()}
    results = []
    for seed in (0, 0, 1):
        collapsed.load_state_dict(start)
        revive(collapsed, batch(), seed=seed)
        results.append(collapsed.embed.clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_latents_of_a_bfloat16_pass(collapsed):
    assert revive(collapsed, batch().to(torch.bfloat16).requires_grad_()) == 12
    assert collapsed.embed.dtype == torch.float32


def test_two_sided_makes_the_overused_and_the_underused_noise(collapsed):
    """The rule of the first of the articles: more than twice or less than half the uniform share."""
    collapsed.cluster_size[:] = 1.0
    collapsed.cluster_size[3], collapsed.cluster_size[5], collapsed.cluster_size[7] = 2.5, 0.4, 1.9
    before, mean = collapsed.embed.clone(), collapsed.cluster_size.mean()
    assert 0.4 < mean / 2 < 1.0 < 1.9 < 2 * mean < 2.5
    assert revive_two_sided(collapsed, torch.Generator().manual_seed(0)) == 2
    assert [index for index in range(16) if not torch.equal(collapsed.embed[:, index], before[:, index])] == [3, 5]
    noise = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(collapsed.embed[:, [3, 5]], noise[:, [3, 5]])
    assert collapsed.cluster_size[[3, 5]].tolist() == [mean.item()] * 2


@pytest.mark.parametrize(("rule", "replaced"), [("article-items", 16), ("article-vectors", 14)])
def test_the_articles_rule_in_both_normalisations(rule, replaced):
    """Codes 0 and 1 are drawn as often as if all were drawn alike, the others not at all or too often."""
    codebook = EMACodebook(3, EMAConfig(codebook_size=16), CodebookConfig(revive=rule)).train()
    codewords = 10 * torch.eye(16)[:, :3] + torch.arange(16.0)[:, None] * 100
    codebook.assign(torch.ones(16, dtype=torch.bool), codewords.T)
    codebook.cluster_size.fill_(1)
    codebook.embed_avg.copy_(codebook.embed)
    codes = torch.tensor([0] * 2 + [1] * 2 + [2] * 28).view(2, 1, 16)  # 32 latents of 2 items
    quantized = codebook(codebook.decode(codes))
    assert torch.equal(quantized.codes, codes)
    quiet = EMACodebook(3, EMAConfig(codebook_size=16), CodebookConfig(revive="none")).train()
    quiet.load_state_dict(codebook.state_dict())
    quiet.update([quantized.moments], 0, torch.Generator())
    told = codebook.update([quantized.moments], 0, torch.Generator().manual_seed(0))
    assert int(told["revived"]) == replaced
    assert torch.equal(codebook.cluster_size, quiet.cluster_size)  # counts and averages stay as they are
    assert torch.equal(codebook.embed_avg, quiet.embed_avg)
    noise = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    kept = (codebook.embed == quiet.embed).all(0)
    assert int((~kept).sum()) == replaced
    assert torch.equal(codebook.embed[:, ~kept], noise[:, ~kept])
