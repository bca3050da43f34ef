"""The bench: what is counted, how shares follow, and that nothing is left changed. No test looks at a clock."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from melcodec.bench.machine import Machine, describe_machine
from melcodec.bench.operations import OperationCount, count
from melcodec.bench.run import WARM_UP, Figure, beside, faster, in_turn, limit_of, measure
from melcodec.bench.tasks import BenchSettings, products, synthetic_speech
from melcodec.codec import Codec
from melcodec.devices import computes_bfloat16
from melcodec.errors import MelcodecError

CPU = torch.device("cpu")
SMALL = BenchSettings(seconds=0.5, repeats=3, gemm_size=64, copy_bytes=1 << 16)
REST = "none of the three; what is left is other arithmetic (logarithms, transforms) and waiting."
STAGES = ["mel", "encode", "decode", "vocoder", "training step"]


@pytest.fixture(scope="module")
def codec(tiny_checkpoint) -> Codec:
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def figures(codec) -> dict[str, Figure]:
    return {figure.name: figure for figure in measure(codec, SMALL)}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_layers_are_counted(mode):
    """A multiplication and an addition for each weight and output, whatever torch makes of a layer on the way."""
    linear, conv = nn.Linear(5, 7), nn.Conv1d(4, 6, 3, padding=1)
    with mode():
        assert count(lambda: linear(torch.ones(3, 5))).flops == 2 * 3 * 5 * 7
        assert count(lambda: conv(torch.ones(2, 4, 10))).flops == 2 * 2 * 10 * 6 * 4 * 3


def test_a_backward_pass_is_counted():
    """Twice the forward one: for the inputs and for the weights."""
    linear, x = nn.Linear(5, 7), torch.ones(3, 5, requires_grad=True)
    assert count(lambda: linear(x).sum().backward()).flops == 3 * (2 * 3 * 5 * 7)


def test_transforms_are_counted():
    one = 2.5 * 1024 * math.log2(1024)
    assert count(lambda: torch.fft.rfft(torch.ones(3, 1024))).flops == 3 * one
    assert count(lambda: torch.fft.irfft(torch.ones(3, 513, dtype=torch.complex64))).flops == 3 * one


def test_bytes_and_operations_are_counted():
    a, b, narrow = torch.ones(10, 10), torch.ones(10, 10), torch.ones(10)
    size = a.numel() * a.itemsize
    cases = {
        "both are read, one is written": (lambda: a + b, 3 * size, 1),
        "in place": (lambda: a.add_(b), 3 * size, 1),
        "what is overwritten is not read": (lambda: a.copy_(b), 2 * size, 1),
        "filled": (a.zero_, size, 1),
        "views move nothing": (lambda: a.T[2:].unsqueeze(0).expand(4, 8, 10), 0, 0),
        "room is nothing": (lambda: torch.empty(10, 10), 0, 0),
        "what is repeated is read once": (lambda: a + narrow.expand(10, 10), 2 * size + narrow.numel() * 4, 1),
        "two": (lambda: torch.exp(a + b), 5 * size, 2),
        "a list": (lambda: torch.cat([a, b]), 4 * size, 1),
    }
    for name, (run, moved, operations) in cases.items():
        assert count(run) == OperationCount(0, moved, operations), name


def test_work_of_the_codec(codec, figures):
    """Encoding is the encoder's convolutions and the distances to the codebook, decoding the decoder's."""
    spent = {"encoder": 0, "decoder": 0}

    def add(half):
        def hook(layer, inputs, output):
            spent[half] += 2 * output.numel() * layer.in_channels * layer.kernel_size[0]

        return hook

    model, frames = codec.model, codec.frontend.num_frames(int(SMALL.seconds * codec.sample_rate))
    handles = [
        layer.register_forward_hook(add(half))
        for half in spent
        for layer in getattr(model, half).modules()
        if isinstance(layer, nn.Conv1d)
    ]
    codes = codec.encode_mel(torch.ones(1, 80, frames))
    codec.decode_to_mel(codes)
    for handle in handles:
        handle.remove()
    distances = 2 * codes.numel() * model.codebook.code_dim * model.sizes[0]
    assert figures["encode"].work.flops == spent["encoder"] + distances
    assert figures["decode"].work.flops == spent["decoder"]
    assert figures["mel"].work.flops > 0
    assert figures["vocoder"].work.flops > 10 * figures["mel"].work.flops
    assert figures["training step"].work.flops > 2 * (figures["encode"].work.flops + figures["decode"].work.flops)


def test_figures_and_their_shares(figures):
    """A share is what is done in a second, over what the ceiling does in one."""
    fast = computes_bfloat16(CPU)
    bare = ["GEMM float32", *(["GEMM bfloat16"] if fast else []), "memory copy", "operation start"]
    assert list(figures) == bare + STAGES
    for name in bare:
        assert figures[name].gemm_share is figures[name].memory_share is figures[name].start_share is None
        assert figures[name].limit == ""
    copied, started = figures["memory copy"], figures["operation start"]
    assert figures["GEMM float32"].median == pytest.approx(2 * 64**3 / figures["GEMM float32"].seconds / 1e9)
    assert copied.median == pytest.approx(2 * SMALL.copy_bytes / copied.seconds / 1e9)
    assert started.median == pytest.approx(started.seconds / started.work.operations * 1e6)
    for name in STAGES:
        figure, product = figures[name], figures[f"GEMM {figures[name].precision}"]
        assert figure.gemm_share == pytest.approx(figure.work.flops / figure.seconds / (product.median * 1e9))
        assert figure.memory_share == pytest.approx(figure.work.moved / figure.seconds / (copied.median * 1e9))
        assert figure.start_share == pytest.approx(figure.work.operations * started.median / 1e6 / figure.seconds)
        assert figure.low <= figure.median <= figure.high
        assert figure.unit == "x real time"
        assert figure.limit == limit_of(figure.gemm_share, figure.memory_share, figure.start_share, figure)
    for name in STAGES[:-1]:
        assert figures[name].median * figures[name].seconds == pytest.approx(SMALL.seconds)
        assert figures[name].precision == "float32"
    training = figures["training step"]
    assert training.median * training.seconds == pytest.approx(32 * 128 * 256 / 22_050)
    assert training.precision == ("bfloat16" if fast else "float32")


def test_settings_are_heeded(codec, figures):
    other = replace(SMALL, seconds=1.0, repeats=1, gemm_size=32, copy_bytes=1 << 12)
    updates = []
    found = {figure.name: figure for figure in measure(codec, other, lambda done, total: updates.append((done, total)))}
    assert 1.8 < found["encode"].work.flops / figures["encode"].work.flops < 2.2
    assert found["GEMM float32"].work.flops == 2 * 32**3
    assert found["memory copy"].work.moved == 2 << 12
    assert found["encode"].low == found["encode"].high
    assert figures["encode"].low < figures["encode"].high
    assert updates[-1][0] == updates[-1][1] == len(updates)


def test_the_codec_and_the_random_state_stay(codec):
    before = {name: tensor.clone() for name, tensor in codec.model.state_dict().items()}
    state = torch.get_rng_state()
    measure(codec, replace(SMALL, repeats=1))
    after = codec.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not codec.model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_tasks_take_turns():
    """Ceilings and stages meet the same moments of the machine; the warm-up is not among the times."""
    order: list[str] = []
    times = in_turn([lambda: order.append("a"), lambda: order.append("b")], 4, CPU, lambda done, total: None)
    assert "".join(order) == "ab" * (WARM_UP + 4)
    assert [len(each) for each in times] == [4, 4]


def test_products_of_both_libraries():
    """BLAS and oneDNN, where there are both; bfloat16 is oneDNN's in either way."""
    assert len(list(products(CPU, torch.float32, SMALL))) == 1 + torch.backends.mkldnn.is_available()
    assert len(list(products(CPU, torch.bfloat16, SMALL))) == 1
    for task in (*products(CPU, torch.float32, SMALL), *products(CPU, torch.bfloat16, SMALL)):
        assert task.work == OperationCount(2 * 64**3, 3 * 64**2 * (4 if task.precision == "float32" else 2), 1)
        task.run()


