"""Where tensors live, and how precisely they are computed there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from melcodec.errors import MelcodecError

FLOAT32_OPERATORS = (("cudnn", "conv"), ("cuda", "matmul"), ("mkldnn", "conv"), ("mkldnn", "matmul"))
REDUCED = ("tf32", "bf16")
CPU_BFLOAT16 = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # private in torch, so absence means no


def find_device(name: str) -> torch.device:
    """The device that ``name`` means; ``auto`` prefers CUDA, then MPS, then the CPU.

    Raises:
        MelcodecError: unknown, or not on this machine.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise MelcodecError(f"--device {name}: no such kind of device", "auto, cpu, cuda, cuda:0, mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MelcodecError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices", "use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise MelcodecError("--device mps: not available on this machine", "use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise MelcodecError(f"--device {name}: not supported", "auto, cpu, cuda, cuda:0, mps")
    return device


def exact_float32(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in float32 whatever the caller has set: no autocast, no TF32, no bfloat16 inside matrix products.

    Lower precision changes codes (14 % in float16, 42 % in bfloat16). Never yield out of this block: the switches are
    the process's, and the caller's settings must be back when the caller runs.

    Any number of threads may be inside at once. The first one switches, and the last one restores what the first one found,
    so that no thread's leaving lowers the precision of another one's work. torch has no switch per thread or per call:
    what other threads compute meanwhile is computed in full float32, too.

    Inside of torch.compile only autocast is off: a graph cannot switch the process's switches.
    """
    return torch.autocast(device.type, enabled=False) if torch.compiler.is_compiling() else _exact_float32(device)


@contextmanager
def _exact_float32(device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, enabled=False):
        _switches.enter()
        try:
            yield
        finally:
            _switches.leave()


class _Switches:
    """The process's switches for reduced precision, off while at least one thread needs them off."""

    def __init__(self) -> None:
        self._lock, self._inside, self._restore = threading.Lock(), 0, ExitStack()

    def enter(self) -> None:
        """Count one more; the first one switches off."""
        with self._lock:
            if self._inside == 0:
                with ExitStack() as entered:  # undone here if the second one fails
                    entered.enter_context(_old_switches())
                    entered.enter_context(_new_switches())
                    self._restore = entered.pop_all()
            self._inside += 1

    def leave(self) -> None:
        """Count one less; the last one restores."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._restore.close()


_switches = _Switches()


@contextmanager
def _old_switches() -> Iterator[None]:
    """Those of torch 2.6; setting them sets the new ones too, and torch insists that they agree."""
    cudnn = torch.backends.cudnn
    try:
        precision, allow_tf32 = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:  # the caller uses the new ones, beside which the old ones cannot even be read
        precision = None
    if precision is None:
        yield
        return
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    if allow_tf32:
        cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)
        if allow_tf32:
            cudnn.allow_tf32 = True


@contextmanager
def _new_switches() -> Iterator[None]:
    """Those of torch 2.9, one for each kind of operator and library."""
    operators: list[Any] = [getattr(getattr(torch.backends, library), name, None) for library, name in FLOAT32_OPERATORS]
    reduced = [(item, item.fp32_precision) for item in operators if getattr(item, "fp32_precision", "none") in REDUCED]
    for item, _ in reduced:
        item.fp32_precision = "ieee"
    try:
        yield
    finally:
        for item, before in reduced:
            item.fp32_precision = before


@contextmanager
def float32_by_default() -> Iterator[None]:
    """New tensors are float32 whatever default the caller has set; also a decorator, for what builds models.

    The default is the process's, so this is for moments, not for computing.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has bfloat16 in hardware, so that it is faster than float32 there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in CPU_BFLOAT16)
