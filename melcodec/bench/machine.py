"""The machine that measures."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

BUSY = 0.5  # load per core


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


def describe_machine(device: torch.device) -> Machine:
    """What will measure: ask before, because measuring is a load, too."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return Machine(_cpu_name(), _cores(), torch.get_num_threads(), str(torch.__version__), name, load)


def _cores() -> int:
    # a container or taskset may leave fewer than the machine has; not every system can report it
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    """As Linux calls it, elsewhere as python does."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
