"""Times the tasks in turn, and sets each stage beside the ceilings: its shares say what limits it.

Three bare figures are ceilings: a matrix product (GEMM), a copy of memory and the start of one operation. The shares
travel from machine to machine; seconds do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from melcodec.bench.operations import OperationCount, count
from melcodec.bench.tasks import Benchmark, BenchSettings, ceilings, stages
from melcodec.codec import Codec

WARM_UP = 2  # passes: the first picks kernels and takes memory, the second finds both
LIMITING = 0.5  # share of a ceiling from which on it is called the limit


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
    work: OperationCount
    gemm_share: float | None = None
    memory_share: float | None = None
    start_share: float | None = None
    limit: str = ""


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


def figure_of(task: Benchmark, times: list[float]) -> Figure:
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
