"""A run's state on disk: model, averages, optimizer and step in one safetensors file, written aside and renamed.

Crops, augmentation and revival are functions of (seed, step), and the schedule is one of the step, so the step stands
for the position in the data, the random generators and the learning rate. The last two states are kept: one that a
failing disk damaged is passed over.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from melcodec.errors import MelcodecError
from melcodec.formats.container import read_container, write_container
from melcodec.objective.adversary import Adversary
from melcodec.vqvae import VQVAE

KIND = "training state"
STATES = "states"
KEPT = 2
MODEL, AVERAGE, OPTIMIZER = "model.", "average.", "optimizer."
ADVERSARY, ADVERSARY_OPTIMIZER = "adversary.", "adversary_optimizer."


@dataclass
class Progress:
    """How far a run is, as JSON.

    step: finished steps; best: the lowest validation error so far, None before the first; sums: of each scalar over the
    steps since the last metric line, and their number under ``steps``; revived: codes since the last validation.
    """

    step: int = 0
    best: float | None = None
    sums: dict[str, float] = field(default_factory=dict)
    revived: int = 0


@dataclass
class TrainState:
    """What changes while training, and what a run belongs to.

    Args:
        model: the one that learns.
        average: its moving average, when the run keeps one.
        adversary: what learns to tell its reconstructions from speech, when the objective has one.
        mel_norms: (M,) what the model's mels are divided by; fixed for a run.
        corpus: the key of the mel cache; fixed for a run.
    """

    model: VQVAE
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    mel_norms: tuple[float, ...]
    corpus: str
    adversary: Adversary | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def step(self) -> int:
        """Finished steps."""
        return self.progress.step

    @property
    def best(self) -> float:
        """The lowest validation error so far."""
        return math.inf if self.progress.best is None else self.progress.best

    @property
    def judged(self) -> VQVAE:
        """The model that is validated and kept: the average where there is one."""
        return self.model if self.average is None else cast(VQVAE, self.average.module)

    def save(self, folder: Path) -> None:
        """Write everything below ``folder``; a kill or a full disk leaves the states before it whole."""
        tensors = {MODEL + key: value for key, value in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {AVERAGE + key: value for key, value in self.average.state_dict().items()}
        tensors |= slots_of(OPTIMIZER, self.optimizer)
        if self.adversary is not None:
            tensors |= {ADVERSARY + key: value for key, value in self.adversary.model.state_dict().items()}
            tensors |= slots_of(ADVERSARY_OPTIMIZER, self.adversary.optimizer)
        meta = {"kind": KIND, "mel_norms": self.mel_norms, "corpus": self.corpus, "progress": asdict(self.progress)}
        write_container(folder / STATES / f"step-{self.step:08}.safetensors", tensors, meta)
        for old in state_paths(folder)[KEPT:]:
            old.unlink(missing_ok=True)

    def restore(self, folder: Path) -> list[str]:
        """Read the newest whole state below ``folder`` into this one, strictly.

        Returns:
            What is to be said: which states could not be read.

        Raises:
            MelcodecError: no state is whole, or it belongs to another model, corpus or other norms.
        """
        damaged: list[str] = []
        for path in state_paths(folder):
            try:
                meta, tensors = read_container(path, KIND)
            except MelcodecError as error:
                damaged.append(f"{error.message}; the state before it is taken")
                continue
            self._check(path, meta)
            self._take(path, tensors)
            self.progress = Progress(**meta["progress"])
            return damaged
        raise MelcodecError(
            damaged[-1].partition(";")[0], "no saved state of this run can be read: choose another folder with -o"
        )

    def _check(self, path: Path, meta: dict[str, Any]) -> None:
        if tuple(meta["mel_norms"]) != self.mel_norms:
            raise MelcodecError(
                f"{path}: the state of a run with other mel norms", "give the same --mel-stats, or another folder with -o"
            )
        if meta["corpus"] != self.corpus:
            raise MelcodecError(
                f"{path}: the corpus has changed since this run began",
                f"put it back, or start a new run from what was learned: --init {path.parent.parent / 'last.safetensors'} -o NEW",
            )

    def _take(self, path: Path, tensors: dict[str, Tensor]) -> None:
        try:
            self.model.load_state_dict(below(MODEL, tensors), strict=True)
            if self.average is not None:
                self.average.load_state_dict(below(AVERAGE, tensors), strict=True)
            if self.adversary is not None:
                self.adversary.model.load_state_dict(below(ADVERSARY, tensors), strict=True)
        except RuntimeError:
            raise MelcodecError(f"{path}: the state of a model with other settings", "choose another folder with -o") from None
        restore_slots(OPTIMIZER, tensors, self.optimizer)
        if self.adversary is not None:
            restore_slots(ADVERSARY_OPTIMIZER, tensors, self.adversary.optimizer)


def slots_of(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state that ``optimizer`` holds for each parameter, as tensors by name."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}{index}.{slot}": value for index, slots in state.items() for slot, value in slots.items()}


def restore_slots(prefix: str, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Give ``optimizer`` what ``slots_of`` took of it."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in below(prefix, tensors).items():
        index, slot = key.split(".")
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def state_paths(folder: Path) -> list[Path]:
    """The states of the run in ``folder``, newest first."""
    return sorted((folder / STATES).glob("step-*.safetensors"), reverse=True)
