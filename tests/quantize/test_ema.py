"""The XTTS codebook: nearest neighbours, straight-through gradients, moving averages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from melcodec.config import CodebookConfig, EMAConfig
from melcodec.quantize import kmeans
from melcodec.quantize.base import Quantized
from melcodec.quantize.build import build_quantizer
from melcodec.quantize.ema import EMACodebook
from melcodec.quantize.kmeans import cluster_sums, nearest

CODES = torch.tensor([[1, 3, 0], [1, 1, 2]])  # of the worked example: two sequences of three codes


ASIDE = CodebookConfig(revive="none")  # revival has tests of its own


def fresh(dim: int, size: int, **options) -> EMACodebook:
    return EMACodebook(dim, EMAConfig(codebook_size=size, **options), ASIDE)


def codebook_of(codewords: torch.Tensor, **options) -> EMACodebook:
    """A codebook with these codewords (K, D), each counted once."""
    codebook = fresh(codewords.shape[1], codewords.shape[0], **options)
    codebook.cluster_size.fill_(1)
    codebook.assign(torch.ones(len(codewords), dtype=torch.bool), codewords.T)
    return codebook


def learn(codebook: EMACodebook, latents: torch.Tensor, lengths: torch.Tensor | None = None) -> Quantized:
    """A forward pass in training and the update that follows."""
    quantized = codebook(latents, lengths)
    codebook.update([quantized.moments], 0, torch.Generator().manual_seed(0))
    return quantized


def trained(steps: int = 3, size: int = 12, dim: int = 5) -> EMACodebook:
    torch.manual_seed(1)
    codebook = codebook_of(torch.randn(size, dim)).train()
    for _ in range(steps):
        learn(codebook, torch.randn(4, dim, 20))
    return codebook


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)], ids=["4 codewords of width 6", "6 codewords of width 4"])
def test_worked_example_cdist_and_argmin(shape):
    torch.manual_seed(0)
    codewords = torch.randn(shape)
    codebook = codebook_of(codewords).eval()
    # latents a little off the codewords that the example names
    latents = codewords[CODES] + 0.05 * torch.randn(2, 3, shape[1])
    distances = torch.cdist(latents, codewords)  # (2, 3, K)
    assert torch.equal(distances.argmin(dim=-1), CODES)
    codes = codebook.encode(latents.transpose(1, 2))
    assert codes.shape == (2, 1, 3)
    assert codes.dtype == torch.int64
    assert torch.equal(codes[:, 0], CODES)
    assert torch.equal(codebook.decode(codes).transpose(1, 2), codewords[CODES])
    quantized = codebook(latents.transpose(1, 2))
    assert torch.equal(quantized.codes, codes)
    torch.testing.assert_close(quantized.losses["commitment"], (latents - codewords[CODES]).pow(2).mean())


def test_nearest_equals_cdist_on_many_vectors():
    torch.manual_seed(0)
    vectors, codewords = torch.randn(500, 16, dtype=torch.float64), torch.randn(64, 16, dtype=torch.float64)
    assert torch.equal(nearest(vectors, codewords.T), torch.cdist(vectors, codewords).argmin(dim=1))


def test_nearest_in_parts_equals_nearest_at_once(monkeypatch):
    torch.manual_seed(0)
    vectors, embed = torch.randn(500, 16), torch.randn(16, 64)
    whole = nearest(vectors, embed)
    for most in (1, 64 * 7, 64 * 500):
        monkeypatch.setattr(kmeans, "MAX_DISTANCES", most)
        assert torch.equal(nearest(vectors, embed), whole)


def test_a_tie_goes_to_the_lowest_index():
    codewords = torch.tensor([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    latents = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]).T[None]  # halfway; on a double; halfway
    assert codebook_of(codewords).encode(latents).flatten().tolist() == [1, 1, 0]


def test_flattening_is_row_major_over_items_and_positions():
    codebook = codebook_of(torch.eye(6))
    codes = torch.tensor([[[5, 0, 3]], [[2, 2, 1]]])
    assert torch.equal(codebook.encode(codebook.decode(codes)), codes)


class SlowCodebook:
    """The specification, literally, in float64 and with loops."""

    def __init__(self, codebook: EMACodebook) -> None:
        self.embed = codebook.embed.double().numpy().copy()
        self.cluster_size = codebook.cluster_size.double().numpy().copy()
        self.embed_avg = codebook.embed_avg.double().numpy().copy()
        self.decay, self.eps = codebook.config.decay, codebook.config.eps

    def step(self, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """latents (B, D, N) -> codes (B, N), quantised (B, D, N) by the codebook before the update, commitment."""
        batch, dim, length = latents.shape
        size = self.embed.shape[1]
        codes, quantised = np.zeros((batch, length), np.int64), np.zeros_like(latents)
        n, s = np.zeros(size), np.zeros((dim, size))
        for b in range(batch):
            for t in range(length):
                z = latents[b, :, t]
                code = min(range(size), key=lambda k: float(((z - self.embed[:, k]) ** 2).sum()))
                codes[b, t], quantised[b, :, t] = code, self.embed[:, code]
                n[code] += 1
                s[:, code] += z
        commitment = float(((quantised - latents) ** 2).mean())
        self.cluster_size = self.decay * self.cluster_size + (1 - self.decay) * n
        self.embed_avg = self.decay * self.embed_avg + (1 - self.decay) * s
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + size * self.eps) * total
        self.embed = self.embed_avg / smoothed
        return codes, quantised, commitment


@pytest.mark.parametrize(("decay", "eps"), [(0.99, 1e-5), (0.5, 1e-5), (0.8, 0.1)])
def test_moving_averages_equal_the_specification(decay, eps):
    torch.manual_seed(0)
    codebook = codebook_of(torch.randn(7, 3), decay=decay, eps=eps).train()
    slow = SlowCodebook(codebook)
    for _ in range(6):
        latents = torch.randn(4, 3, 5) * 2
        quantized = learn(codebook, latents)
        codes, quantised, commitment = slow.step(latents.double().numpy())
        assert np.array_equal(quantized.codes[:, 0].numpy(), codes)
        np.testing.assert_allclose(quantized.latents.numpy(), quantised, atol=1e-5)
        assert quantized.losses["commitment"].item() == pytest.approx(commitment, rel=1e-5)
        for name in ("cluster_size", "embed_avg", "embed"):  # the size as stored is not the smoothed one
            np.testing.assert_allclose(getattr(codebook, name).numpy(), getattr(slow, name), rtol=1e-4, atol=1e-6)


def test_decay_and_eps_come_from_the_configuration():
    codebook = build_quantizer(EMAConfig(codebook_size=4, decay=0.75, eps=0.25), 3)
    assert (codebook.config.decay, codebook.eps, codebook.sizes) == (0.75, 0.25, (4,))
    assert codebook.embed.shape == codebook.embed_avg.shape == (3, 4)


def test_the_stock_start():
    torch.manual_seed(0)
    codebook = fresh(8, 1000)
    assert codebook.cluster_size.abs().max() == 0
    assert torch.equal(codebook.embed, codebook.embed_avg)
    assert codebook.embed.std() == pytest.approx(1, abs=0.05)


def test_quantised_by_the_codebook_before_the_update():
    codebook = trained()
    before = codebook.embed.clone()
    quantized = learn(codebook, torch.randn(2, 5, 9))
    torch.testing.assert_close(quantized.latents, before.T[quantized.codes[:, 0]].transpose(1, 2), atol=1e-6, rtol=0)
    assert not torch.equal(codebook.embed, before)


def test_forward_changes_nothing():
    codebook = trained()
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook(torch.randn(2, 5, 9))
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


def test_evaluation_never_learns():
    codebook = trained().eval()
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    assert codebook(torch.randn(2, 5, 9)).moments is None
    codebook.encode(torch.randn(2, 5, 9))
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


def test_gradients():
    codebook = trained()
    latents = torch.randn(2, 5, 9, requires_grad=True)
    quantized = codebook(latents)
    # straight through: the gradient of the output is that of the input
    upstream = torch.randn(2, 5, 9)
    (gradient,) = torch.autograd.grad(quantized.latents, latents, upstream, retain_graph=True)
    assert torch.equal(gradient, upstream)
    # the commitment pulls the latents only, each towards its codeword
    (gradient,) = torch.autograd.grad(quantized.losses["commitment"], latents)
    torch.testing.assert_close(gradient, 2 * (latents - quantized.latents).detach() / latents.numel())
    assert not any(value.requires_grad for value in codebook.state_dict().values())
    assert list(codebook.parameters()) == []


def test_float32_under_bfloat16_autocast():
    torch.manual_seed(3)
    plain, cast = codebook_of(torch.randn(256, 32)).train(), codebook_of(torch.randn(256, 32)).train()
    cast.load_state_dict(plain.state_dict())
    latents = torch.randn(8, 32, 40)
    expected = learn(plain, latents)
    with torch.autocast("cpu", torch.bfloat16):
        # the product that must not be used would choose other codes: this test can fail
        rough = (latents.transpose(1, 2) @ plain.embed).float()
        assert torch.equal(cast.encode(latents), expected.codes)
        quantized = learn(cast, latents)
    assert {quantized.latents.dtype, quantized.losses["commitment"].dtype, rough.to(torch.bfloat16).float().dtype} == {
        torch.float32
    }
    assert not torch.allclose(rough, latents.transpose(1, 2) @ plain.embed, atol=1e-3)
    assert torch.equal(quantized.codes, expected.codes)
    assert torch.equal(quantized.losses["commitment"], expected.losses["commitment"])
    for name, value in plain.state_dict().items():
        assert torch.equal(value, cast.state_dict()[name]), name


def test_bfloat16_latents_are_learned_from_in_float32():
    codebook = trained()
    quantized = learn(codebook, torch.randn(2, 5, 9, dtype=torch.bfloat16))
    assert quantized.latents.dtype == torch.float32
    assert {value.dtype for value in codebook.state_dict().values()} == {torch.float32}


def test_assigned_codewords_survive_the_next_update():
    codebook = trained()
    chosen = torch.zeros(12, dtype=torch.bool)
    chosen[[3, 8]] = True
    codebook.cluster_size[chosen] = codebook.cluster_size.mean()
    codebook.assign(chosen, torch.full((5, 12), 40.0))
    learn(codebook, torch.randn(2, 5, 9))  # none of it near the new codewords
    torch.testing.assert_close(codebook.embed[:, [3, 8]], torch.full((5, 2), 40.0), rtol=1e-3, atol=0)


def test_cluster_sums():
    vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    counts, sums = cluster_sums(vectors, torch.tensor([2, 0, 2]), 4)
    assert counts.tolist() == [1, 0, 2, 0]
    assert sums.tolist() == [[3, 4], [0, 0], [6, 8], [0, 0]]


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (2, 3, 6) of which the second item has 4 real ones, noise behind."""
    latents = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(3))
    latents[1, :, 4:] = 50.0
    return latents, torch.tensor([6, 4])


