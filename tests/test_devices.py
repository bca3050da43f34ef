"""Devices by name, and what they compute in."""

from __future__ import annotations

import pytest
import torch

from melcodec.devices import computes_bfloat16, exact_float32, find_device
from melcodec.errors import MelcodecError


def test_devices():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "tpu", "meta"):
        with pytest.raises(MelcodecError, match=name):
            find_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_one_is_refused():
    with pytest.raises(MelcodecError, match="0 CUDA devices"):
        find_device("cuda")


def test_exact_float32_leaves_things_as_they_were():
    before = torch.backends.cudnn.allow_tf32
    with exact_float32(torch.device("cuda")):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
    with exact_float32(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32 == before


def test_bfloat16_is_hardware():
    assert isinstance(computes_bfloat16(torch.device("cpu")), bool)
    assert not computes_bfloat16(torch.device("mps"))