def figure(name: str, seconds: float, work: OperationCount) -> Figure:
    return Figure(name, "", 0, 0, 0, seconds, "float32", work)


def test_of_two_products_the_faster_is_the_ceiling():
    work = OperationCount(1e9, 0, 1)
    slow, fast, copied = figure("GEMM", 2, work), figure("GEMM", 1, work), figure("copy", 3, work)
    for order in ((slow, fast, copied), (fast, slow, copied)):
        assert faster(order) == {"GEMM": fast, "copy": copied}


def test_a_share_of_each_ceiling():
    known = {
        "GEMM float32": figure("GEMM float32", 2.0, OperationCount(200.0, 0, 1)),  # 100 FLOP/s
        "memory copy": figure("memory copy", 0.5, OperationCount(0, 20.0, 1)),  # 40 B/s
        "operation start": figure("operation start", 1.0, OperationCount(0, 0, 10)),  # 0.1 s each
    }
    found = beside(figure("encode", 4.0, OperationCount(300.0, 80.0, 6)), known)
    assert (found.gemm_share, found.memory_share, found.start_share) == pytest.approx((0.75, 0.5, 0.15))
    assert found.limit == "arithmetic: 75% of a bare float32 matrix product"


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.8, 0.6, 0.1), "arithmetic: 80% of a bare float32 matrix product"),
        ((0.3, 0.6, 0.1), "memory: its operations read and write at 60% of a bare copy"),
        ((0.3, 1.4, 0.1), "the caches: its operations read and write at 140% of a bare copy"),
        ((0.1, 0.2, 0.7), "overhead: starting its 6 operations alone takes 70% of its time"),
        ((0.1, 0.2, 1.3), "overhead: starting its 6 operations alone takes 100% of its time"),
        ((0.4, 0.2, 0.1), f"{REST} Nearest is arithmetic: 40% of a bare float32 matrix product"),
    ],
)
def test_what_limits(shares, words):
    assert limit_of(*shares, figure("encode", 1.0, OperationCount(1, 1, 6))) == words


