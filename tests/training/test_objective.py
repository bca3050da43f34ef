from __future__ import annotations

import pytest
import torch

from melcodec.config import ObjectiveConfig
from melcodec.training.objective import EVEN, Shares, losses
from melcodec.vqvae import VQVAEOutput

MEL = torch.zeros(1, 2, 2)


def output(dtype: torch.dtype = torch.float32) -> VQVAEOutput:
    reconstruction = torch.tensor([[[1.0, -3.0], [0.0, 0.0]]], dtype=dtype, requires_grad=True)
    return VQVAEOutput(reconstruction, torch.zeros(1, 3, 1), torch.zeros(1, 1, 1, dtype=torch.int64), torch.tensor(0.5))


@pytest.mark.parametrize(("kind", "expected"), [("mse", 10 / 4), ("l1", 4 / 4), ("smooth-l1", (0.5 + 2.5) / 4)])
@pytest.mark.parametrize("weight", [0.0, 0.25, 2.0])
def test_losses_by_hand(kind, expected, weight):
    found = losses(ObjectiveConfig(reconstruction=kind, commitment_weight=weight), output(), MEL)
    assert found.reconstruction.item() == expected
    assert found.commitment.item() == 0.5
    assert found.total.item() == expected + weight * 0.5


def test_float32_whatever_the_model_computes_in():
    found = losses(ObjectiveConfig(), output(torch.bfloat16), MEL)
    assert found.total.dtype == torch.float32


def test_the_articles_norm_is_the_largest_singular_value_of_each_item():
    found = losses(ObjectiveConfig(reconstruction="spectral-norm"), output(), MEL)
    assert found.reconstruction.item() == pytest.approx(10**0.5)  # of [[1, -3], [0, 0]]


@pytest.mark.parametrize("kind", ["mse", "l1", "smooth-l1", "spectral-norm"])
def test_what_lies_past_an_items_end_does_not_count(kind):
    torch.manual_seed(0)
    mel, other = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    lengths = torch.tensor([8, 3])
    pass_ = VQVAEOutput(other, torch.zeros(2, 3, 2), torch.zeros(2, 1, 2, dtype=torch.int64), torch.tensor(0.5))
    first = losses(ObjectiveConfig(reconstruction=kind), pass_, mel, lengths).reconstruction
    other[1, :, 3:] = 1e6
    assert losses(ObjectiveConfig(reconstruction=kind), pass_, mel, lengths).reconstruction == first
    other[1, :, 2] += 1
    assert losses(ObjectiveConfig(reconstruction=kind), pass_, mel, lengths).reconstruction != first


def test_shares_make_the_mean_over_parts_the_mean_over_frames():
    torch.manual_seed(0)
    mel, other, lengths = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.tensor([8, 4])

    def part(items: slice, commitment: float, shares: Shares = EVEN):
        pass_ = VQVAEOutput(other[items], torch.zeros(1), torch.zeros(1), torch.tensor(commitment))
        return losses(ObjectiveConfig(reconstruction="l1"), pass_, mel[items], lengths[items], shares)

    whole = part(slice(0, 2), 0.7)
    parts = [
        part(slice(i, i + 1), 0.3 + i, Shares(frames=2 * length / 12, codes=2 * codes / 3))
        for i, (length, codes) in enumerate(((8, 2), (4, 1)))
    ]
    assert sum(part.reconstruction for part in parts) / 2 == pytest.approx(whole.reconstruction.item())
    assert sum(part.commitment for part in parts) / 2 == pytest.approx((2 * 0.3 + 1.3) / 3)
