"""The state of a prior's training on disk, for resuming after a stop or a kill: safetensors, written aside and renamed.

What is drawn is a function of (seed, step), so that network, optimizer and step are all there is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcodec.errors import MelcodecError
from melcodec.formats.container import read_container, write_container

KIND, STATES, KEPT = "prior state", "states", 2
NETWORK, OPTIMIZER = "network.", "optimizer."


@dataclass
class Progress:
    """How far a run is, as JSON.

    step: finished steps; best: the fewest bits per code on held-out codes so far; sums: of each scalar over the steps since
    the last metric line, and their number under ``steps``.
    """

    step: int = 0
    best: float | None = None
    sums: dict[str, float] = field(default_factory=dict)


@dataclass
class PriorState:
    """What changes while training.

    Args:
        network: that learns.
        optimizer: of its weights.
        corpus: names the codes that are learned from; fixed for a run.
    """

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    corpus: str
    progress: Progress = field(default_factory=Progress)

    def save(self, folder: Path) -> None:
        """Write a new state below ``folder`` and keep the one before it."""
        tensors = {NETWORK + key: value for key, value in self.network.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{OPTIMIZER}{index}.{slot}": value for slot, value in slots.items()}
        meta = {"kind": KIND, "corpus": self.corpus, "progress": asdict(self.progress)}
        write_container(folder / STATES / f"step-{self.progress.step:08}.safetensors", tensors, meta)
        for old in state_paths(folder)[KEPT:]:
            old.unlink(missing_ok=True)

    def restore(self, folder: Path) -> list[str]:
        """Read the newest state below ``folder`` that is whole; returns what is to be said about those that are not.

        Raises:
            MelcodecError: none is whole, or the state belongs to another network or other codes.
        """
        damaged: list[str] = []
        for path in state_paths(folder):
            try:
                meta, tensors = read_container(path, KIND)
            except MelcodecError as error:
                damaged.append(f"{error.message}; the state before it is used")
                continue
            if meta["corpus"] != self.corpus:
                raise MelcodecError(f"{path}: the codes have changed since this run began", "choose another folder with -o")
            self._take(path, tensors)
            self.progress = Progress(**meta["progress"])
            return damaged
        raise MelcodecError(f"{folder}: no saved state of this run can be read", "choose another folder with -o")

    def _take(self, path: Path, tensors: dict[str, Tensor]) -> None:
        below: dict[str, dict[str, Tensor]] = {NETWORK: {}, OPTIMIZER: {}}
        for key, value in tensors.items():
            prefix = NETWORK if key.startswith(NETWORK) else OPTIMIZER
            below[prefix][key.removeprefix(prefix)] = value
        try:
            self.network.load_state_dict(below[NETWORK], strict=True)
        except RuntimeError:
            raise MelcodecError(f"{path}: the state of a network with other settings", "choose another folder with -o") from None
        slots: dict[int, dict[str, Any]] = {}
        for key, value in below[OPTIMIZER].items():
            index, slot = key.split(".")
            slots.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def state_paths(folder: Path) -> list[Path]:
    """The states of the run in ``folder``, newest first."""
    return sorted((folder / STATES).glob("step-*.safetensors"), reverse=True)
