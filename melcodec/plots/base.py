"""What all pictures share: a figure without pyplot, colours that everybody can tell apart, and files.

Figures are made without pyplot, so nothing global changes and nothing opens a window. The same arrays give the same
bytes on the same matplotlib.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.files import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 150
NAME: dict[str, Any] = {"loc": "left", "fontsize": 9}  # the title of one of several axes
# Okabe and Ito 2008, "Color Universal Design", in an order whose lightness differs in grey too
BLUE, ORANGE, BLACK, SKY = "#0072B2", "#E69F00", "#000000", "#56B4E9"
GREY = "#8A9299"
FEW = 30  # points that are marked on a curve
# what would otherwise put the date into the file
FORMATS: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}}


def new_figure(width: float, height: float, title: str | None = None) -> Figure:
    """An empty figure of ``width`` x ``height`` inches; a title, as it is (no TeX), takes some height of its own.

    Too long a title loses its beginning: the end of a path says more.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height + (0.3 if title else 0.0)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        room = int(11 * width)  # characters at 10 points
        text = title if len(title) <= room else "\N{HORIZONTAL ELLIPSIS}" + title[1 - room :]
        figure.suptitle(text, fontsize=10, parse_math=False)
    return figure


def calm(axes: Axes) -> None:
    """Leave of ``axes`` what curves and points need: two sides and a faint grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#E4E7E9", linewidth=0.6)
    axes.set_axisbelow(True)


def plain_numbers(axis: Axis) -> None:
    """1, 10, 0.1 on a logarithmic axis, not powers of ten; 2 and 5 as well where it spans less than two decades."""
    from matplotlib.ticker import FuncFormatter

    def between(value: float, _: object) -> str:
        low, high = axis.get_view_interval()
        return f"{value:,.12g}" if high < 100 * low and f"{value:.3e}"[0] in "25" else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(FuncFormatter(between))
    axis.set_tick_params(which="minor", pad=5)  # shorter ticks; all numbers on one line


def points(number: int) -> dict[str, Any]:
    """How to mark a curve of ``number`` points: each one when there are few."""
    return {"marker": "o", "markersize": 3} if number <= FEW else {}


def save_figure(figure: Figure, path: Path, overwrite: bool = True) -> None:
    """Write ``figure`` to ``path`` as .png or .svg; the same arrays give the same bytes.

    Drawing a figure once more may move its axes by a pixel: the layout starts from where it was.

    Raises:
        MelcodecError: another suffix, an existing file without ``overwrite``, or an unwritable place.
    """
    check_picture(path)
    with written_aside(path, overwrite) as aside, _reproducible():
        suffix = path.suffix.lower()
        figure.savefig(aside, format=suffix[1:], metadata=FORMATS[suffix])


def figure_bytes(figure: Figure, suffix: str = ".png") -> bytes:
    """``figure`` as the content of a .png or .svg file, for a page."""
    file = io.BytesIO()
    with _reproducible():
        figure.savefig(file, format=suffix[1:], metadata=FORMATS[suffix])
    return file.getvalue()


def figure_pixels(figure: Figure) -> np.ndarray:
    """``figure`` as (H, W, 3) uint8, for TensorBoard."""
    with _reproducible():
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def check_picture(path: Path) -> None:
    """Raise MelcodecError when the suffix of ``path`` is none that ``save_figure`` writes. Ask before long work."""
    if path.suffix.lower() not in FORMATS:
        raise MelcodecError(f"{path}: cannot write '{path.suffix}' pictures", f"use one of {', '.join(FORMATS)}")


@contextmanager
def _reproducible() -> Iterator[None]:
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "melcodec"}):
        # a title in a script that the font lacks is drawn as boxes, which is no reason for a warning
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
