"""Results of one file each, as JSON lines, from which a run that was killed is resumed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from melcodec.errors import MelcodecError
from melcodec.evaluation.scores import Scores
from melcodec.files import written_aside


@dataclass(frozen=True)
class Result:
    """What is known of one file.

    Args:
        key: of its content and the settings; see ``subjects.subject_key``.
        id, path: its name and place.
        seconds: its length.
        labels: groups that it belongs to.
        codes: (Q, N).
        silent: positions of the codes that stand for digital silence.
        scores: by system.
    """

    key: str
    id: str
    path: str
    seconds: float
    labels: dict[str, str]
    codes: list[list[int]]
    silent: list[int]
    scores: dict[str, Scores] = field(default_factory=dict)


class ResultFile:
    """An open file of results.

    Lines whose key is not used any more are ignored; an incomplete last line, after a crash, is dropped.

    Args:
        path: is made when it does not exist.
        fresh: begin anew.
    """

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path = path
        self.known: dict[str, Result] = {}
        lines = [] if fresh or not path.exists() else path.read_bytes().splitlines(keepends=True)
        for line in lines:
            result = _parsed(line)
            if result is not None:
                self.known[result.key] = result
        whole = [line for line in lines if _parsed(line) is not None]
        if len(whole) != len(lines) or fresh or not path.exists():
            with written_aside(path) as aside:
                aside.write_bytes(b"".join(whole))

    def __enter__(self) -> ResultFile:
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise MelcodecError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, result: Result) -> None:
        """Keep ``result``; it is on its way to the disk when this returns."""
        self.known[result.key] = result
        self._file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
        self._file.flush()


def _parsed(line: bytes) -> Result | None:
    """The result on a line; None for what a crash or another version left."""
    try:
        fields: dict[str, Any] = json.loads(line)
        scores = {name: Scores(**values) for name, values in fields.pop("scores").items()}
        return Result(**fields, scores=scores) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
