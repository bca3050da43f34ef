"""How the export form ``tokens`` numbers codes for a language model; the rules are those of ``melcodec.tokens``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.tokens import Pattern, Tokens, collapse


@dataclass(frozen=True)
class TokenForm:
    """The settings of an export.

    Args:
        offset: of the first code's token, such as the size of a text vocabulary.
        pattern: of several codebooks; see ``melcodec.tokens``. The W tokens of a row follow each other.
        runs: one token for each run of a code, with its length beside it; for one codebook.
    """

    offset: int = 0
    pattern: Pattern = "flat"
    runs: bool = False


class Numbering:
    """The tokens of one store's codes.

    Args:
        sizes: K of each codebook.
        form: choices.

    Raises:
        MelcodecError: runs are asked for of several codebooks.
    """

    def __init__(self, sizes: tuple[int, ...], form: TokenForm) -> None:
        if form.runs and len(sizes) > 1:
            raise MelcodecError("runs of codes are for one codebook", "leave --runs out")
        self.form, self.tokens = form, Tokens(sizes, form.pattern, form.offset)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 where every token fits, else uint32; little-endian."""
        return np.dtype("<u2" if self.tokens.vocabulary <= 1 << 16 else "<u4")

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader of the tokens must know, as JSON values."""
        names = ("begin", "end", "pad", "vocabulary", "pattern", "offset", "width")
        return {name: getattr(self.tokens, name) for name in names} | {"dtype": self.dtype.name, "runs": self.form.runs}

    def flat(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Codes (Q, N) -> tokens (n,) from begin to end and, with runs, how many codes each lasts (n,) uint32."""
        durations = None
        codes = codes.astype(np.int64)
        if self.form.runs:
            first, lasting = collapse(codes[0])
            codes, durations = first[None], np.array([1, *lasting, 1], "<u4")
        return self.tokens.sequence(codes).astype(self.dtype).reshape(-1), durations
