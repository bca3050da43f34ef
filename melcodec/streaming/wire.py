"""Codes between two programs: JSON lines, which say what they are, or raw numbers, which do not.

JSON lines: first ``{"melcodec": version, "fingerprint": ..., "codebook_sizes": [K, ...], "sample_rate": Hz,
"samples_per_code": n}``, then blocks ``{"codes": [[...], ...]}`` of (Q, n) codes, at last ``{"num_samples": S}``, without which
the stream was cut off.

Raw: 16-bit little-endian unsigned numbers, the Q codes of each step one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.version import __version__

JSONL, RAW = "jsonl", "raw"
READ_BYTES = 1 << 16
NAME = "standard input"


@dataclass
class CodeWriter:
    """Writes codes as they come, and flushes after every block.

    Args:
        kind: ``jsonl`` or ``raw``.
        facts: what the first JSON line says beside the version.
    """

    stream: IO[bytes]
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> None:
        """Write what comes before the first codes."""
        if self.kind == JSONL:
            self._line({"melcodec": __version__, **self.facts})

    def write(self, codes: np.ndarray) -> None:
        """Write codes (Q, n); nothing when n = 0."""
        if not codes.shape[-1]:
            return
        if self.kind == JSONL:
            self._line({"codes": codes.tolist()})
            return
        self.stream.write(codes.T.astype("<u2").tobytes())
        self.stream.flush()

    def end(self, num_samples: int) -> None:
        """Write what comes after the last codes; if it is missing, a reader knows that the stream was cut off."""
        if self.kind == JSONL:
            self._line({"num_samples": num_samples})

    def _line(self, value: dict[str, Any]) -> None:
        self.stream.write(json.dumps(value).encode() + b"\n")
        self.stream.flush()


class CodeReader:
    """Reads what ``CodeWriter`` wrote, whichever kind it is, as it arrives.

    Attributes:
        facts: of the first JSON line; empty for raw codes.
        num_samples: S, known after the last block of JSON lines.

    Args:
        num_codebooks: Q, which raw codes do not say.

    Raises:
        MelcodecError: nothing comes, or a first line that is none of melcodec's.
    """

    def __init__(self, stream: IO[bytes], num_codebooks: int) -> None:
        self._stream, self._num_codebooks = stream, num_codebooks
        self.facts: dict[str, Any] = {}
        self.num_samples: int | None = None
        self._head = stream.read(2)
        if not self._head:
            raise MelcodecError(f"{NAME}: is empty", code="unreadable")
        self.kind = JSONL if self._head == b'{"' else RAW  # no code is 8,827 with a codebook that small
        if self.kind == JSONL:
            self.facts = self._parsed(self._head + stream.readline())
            if "melcodec" not in self.facts:
                raise MelcodecError(f"{NAME}: JSON lines, but not those of melcodec encode", code="unreadable")

    def blocks(self) -> Iterator[np.ndarray]:
        """Codes (Q, n) int64.

        Raises:
            MelcodecError: after all blocks, that the stream was cut off; or a line that holds no codes.
        """
        return self._lines() if self.kind == JSONL else self._numbers()

    def _lines(self) -> Iterator[np.ndarray]:
        for line in iter(self._stream.readline, b""):
            value = self._parsed(line)
            if "codes" in value:
                try:
                    yield np.array(value["codes"], np.int64).reshape(self._num_codebooks, -1)
                except (ValueError, TypeError, OverflowError):
                    message = f"{NAME}: a line without codes of {self._num_codebooks} codebooks"
                    raise MelcodecError(message, code="damaged") from None
            elif isinstance(value.get("num_samples"), int):
                self.num_samples = value["num_samples"]
                return
        raise MelcodecError(
            f"{NAME}: the codes end before their last line: the program that made them was stopped", code="truncated"
        )

    def _numbers(self) -> Iterator[np.ndarray]:
        rest, width = self._head, 2 * self._num_codebooks
        read = cast(Any, getattr(self._stream, "read1", self._stream.read))
        more = True
        while more:
            whole = len(rest) // width * width
            if whole:
                yield np.frombuffer(rest[:whole], "<u2").astype(np.int64).reshape(-1, self._num_codebooks).T
            data = read(READ_BYTES)
            more, rest = bool(data), rest[whole:] + data
        if rest:
            raise MelcodecError(f"{NAME}: ends in the middle of a code", code="truncated")

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise MelcodecError(f"{NAME}: a line that is not a JSON object", code="damaged")
        return value