def test_padding_counts_neither_in_the_commitment_nor_in_the_averages():
    torch.manual_seed(0)
    masked = fresh(3, 8).train()
    alone = fresh(3, 8).train()
    alone.load_state_dict(masked.state_dict())
    latents, lengths = padded()
    output = learn(masked, latents, lengths)
    real = torch.cat([latents[0], latents[1, :, :4]], dim=1)[None]
    expected = learn(alone, real)
    torch.testing.assert_close(output.losses["commitment"], expected.losses["commitment"])
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(masked.state_dict()[name], value)
    assert torch.equal(output.codes[1, :, :4], expected.codes[0, :, 6:])


def test_a_batch_in_parts_moves_the_codebook_as_the_whole():
    torch.manual_seed(0)
    whole, parts = fresh(3, 8).train(), fresh(3, 8).train()
    parts.load_state_dict(whole.state_dict())
    latents = torch.randn(4, 3, 10)
    learn(whole, latents)
    parts.update([parts(part).moments for part in latents.split(1)], 0, torch.Generator())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)


def test_training_state_is_rebuilt_from_the_codewords():
    codebook = trained()
    codebook.forget_training()
    assert codebook.training_only == {"cluster_size", "embed_avg"}
    assert torch.equal(codebook.embed_avg, codebook.embed)
    assert codebook.cluster_size.tolist() == [1.0] * 12
    assert codebook.weights.keys() == {"embed"}


