"""What this machine does with the codec, beside what it does with nothing but arithmetic, memory or operations.

Three bare figures are ceilings: a matrix product (GEMM), a copy of memory and the start of one operation. The stages of
the codec are counted (operations, what they compute and what they move) and timed, so that each is a share of every
ceiling. The shares travel from machine to machine and say what limits a stage; seconds do not.
"""

from __future__ import annotations

import copy
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from melcodec.codec import Codec
from melcodec.config import DataConfig, ObjectiveConfig, OptimizerConfig
from melcodec.devices import computes_bfloat16, exact_float32
from melcodec.errors import MelcodecError

WARM_UP = 2  # passes: the first picks kernels and takes memory, the second finds both
STARTS = 1000  # operations a pass, when their start is measured
LIMITING = 0.5  # share of a ceiling from which on it is called the limit
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}  # rows and columns: 17 GFLOP on a CPU, 1.1 TFLOP on a GPU
COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}  # larger than the caches
LONGEST = 3600.0  # seconds of speech
BUSY = 0.5  # load per core
FLOAT32, BFLOAT16, REAL_TIME = "float32", "bfloat16", "x real time"
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}  # aten's names
OVERWRITES = {"copy_", "fill_", "zero_"}  # what they write they do not read


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
class Work:
    """What one pass does.

    Args:
        flops: multiplications and additions of matrix products, convolutions and Fourier transforms.
        moved: bytes that operations read and write, as if no cache kept anything between two of them.
        operations: that were started; views are none.
    """

    flops: float
    moved: float
    operations: int