def test_synthetic_speech():
    wav = synthetic_speech(2, 22_050, 22_050)
    assert (wav.shape, wav.dtype) == ((2, 22_050), torch.float32)
    assert torch.equal(wav, synthetic_speech(2, 22_050, 22_050))
    assert not torch.equal(wav[0], wav[1])
    assert wav.abs().amax(dim=-1).tolist() == pytest.approx([0.5, 0.5])
    spectrum = torch.fft.rfft(wav).abs()  # 1 Hz a bin
    assert spectrum[:, 100:500].mean() > 10 * spectrum[:, 4000:8000].mean()


@pytest.mark.parametrize(("seconds", "repeats"), [(0, 5), (float("nan"), 5), (float("inf"), 5), (3601, 5), (10, 0)])
def test_settings_that_measure_nothing(seconds, repeats):
    with pytest.raises(MelcodecError, match="measure"):
        BenchSettings(seconds, repeats)


def test_the_machine():
    machine = describe_machine(CPU)
    assert machine.cpu
    assert machine.cores >= 1
    assert (machine.threads, machine.torch, machine.device) == (torch.get_num_threads(), torch.__version__, "cpu")
    loads = {load: Machine("", 4, 4, "", "cpu", load).busy for load in (None, 0.0, 1.9, 2.1, 9.0)}
    assert loads == {None: False, 0.0: False, 1.9: False, 2.1: True, 9.0: True}