def test_the_rule_as_the_article_writes_it():
    """Smoothed counts are kept, codewords are the old averages divided by them, and sums are means over items."""
    torch.manual_seed(0)
    config = EMAConfig(codebook_size=7, decay=0.9, eps=0.1, rule="article")
    codebook = build_quantizer(config, 3, CodebookConfig(revive="none")).train()
    codebook.cluster_size.fill_(2.0)
    for _ in range(3):
        counts, averages = codebook.cluster_size.double(), codebook.embed_avg.double().clone()
        latents = torch.randn(4, 3, 5)
        codes = learn(codebook, latents).codes[:, 0]
        n, s = torch.zeros(7).double(), torch.zeros(3, 7).double()
        for item in range(4):
            for position in range(5):
                n[codes[item, position]] += 1 / 4
                s[:, codes[item, position]] += latents[item, :, position] / 4
        counts = 0.9 * counts + 0.1 * n
        smoothed = (counts + 0.1) / (counts.sum() + 7 * 0.1) * counts.sum()
        torch.testing.assert_close(codebook.cluster_size, smoothed.float())
        torch.testing.assert_close(codebook.embed, (averages / smoothed).float())
        torch.testing.assert_close(codebook.embed_avg, (0.9 * averages + 0.1 * s).float())


def test_the_articles_rule_counts_the_items_of_all_parts_and_none_that_is_empty():
    torch.manual_seed(0)
    config, upkeep = EMAConfig(codebook_size=7, rule="article"), CodebookConfig(revive="none")
    whole, parts = build_quantizer(config, 3, upkeep).train(), build_quantizer(config, 3, upkeep).train()
    parts.load_state_dict(whole.state_dict())
    latents = torch.randn(4, 3, 5)
    learn(whole, latents)
    padded = torch.cat([latents, torch.randn(1, 3, 5)])
    moments = [parts(padded[:1]).moments, parts(padded[1:], torch.tensor([5, 5, 5, 0])).moments]
    parts.update(moments, 0, torch.Generator())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)