@dataclass(frozen=True)
class Figure:
    """One line of the bench: a ceiling, whose shares are None, or a stage of the codec.

    Args:
        name: such as ``GEMM float32`` or ``encode``.
        unit: of the next three: GFLOP/s, GB/s, us (microseconds an operation) or x real time.
        median, low, high: over the repeats.
        seconds: median of one pass.
        precision: float32 or bfloat16, of the GEMM that it is compared with.
        work: of one pass.
        gemm_share: work.flops / seconds, as a share of the bare GEMM in ``precision``.
        memory_share: work.moved / seconds, as a share of the bare copy; above 1 the caches help.
        start_share: what starting work.operations alone would take, as a share of seconds.
        limit: what limits it, in words; empty for a ceiling.
    """

    name: str
    unit: str
    median: float
    low: float
    high: float
    seconds: float
    precision: str
    work: Work
    gemm_share: float | None = None
    memory_share: float | None = None
    start_share: float | None = None
    limit: str = ""


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Args:
        cores: that this process may use.
        threads: that torch uses.
        load: processes that wanted a core, mean of the last minute; None where the system does not say.
    """

    cpu: str
    cores: int
    threads: int
    torch: str
    device: str
    load: float | None

    @property
    def busy(self) -> bool:
        """Whether others are at work here, so that the figures will be too low."""
        return self.load is not None and self.load > BUSY * self.cores


@dataclass(frozen=True)
class Task:
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
    work: Work | None = None


def measure(codec: Codec, settings: BenchSettings, update: Callable[[int, int], None] = lambda done, total: None) -> list[Figure]:
    """The ceilings of the codec's device, then mel, encode, decode, vocoder and training step; ``codec`` stays as it is.

    Passes are timed in turn, so that a slow moment of the machine hits ceilings and stages alike.

    Args:
        update: told (passes done, passes in all).
    """
    device = codec.device
    bare, work = list(ceilings(device, settings)), stages(codec, settings)
    times = in_turn([task.run for task in bare + work], settings.repeats, device, update)
    figures = [figure_of(task, spent) for task, spent in zip(bare + work, times, strict=True)]
    known = faster(figures[: len(bare)])
    return [*known.values(), *(beside(stage, known) for stage in figures[len(bare) :])]


def ceilings(device: torch.device, settings: BenchSettings) -> Iterator[Task]:
    """The bare tasks; of two with one name the faster counts. bfloat16 only where the device has it in hardware."""
    yield from products(device, torch.float32, settings)
    if computes_bfloat16(device):
        yield from products(device, torch.bfloat16, settings)
    yield copying(device, settings)
    yield starting(device)


def products(device: torch.device, dtype: torch.dtype, settings: BenchSettings) -> Iterator[Task]:
    """A square matrix product from each library that torch has for it; float32 without TF32, as the codec computes.

    On a CPU that is BLAS and oneDNN, and convolutions use the latter: on AMD's it is twice as fast as MKL.
    """
    size = settings.gemm_size or GEMM_SIZE.get(device.type, GEMM_SIZE["cpu"])
    seeded = torch.Generator(device).manual_seed(0)  # the caller's own draws stay as they are
    left, right = torch.randn(2, size, size, generator=seeded, device=device).to(dtype)
    precision = str(dtype).removeprefix("torch.")
    work = Work(2.0 * size**3, 3.0 * size**2 * left.itemsize, 1)

    def exactly(run: Callable[[], object]) -> Task:
        def product() -> None:
            with exact_float32(device):
                run()

        return Task(f"GEMM {precision}", product, "GFLOP/s", lambda spent: work.flops / spent / 1e9, precision, work)

    yield exactly(lambda: torch.mm(left, right))
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type == "cpu" and onednn and dtype == torch.float32:  # bfloat16 is oneDNN's already
        blocked = left.to_mkldnn()
        yield exactly(lambda: F.linear(blocked, right))


def copying(device: torch.device, settings: BenchSettings) -> Task:
    """GB/s of a copy, what is read and what is written together."""
    size = settings.copy_bytes or COPY_BYTES.get(device.type, COPY_BYTES["cpu"])
    source = torch.ones(size, device=device, dtype=torch.uint8)  # zeros might share one page
    target = torch.ones_like(source)
    work = Work(0.0, 2.0 * size, 1)
    return Task("memory copy", lambda: target.copy_(source), "GB/s", lambda spent: work.moved / spent / 1e9, work=work)


def starting(device: torch.device) -> Task:
    """Microseconds to start an operation: additions to one number, one after the other."""
    number = torch.zeros(1, device=device)

    def run() -> None:
        for _ in range(STARTS):
            number.add_(1)

    work = Work(0.0, 8.0 * STARTS, STARTS)
    return Task("operation start", run, "us", lambda spent: spent / STARTS * 1e6, work=work)


def stages(codec: Codec, settings: BenchSettings) -> list[Task]:
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
    return [*(Task(name, run, REAL_TIME, lambda spent: speech / spent) for name, run in runs.items()), training_step(codec)]


def training_step(codec: Codec) -> Task:
    """Forward, backward and AdamW on one batch of the trainer's size, in memory, as bare as they can be.

    bfloat16 where the trainer would use it. A copy of the model is trained.
    """
    data, hop = DataConfig(), codec.frontend.hop_length
    wavs = synthetic_speech(data.batch_size, (data.crop_frames - 1) * hop, codec.sample_rate)
    mel = codec.frontend.normalize(codec.mel(wavs)).clone()  # outside of inference mode, so that gradients may need it
    model = copy.deepcopy(codec.model).train().requires_grad_(True)
    rate, weight = OptimizerConfig().lr, ObjectiveConfig().commitment_weight
    optimizer = torch.optim.AdamW(model.parameters(), rate, fused=True)
    fast = computes_bfloat16(codec.device)

    def precision() -> AbstractContextManager[Any]:
        return torch.autocast(codec.device.type, torch.bfloat16) if fast else nullcontext()

    def run() -> None:
        with precision():
            output = model(mel)
        (F.mse_loss(output.reconstruction.float(), mel) + weight * output.commitment).backward()
        optimizer.step()
        optimizer.zero_grad()

    speech = data.batch_size * data.crop_frames * hop / codec.sample_rate
    return Task("training step", run, REAL_TIME, lambda spent: speech / spent, BFLOAT16 if fast else FLOAT32)


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


def figure_of(task: Task, times: list[float]) -> Figure:
    """``task`` as its ``times`` show it, compared with nothing yet."""
    values = [task.value(spent) for spent in times]
    spread = statistics.median(values), min(values), max(values)
    work = task.work or count(task.run)
    return Figure(task.name, task.unit, *spread, statistics.median(times), task.precision, work)


def faster(figures: Iterable[Figure]) -> dict[str, Figure]:
    """Figures by name, in order; of several with one name the one that took the least time."""
    found: dict[str, Figure] = {}
    for figure in figures:
        if figure.name not in found or figure.seconds < found[figure.name].seconds:
            found[figure.name] = figure
    return found


def beside(stage: Figure, known: dict[str, Figure]) -> Figure:
    """``stage`` with its shares of the ceilings ``known`` by name."""
    product, copied, started = known[f"GEMM {stage.precision}"], known["memory copy"], known["operation start"]
    work = stage.work
    gemm = work.flops / stage.seconds * product.seconds / product.work.flops
    memory = work.moved / stage.seconds * copied.seconds / copied.work.moved
    starts = work.operations / stage.seconds * started.seconds / started.work.operations
    words = limit_of(gemm, memory, starts, stage)
    return replace(stage, gemm_share=gemm, memory_share=memory, start_share=starts, limit=words)


def limit_of(gemm: float, memory: float, starts: float, stage: Figure) -> str:
    """What limits ``stage`` with these shares, in words: the nearest ceiling, and whether it is near."""
    ceilings = (
        (gemm, f"arithmetic: {gemm:.0%} of a bare {stage.precision} matrix product"),
        (memory, f"{'memory' if memory <= 1 else 'the caches'}: its operations read and write at {memory:.0%} of a bare copy"),
        (starts, f"overhead: starting its {stage.work.operations} operations alone takes {min(starts, 1):.0%} of its time"),
    )
    share, words = max(ceilings)
    if share >= LIMITING:
        return words
    return f"none of the three; what is left is other arithmetic (logarithms, transforms) and waiting. Nearest is {words}"


def in_turn(
    runs: Sequence[Callable[[], object]], repeats: int, device: torch.device, update: Callable[[int, int], None]
) -> list[list[float]]:
    """Seconds of each of ``repeats`` passes of each of ``runs``, until the device is done; a warm-up goes before."""
    times: list[list[float]] = [[] for _ in runs]
    rounds = WARM_UP + repeats
    for turn in range(rounds):
        for index, run in enumerate(runs):
            synchronize(device)
            began = time.perf_counter()
            run()
            synchronize(device)
            times[index].append(time.perf_counter() - began)
            update(turn * len(runs) + index + 1, rounds * len(runs))
    return [each[WARM_UP:] for each in times]


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def count(run: Callable[[], object]) -> Work:
    """What one pass of ``run`` does; it runs once, slowly."""
    aten: Any = torch.ops.aten
    transforms = {aten._fft_r2c: _real_to_complex, aten._fft_c2r: _complex_to_real}
    with FlopCounterMode(display=False, custom_mapping=transforms) as flops, _Traffic() as traffic:
        run()
    return Work(float(flops.get_total_flops()), float(traffic.moved), traffic.operations)


def _real_to_complex(shape: torch.Size, *rest: Any, **named: Any) -> int:
    # 5 n log2 n for a complex transform and half of it for a real one, as FFTW's benchmarks count (fftw.org/speed)
    last = shape[rest[0][-1]]
    return round(2.5 * math.prod(shape) * math.log2(last))


def _complex_to_real(shape: torch.Size, *rest: Any, **named: Any) -> int:
    dims, _, last = rest
    return round(2.5 * math.prod(shape) / shape[dims[-1]] * last * math.log2(last))


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's __init_subclass__
    """Counts operations and the bytes of their operands and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved = self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        with self:  # inference mode hands over whole what gradient mode has taken apart already
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        result = func(*args, **kwargs)
        self._add(func, _tensors((args, kwargs)), _tensors(result))
        return result

    def _add(self, func: Any, operands: list[Tensor], results: list[Tensor]) -> None:
        name = func.overloadpacket.__name__
        mutable = func._schema.is_mutable
        held = {_address(tensor) for tensor in operands}
        if name in ALLOCATIONS or (not mutable and results and all(_address(tensor) in held for tensor in results)):
            return  # room, or a view: nothing moves
        if name in OVERWRITES:
            operands = operands[1:]
        self.operations += 1
        self.moved += sum(map(_num_bytes, operands)) + sum(map(_num_bytes, results))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _num_bytes(tensor: Tensor) -> int:
    """Of what ``tensor`` shows; an expanded one shows less than it seems to."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())


def describe_machine(device: torch.device) -> Machine:
    """What will measure: ask before, because measuring is a load, too."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return Machine(_cpu_name(), _cores(), torch.get_num_threads(), str(torch.__version__), name, load)


def _cores() -> int:
    # a container or taskset may leave fewer than the machine has; not every system can say
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    """As Linux calls it, elsewhere as python does."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
