"""What a run says: JSON lines, trackers (TensorBoard, wandb), and codebook usage over time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.files import written_aside

METRICS, USAGE, BOARD = "metrics.jsonl", "usage.npz", "tensorboard"


class RunLog:
    """Appends to ``metrics.jsonl`` and ``usage.npz`` in the run's folder and feeds TensorBoard and Weights & Biases.

    Args:
        folder: of the run.
        from_step: the step at which the run is resumed; later lines are dropped, so that no step is logged twice.
        wandb: off, offline or online.
        config: settings, for wandb.
    """

    def __init__(self, folder: Path, from_step: int, wandb: str = "off", config: dict[str, Any] | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._usage_path = folder / USAGE
        self._steps, self._counts = self._usage_until(from_step)
        self._trim(folder / METRICS, from_step)
        self._file = (folder / METRICS).open("a", encoding="utf-8")
        # purge_step hides what a killed run logged past the state that it continues
        self._board = SummaryWriter(str(folder / BOARD), purge_step=from_step or None)
        self._wandb = None if wandb == "off" else _wandb(folder, wandb, config or {})

    @staticmethod
    def _trim(path: Path, from_step: int) -> None:
        """Drop lines past the step that is resumed, and one that a kill cut short."""
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= from_step]
        with written_aside(path) as aside:
            aside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def _usage_until(self, step: int) -> tuple[list[int], list[np.ndarray]]:
        if not self._usage_path.exists():
            return [], []
        with np.load(self._usage_path, allow_pickle=False) as arrays:
            kept = arrays["steps"] <= step
            return arrays["steps"][kept].tolist(), list(arrays["counts"][kept])

    def scalars(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line ``{"kind", "step", "time", ...}`` and the same scalars as ``kind/name``."""
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self._board.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(named, step=step)

    def usage(self, step: int, counts: list[np.ndarray]) -> None:
        """How often each code (K,) of every codebook occurred in the validation of ``step``: ``usage.npz`` and histograms.

        In the file, the codebooks of a step follow each other in one row (K1 + K2 + ...), ``sizes`` (Q,) says how long each is.
        """
        self._steps.append(step)
        self._counts.append(np.concatenate(counts))
        with written_aside(self._usage_path) as aside, aside.open("wb") as file:
            sizes = np.array([len(book) for book in counts])
            np.savez_compressed(file, steps=np.array(self._steps), counts=np.array(self._counts), sizes=sizes)
        for number, book in enumerate(counts):
            name = "valid/usage" if len(counts) == 1 else f"valid/usage_{number}"
            self._board.add_histogram(name, book, step)

    def picture(self, name: str, step: int, path: Path) -> None:
        """A PNG file for the trackers."""
        from matplotlib.image import imread

        self._board.add_image(name, imread(path)[..., :3], step, dataformats="HWC")

    def sound(self, name: str, step: int, wav: np.ndarray, sample_rate: int) -> None:
        """A wave (S,) for the trackers."""
        self._board.add_audio(name, wav[None], step, sample_rate)

    def close(self) -> None:
        """Flush and close everything."""
        self._file.close()
        self._board.close()
        if self._wandb:
            self._wandb.finish()


def _wandb(folder: Path, mode: str, config: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise MelcodecError("train.wandb needs an optional package", "pip install 'melcodec[wandb]'", "needs-package") from None
    return wandb.init(project="melcodec", name=folder.name, mode=mode, dir=str(folder), config=config)
