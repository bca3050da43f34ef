"""Terms of the loss by hand, their weights, padding and the shares of parts of a batch."""

from __future__ import annotations

import pytest
import torch

from melcodec.config import ObjectiveConfig
from melcodec.objective.build import EVEN, Objective, Shares
from melcodec.quantize.base import Quantized
from melcodec.vqvae import VQVAEOutput

MEL = torch.zeros(1, 2, 2)
NORMS = torch.tensor([-2.0, -3.0])
OFF = {"l1": 0.0, "mse": 0.0, "smooth_l1": 0.0}
RECONSTRUCTIONS = ["mse", "l1", "smooth_l1", "log_mel_l1", "spectral_norm"]


def passed(reconstruction: torch.Tensor, commitment: float = 0.5, latents: torch.Tensor | None = None) -> VQVAEOutput:
    latents = torch.zeros(len(reconstruction), 3, 1) if latents is None else latents
    codes = torch.zeros(len(latents), 1, latents.shape[-1], dtype=torch.int64)
    return VQVAEOutput(
        reconstruction, latents, Quantized(torch.zeros_like(latents), codes, {"commitment": torch.tensor(commitment)})
    )


def output(dtype: torch.dtype = torch.float32) -> VQVAEOutput:
    return passed(torch.tensor([[[1.0, -3.0], [0.0, 0.0]]], dtype=dtype, requires_grad=True))


def objective(norms: torch.Tensor = NORMS, **weights: float) -> Objective:
    return Objective(ObjectiveConfig(**(OFF | weights)), norms)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", 10 / 4),
        ("l1", 4 / 4),
        ("smooth_l1", (0.5 + 2.5) / 4),
        ("log_mel_l1", 2 * 4 / 4),  # all of it in the first band, whose norm is -2
        ("spectral_norm", 10**0.5),  # of [[1, -3], [0, 0]]
    ],
)
@pytest.mark.parametrize("weight", [0.0, 0.25, 2.0])
def test_terms_by_hand_and_their_weights(name, expected, weight):
    it = objective(**{name: 3.0, "commitment": weight})
    terms = it(output(), MEL)
    assert terms.keys() == {name, "commitment"}
    assert terms[name].item() == pytest.approx(expected)
    assert terms["commitment"].item() == 0.5
    assert it.total(terms).item() == pytest.approx(3 * expected + weight * 0.5)


def test_the_spectral_norm_of_the_commitment():
    latents = torch.tensor([[[3.0, 0.0, 9.0], [4.0, 0.0, 9.0]]])  # the third code lies past the end
    it = objective(commitment_spectral_norm=1.0)
    terms = it(passed(torch.zeros(1, 2, 12), latents=latents), torch.zeros(1, 2, 12), torch.tensor([8]))
    assert terms["commitment_spectral_norm"].item() == pytest.approx(5.0)


def test_float32_whatever_the_model_computes_in():
    it = objective(mse=1.0)
    assert it.total(it(output(torch.bfloat16), MEL)).dtype == torch.float32


@pytest.mark.parametrize("name", RECONSTRUCTIONS)
def test_what_lies_past_an_items_end_does_not_count(name):
    torch.manual_seed(0)
    mel, other = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    lengths, it = torch.tensor([8, 3]), objective(torch.full((5,), -2.0), **{name: 1.0})
    first = it(passed(other), mel, lengths)[name]
    other[1, :, 3:] = 1e6
    assert it(passed(other), mel, lengths)[name] == first
    other[1, :, 2] += 1
    assert it(passed(other), mel, lengths)[name] != first


def test_shares_make_the_mean_over_parts_the_mean_over_frames():
    torch.manual_seed(0)
    mel, other, lengths = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.tensor([8, 4])

    def part(items: slice, commitment: float, shares: Shares = EVEN):
        return objective(torch.ones(5), l1=1.0)(passed(other[items], commitment), mel[items], lengths[items], shares)

    whole = part(slice(0, 2), 0.7)
    parts = [
        part(slice(i, i + 1), 0.3 + i, Shares(frames=2 * length / 12, codes=2 * codes / 3))
        for i, (length, codes) in enumerate(((8, 2), (4, 1)))
    ]
    assert sum(part["l1"] for part in parts) / 2 == pytest.approx(whole["l1"].item())
    assert sum(part["commitment"] for part in parts) / 2 == pytest.approx((2 * 0.3 + 1.3) / 3)
