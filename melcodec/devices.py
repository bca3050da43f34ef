"""Where tensors live, and how precisely they are computed there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from melcodec.errors import MelcodecError

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


def exact_float32(device: torch.device) -> AbstractContextManager[object]:
    """TF32 off in convolutions: lower precision changes codes (14 % in float16, 42 % in bfloat16)."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has bfloat16 in hardware, so that it is faster than float32 there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in CPU_BFLOAT16)
