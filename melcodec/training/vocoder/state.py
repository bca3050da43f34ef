"""What changes while a vocoder is trained, on disk: one safetensors file, written aside and renamed; the last two stay."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from melcodec.errors import MelcodecError
from melcodec.formats.container import read_container, write_container
from melcodec.training.state import KEPT, STATES, below, restore_slots, slots_of, state_paths

KIND = "vocoder training state"


@dataclass
class Progress:
    """How far a run is: finished steps, the best validation so far, and sums of scalars since the last metric line."""

    step: int = 0
    best: float | None = None
    sums: dict[str, float] = field(default_factory=dict)


@dataclass
class VocoderState:
    """Modules and optimizers by name, the key of the waves, and how far the run is."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    corpus: str
    progress: Progress = field(default_factory=Progress)

    @property
    def best(self) -> float:
        """The lowest validation error so far."""
        return math.inf if self.progress.best is None else self.progress.best

    def save(self, folder: Path) -> None:
        """Write everything below ``folder``."""
        tensors = {f"{name}.{key}": value for name, module in self.modules.items() for key, value in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= slots_of(f"{name}-optimizer.", optimizer)
        meta = {"kind": KIND, "corpus": self.corpus, "progress": asdict(self.progress)}
        write_container(folder / STATES / f"step-{self.progress.step:08}.safetensors", tensors, meta)
        for old in state_paths(folder)[KEPT:]:
            old.unlink(missing_ok=True)

    def restore(self, folder: Path) -> list[str]:
        """Read the newest whole state below ``folder`` into this one.

        Returns:
            What is to be said: which states could not be read.

        Raises:
            MelcodecError: no state is whole, or it belongs to other settings or another corpus.
        """
        damaged: list[str] = []
        for path in state_paths(folder):
            try:
                meta, tensors = read_container(path, KIND)
            except MelcodecError as error:
                damaged.append(f"{error.message}; the state before it is taken")
                continue
            if meta["corpus"] != self.corpus:
                raise MelcodecError(
                    f"{path}: the corpus has changed since this run began", "put it back, or choose another folder"
                )
            self._take(path, tensors)
            self.progress = Progress(**meta["progress"])
            return damaged
        raise MelcodecError(
            damaged[-1].partition(";")[0], "no saved state of this run can be read: choose another folder with -o"
        )

    def _take(self, path: Path, tensors: dict[str, Tensor]) -> None:
        try:
            for name, module in self.modules.items():
                module.load_state_dict(below(f"{name}.", tensors), strict=True)
        except RuntimeError:
            raise MelcodecError(f"{path}: the state of a vocoder with other settings", "choose another folder with -o") from None
        for name, optimizer in self.optimizers.items():
            restore_slots(f"{name}-optimizer.", tensors, optimizer)
