"""What a run says: JSON lines, TensorBoard, and whoever listens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from melcodec.files import written_aside


class RunLog:
    """Appends metrics to ``metrics.jsonl`` and to TensorBoard event files in the run's folder."""

    def __init__(self, folder: Path, from_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._trim(folder / "metrics.jsonl", from_step)
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        # purge_step hides what a killed run logged past the checkpoint it resumes from
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step or None)

    @staticmethod
    def _trim(path: Path, from_step: int) -> None:
        """Drop lines past the step that is resumed, so that no step is logged twice, and one that a kill cut short."""
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= from_step]
        with written_aside(path) as aside:
            aside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def scalars(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line ``{"kind", "step", "time", ...}`` and the same scalars as ``kind/name``."""
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._board.close()
