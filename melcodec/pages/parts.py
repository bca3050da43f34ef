"""What a page is made of. Everything is plain text, numbers and bytes: no HTML goes in, so none can go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Noted:
    """A number and a note under it, such as its confidence interval; columns are sorted by the number."""

    value: float
    note: str


Cell = str | float | Noted | None


@dataclass(frozen=True)
class Text:
    """Paragraphs, each one string."""

    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table that its reader can sort by any column.

    Args:
        caption: says what the numbers are; also what a screen reader announces.
        columns: headings, with units.
        rows: as long as ``columns`` each. The first cell names its row. None and NaN are shown as missing; what is
            missing is never a number.
        digits: after the decimal point of floats. Integers are shown whole.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: int = 3

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table '{self.caption}': {len(row)} cells under {len(self.columns)} columns")


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Args:
        data: the content of an SVG or PNG file.
        alt: what the picture shows, for those who do not see it.
        caption: under the picture.
    """

    data: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Track:
    """One sound: (S,) float in [-1, 1] at ``sample_rate`` Hz; stored as 16-bit FLAC, louder samples clipped."""

    label: str
    wav: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class Sounds:
    """Players that belong together and stand side by side: original, reconstruction, ceiling. One plays at a time."""

    caption: str
    tracks: Sequence[Track]


Part = Text | Table | Picture | Sounds


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Part]
