"""What is timed: the ceilings of a device, and the stages of the codec, as bare as they can be."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melcodec.bench.operations import OperationCount
from melcodec.codec import Codec
from melcodec.config import DataConfig, ObjectiveConfig, OptimizerConfig
from melcodec.devices import computes_bfloat16, exact_float32
from melcodec.errors import MelcodecError
from melcodec.objective.build import Objective

STARTS = 1000  # operations a pass, when their start is measured
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}  # rows and columns: 17 GFLOP on a CPU, 1.1 TFLOP on a GPU
COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}  # larger than the caches
LONGEST = 3600.0  # seconds of speech
FLOAT32, BFLOAT16, REAL_TIME = "float32", "bfloat16", "x real time"


@dataclass(frozen=True)
class BenchSettings:
    """How to measure.

    Args:
        seconds: of speech that goes through the codec, 0.1 to 3,600.
        repeats: timed passes after the warm-up; the median counts.
        gemm_size: rows and columns of the bare matrix product; None: as the device likes it.
        copy_bytes: of the array that is copied; None: larger than the device's caches.
    """

    seconds: float = 10.0
    repeats: int = 5
    gemm_size: int | None = None
    copy_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= LONGEST:  # NaN is not, either
            raise MelcodecError(f"{self.seconds} seconds of speech cannot be measured", f"give 0.1 to {LONGEST:.0f}")
        if self.repeats < 1:
            raise MelcodecError(f"{self.repeats} repeats measure nothing", "give at least 1")


@dataclass(frozen=True)
class Benchmark:
    """Something to time.

    Args:
        run: one pass.
        unit, value: of the figure, and how it follows from the seconds of a pass.
        work: of a pass, where it is known beforehand.
    """

    name: str
    run: Callable[[], object]
    unit: str
    value: Callable[[float], float]
    precision: str = FLOAT32
    work: OperationCount | None = None


def ceilings(device: torch.device, settings: BenchSettings) -> Iterator[Benchmark]:
    """The bare tasks; of two with one name the faster counts. bfloat16 only where the device has it in hardware."""
    yield from products(device, torch.float32, settings)
    if computes_bfloat16(device):
        yield from products(device, torch.bfloat16, settings)
    yield copying(device, settings)
    yield starting(device)


def products(device: torch.device, dtype: torch.dtype, settings: BenchSettings) -> Iterator[Benchmark]:
    """A square matrix product from each library that torch has for it; float32 without TF32, as the codec computes.

    On a CPU that is BLAS and oneDNN, and convolutions use the latter: on AMD's it is twice as fast as MKL.
    """
    size = settings.gemm_size or GEMM_SIZE.get(device.type, GEMM_SIZE["cpu"])
    seeded = torch.Generator(device).manual_seed(0)  # the caller's own draws stay as they are
    left, right = torch.randn(2, size, size, generator=seeded, device=device).to(dtype)
    precision = str(dtype).removeprefix("torch.")
    work = OperationCount(2.0 * size**3, 3.0 * size**2 * left.itemsize, 1)

    def exactly(run: Callable[[], object]) -> Benchmark:
        def product() -> None:
            with exact_float32(device):
                run()

        return Benchmark(f"GEMM {precision}", product, "GFLOP/s", lambda spent: work.flops / spent / 1e9, precision, work)

    yield exactly(lambda: torch.mm(left, right))
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type == "cpu" and onednn and dtype == torch.float32:  # bfloat16 is oneDNN's already
        blocked = left.to_mkldnn()
        yield exactly(lambda: F.linear(blocked, right))


def copying(device: torch.device, settings: BenchSettings) -> Benchmark:
    """GB/s of a copy, what is read and what is written together."""
    size = settings.copy_bytes or COPY_BYTES.get(device.type, COPY_BYTES["cpu"])
    source = torch.ones(size, device=device, dtype=torch.uint8)  # zeros might share one page
    target = torch.ones_like(source)
    work = OperationCount(0.0, 2.0 * size, 1)
    return Benchmark("memory copy", lambda: target.copy_(source), "GB/s", lambda spent: work.moved / spent / 1e9, work=work)


def starting(device: torch.device) -> Benchmark:
    """Microseconds to start an operation: additions to one number, one after the other."""
    number = torch.zeros(1, device=device)

    def run() -> None:
        for _ in range(STARTS):
            number.add_(1)

    work = OperationCount(0.0, 8.0 * STARTS, STARTS)
    return Benchmark("operation start", run, "us", lambda spent: spent / STARTS * 1e6, work=work)


def stages(codec: Codec, settings: BenchSettings) -> list[Benchmark]:
    """The codec's stages, each with its input in the device's memory."""
    num_samples = int(settings.seconds * codec.sample_rate)
    wav = synthetic_speech(1, num_samples, codec.sample_rate).to(codec.device)
    mel = codec.mel(wav)
    codes = codec.encode_mel(mel)
    runs: dict[str, Callable[[], object]] = {
        "mel": lambda: codec.mel(wav),
        "encode": lambda: codec.encode_mel(mel),
        "decode": lambda: codec.decode_to_mel(codes, num_samples),
        "vocoder": lambda: codec.vocoder(mel, num_samples),
    }
    speech = num_samples / codec.sample_rate
    return [*(Benchmark(name, run, REAL_TIME, lambda spent: speech / spent) for name, run in runs.items()), training_step(codec)]


def training_step(codec: Codec) -> Benchmark:
    """Forward, backward and AdamW on one batch of the trainer's size, in memory, as bare as they can be.

    bfloat16 where the trainer would use it. A copy of the model is trained.
    """
    data, hop = DataConfig(), codec.frontend.hop_length
    wavs = synthetic_speech(data.batch_size, (data.crop_frames - 1) * hop, codec.sample_rate)
    mel = codec.frontend.normalize(codec.mel(wavs)).clone()  # outside of inference mode, so that gradients may need it
    model = copy.deepcopy(codec.model).train().requires_grad_(True)
    rate, objective = OptimizerConfig().lr, Objective(ObjectiveConfig(), codec.frontend.norms)
    optimizer = torch.optim.AdamW(model.parameters(), rate, fused=True)
    fast = computes_bfloat16(codec.device)

    def precision() -> AbstractContextManager[Any]:
        return torch.autocast(codec.device.type, torch.bfloat16) if fast else nullcontext()

    def run() -> None:
        with precision():
            output = model(mel)
        objective.total(objective(output, mel)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    speech = data.batch_size * data.crop_frames * hop / codec.sample_rate
    return Benchmark("training step", run, REAL_TIME, lambda spent: speech / spent, BFLOAT16 if fast else FLOAT32)


def synthetic_speech(batch: int, num_samples: int, rate: int) -> Tensor:
    """(B, S) float32 in [-0.5, 0.5]: noise that falls off above 500 Hz and swells four times a second, always the same.

    Times do not depend on what is said, only on its length; silence alone would be special.
    """
    noise = torch.randn(batch, num_samples, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(noise)
    frequencies = torch.fft.rfftfreq(num_samples, 1 / rate)
    shaped = torch.fft.irfft(spectrum / (1 + (frequencies / 500) ** 2), num_samples)
    syllables = 0.55 - 0.45 * torch.cos(2 * math.pi * 4 * torch.arange(num_samples) / rate)
    shaped = shaped * syllables
    return shaped * (0.5 / shaped.abs().amax(dim=-1, keepdim=True))
