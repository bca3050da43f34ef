"""Devices by name, and what they compute in."""

from __future__ import annotations

import threading

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


@pytest.fixture
def product():
    """A function whose result shows in which precision a matrix product was computed, where the CPU has bfloat16."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(64, 256, generator=generator), torch.randn(256, 64, generator=generator)
    return lambda: left @ right


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_exact_float32_leaves_things_as_they_were(precision, product):
    cudnn, exact = torch.backends.cudnn, product()
    torch.set_float32_matmul_precision(precision)
    before = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)
    try:
        with exact_float32(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (*before[:3], False)
            assert torch.equal(product(), exact)
        assert torch.get_float32_matmul_precision() == precision
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_exact_float32_turns_autocast_off(product):
    exact = product()
    with torch.autocast("cpu", torch.bfloat16):
        assert product().dtype == torch.bfloat16
        with exact_float32(torch.device("cpu")):
            assert torch.equal(product(), exact)
        assert product().dtype == torch.bfloat16


def test_an_error_inside_leaves_things_as_they_were_too():
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(ZeroDivisionError), exact_float32(torch.device("cpu")):
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_no_thread_lowers_the_precision_of_another():
    """One thread leaves while another is still computing; only the last one may restore the caller's setting."""
    inside, leave = threading.Event(), threading.Event()
    seen: list[str] = []

    def slow():
        with exact_float32(torch.device("cpu")):
            inside.set()
            leave.wait(10)
            seen.append(torch.get_float32_matmul_precision())

    torch.set_float32_matmul_precision("medium")
    try:
        with exact_float32(torch.device("cpu")):
            thread = threading.Thread(target=slow)
            thread.start()
            assert inside.wait(10)
        assert torch.get_float32_matmul_precision() == "highest"  # the other one is not done
        leave.set()
        thread.join()
        assert seen == ["highest"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_many_threads_leave_things_as_they_were(product):
    exact, wrong = product(), []

    def work():
        for _ in range(200):
            with exact_float32(torch.device("cpu")):
                if torch.get_float32_matmul_precision() != "highest" or torch.backends.cudnn.allow_tf32:
                    wrong.append("reduced")
                if not torch.equal(product(), exact):
                    wrong.append("other bits")

    torch.set_float32_matmul_precision("medium")
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


NEW_SWITCHES = """
import torch
from melcodec.devices import exact_float32

left, right = torch.randn(64, 256), torch.randn(256, 64)
exact = left @ right
switches = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.cuda.matmul, torch.backends.cudnn.conv
wanted = "bf16", "bf16", "tf32", "tf32"
for switch, value in zip(switches, wanted):
    switch.fp32_precision = value
with exact_float32(torch.device("cpu")):
    assert [switch.fp32_precision for switch in switches] == ["ieee"] * 4
    assert torch.equal(left @ right, exact)
assert tuple(switch.fp32_precision for switch in switches) == wanted
"""


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch 2.9 brought these switches")
def test_the_new_switches_are_obeyed_and_restored(run_python):
    run_python(NEW_SWITCHES)  # in a process of its own: beside them the old ones cannot be read any more


def test_bfloat16_is_hardware():
    assert isinstance(computes_bfloat16(torch.device("cpu")), bool)
    assert not computes_bfloat16(torch.device("mps"))
