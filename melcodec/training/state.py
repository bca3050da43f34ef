"""A run's state on disk: model, optimizer and step in one safetensors file, written aside and renamed.

With the step known, crops and revival are known too (they are functions of seed and step), so nothing else is saved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from melcodec.errors import MelcodecError
from melcodec.formats.container import read_container, write_container
from melcodec.vqvae import VQVAE

KIND = "training state"
MODEL, OPTIMIZER = "model.", "optimizer."


@dataclass
class TrainState:
    """What changes while training.

    Args:
        mel_norms: (M,) what the model's mels are divided by; fixed for a run.
        step: finished steps.
        best: the lowest validation error so far.
        sums: of each scalar over the steps since the last metric line, and their number under ``steps``.
    """

    model: VQVAE
    optimizer: torch.optim.Optimizer
    mel_norms: tuple[float, ...]
    step: int = 0
    best: float = math.inf
    sums: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write everything to ``path``; a kill or a full disk leaves the previous file whole."""
        tensors = {MODEL + key: value for key, value in self.model.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{OPTIMIZER}{index}.{slot}": value for slot, value in slots.items()}
        best = self.best if math.isfinite(self.best) else None  # JSON knows no infinity
        meta = {"kind": KIND, "mel_norms": self.mel_norms, "step": self.step, "best": best, "sums": self.sums}
        write_container(path, tensors, meta)

    def restore(self, path: Path) -> None:
        """Read what ``save`` wrote into this state, strictly; MelcodecError when it is another model's."""
        meta, tensors = read_container(path, KIND)
        if tuple(meta["mel_norms"]) != self.mel_norms:
            raise MelcodecError(
                f"{path}: the state of a run with other mel norms", "give the same --mel-stats, or another folder with -o"
            )
        model = {key.removeprefix(MODEL): value for key, value in tensors.items() if key.startswith(MODEL)}
        try:
            self.model.load_state_dict(model, strict=True)
        except RuntimeError:
            raise MelcodecError(f"{path}: the state of a model with other settings", "choose another folder with -o") from None
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(OPTIMIZER):
                index, slot = key.removeprefix(OPTIMIZER).split(".")
                slots.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.step, self.sums = meta["step"], meta["sums"]
        self.best = math.inf if meta["best"] is None else meta["best"]
