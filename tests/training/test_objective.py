from __future__ import annotations

import pytest
import torch

from melcodec.config import ObjectiveConfig
from melcodec.training.objective import losses
from melcodec.vqvae import VQVAEOutput

MEL = torch.zeros(1, 2, 2)


def output(dtype: torch.dtype = torch.float32) -> VQVAEOutput:
    reconstruction = torch.tensor([[[1.0, -3.0], [0.0, 0.0]]], dtype=dtype, requires_grad=True)
    return VQVAEOutput(reconstruction, torch.zeros(1, 3, 1), torch.zeros(1, 1, 1, dtype=torch.int64), torch.tensor(0.5))


@pytest.mark.parametrize(("kind", "expected"), [("mse", 10 / 4), ("l1", 4 / 4)])
@pytest.mark.parametrize("weight", [0.0, 0.25, 2.0])
def test_losses_by_hand(kind, expected, weight):
    found = losses(ObjectiveConfig(reconstruction=kind, commitment_weight=weight), output(), MEL)
    assert found.reconstruction.item() == expected
    assert found.commitment.item() == 0.5
    assert found.total.item() == expected + weight * 0.5


def test_float32_whatever_the_model_computes_in():
    found = losses(ObjectiveConfig(), output(torch.bfloat16), MEL)
    assert found.total.dtype == torch.float32
