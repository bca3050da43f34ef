"""Pictures of mel spectrograms and the codes under them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from melcodec.plots.base import NAME, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DB_PER_NAT = 10 / math.log(10)  # ln power -> dB
KILOHERTZ_TICKS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# colour-blind safe, and readable in grey: of a difference, dark is too little and light is too much
MEL_MAP, DIFFERENCE_MAP, CODE_MAP = "magma", "cividis", "viridis"
CODE_FONT = 4.5  # points; codes are written into their cells when they fit at this size
GOLDEN_RATIO = 0.618_034


class Scale(NamedTuple):
    """What the axes of a mel mean: sample_rate in Hz, hop_length in samples per frame, f_min and f_max of the bands in Hz."""

    sample_rate: int = 22_050
    hop_length: int = 256
    f_min: float = 0.0
    f_max: float = 8_000.0

    @classmethod
    def of(cls, source: HasScale) -> Scale:
        """That of a mel front end, or of its settings."""
        return cls(source.sample_rate, source.hop_length, source.f_min, source.f_max)

    @property
    def frame(self) -> float:
        """Seconds per frame."""
        return self.hop_length / self.sample_rate


class HasScale(Protocol):
    """A front end or its settings."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def hop_length(self) -> int:
        """Samples per frame."""

    @property
    def f_min(self) -> float:
        """Hz."""

    @property
    def f_max(self) -> float:
        """Hz."""


XTTS_SCALE = Scale()


def plot_mel(
    mel: np.ndarray,
    scale: Scale = XTTS_SCALE,
    title: str | None = None,
) -> Figure:
    """A log-mel spectrogram over time in seconds and frequency in kHz, in dB.

    Args:
        mel: (M, T) natural log power, bands on the HTK scale.
        scale: of the mel.
        title: above the picture, as it is (no TeX); too long a title loses its beginning.
    """
    figure = _figure(mel.shape[1] * scale.frame, 2.6, title)
    axes = figure.add_subplot()
    image = _draw_mel(axes, mel * DB_PER_NAT, scale.frame, cmap=MEL_MAP)
    label_bands(axes, mel.shape[0], scale)
    label_time(axes, figure)
    _add_bar(figure, image, [axes], "Power (dB)")
    return figure


def plot_roundtrip(
    original: np.ndarray,
    reconstruction: np.ndarray,
    codes: np.ndarray | None = None,
    scale: Scale = XTTS_SCALE,
    title: str | None = None,
) -> Figure:
    """What the codes keep: original, codes, reconstruction and their difference on one time axis.

    Args:
        original: (M, T) natural log power.
        reconstruction: (M, T') as decoded, T' >= T; what lies past T is not shown.
        codes: (Q, N) of which ``reconstruction`` was decoded, T' / N frames each, rounded up; None leaves the strip out.
        scale: of the mel.
        title: see ``plot_mel``.
    """
    num_frames, frame = original.shape[1], scale.frame
    before, after = original * DB_PER_NAT, reconstruction[:, :num_frames] * DB_PER_NAT
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    # the few largest errors would wash out all others
    limit = max(1.0, math.ceil(np.percentile(np.abs(after - before), 99.5)))

    heights = [1.75, *([] if codes is None else [_strip_height(codes)]), 1.75, 1.75]  # inches
    figure = _figure(num_frames * frame, sum(heights) + 0.34 * len(heights), title)
    rows: list[Axes] = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights).flat)
    first, second, third = rows[0], rows[-2], rows[-1]

    for axes, mel, name in ((first, before, "Original"), (second, after, "Reconstruction")):
        image = _draw_mel(axes, mel, frame, cmap=MEL_MAP, vmin=low, vmax=high)
        axes.set_title(name, **NAME)
    error = _draw_mel(third, after - before, frame, cmap=DIFFERENCE_MAP, vmin=-limit, vmax=limit)
    third.set_title("Difference (reconstruction \N{MINUS SIGN} original)", **NAME)
    for axes in (first, second, third):
        label_bands(axes, original.shape[0], scale)
    third.set_xlim(-0.5 * frame, (num_frames - 0.5) * frame)
    if codes is not None:
        per_code = -(-reconstruction.shape[1] // codes.shape[1])  # rounded up: the last code's frames may be cut
        _draw_codes(rows[1], codes, per_code * frame, -0.5 * frame, _cell(figure, codes))
    label_time(third, figure)
    _add_bar(figure, image, [first, second], "Power (dB)")
    _add_bar(figure, error, [third], "Difference (dB)", extend="both")
    return figure


def plot_codes(
    mel: np.ndarray,
    codes: np.ndarray,
    scale: Scale = XTTS_SCALE,
    title: str | None = None,
) -> Figure:
    """Codes as a strip under the mel that they stand for, on one time axis.

    Args:
        mel: (M, T) natural log power, of the sound or decoded.
        codes: (Q, N), ceil(T / N) frames each.
        scale: of the mel.
        title: see ``plot_mel``.
    """
    num_frames, frame = mel.shape[1], scale.frame
    heights = [2.2, _strip_height(codes)]
    figure = _figure(num_frames * frame, sum(heights) + 0.7, title)
    above, strip = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    image = _draw_mel(above, mel * DB_PER_NAT, frame, cmap=MEL_MAP)
    label_bands(above, mel.shape[0], scale)
    above.set_xlim(-0.5 * frame, (num_frames - 0.5) * frame)
    _draw_codes(strip, codes, -(-num_frames // codes.shape[1]) * frame, -0.5 * frame, _cell(figure, codes))
    label_time(strip, figure)
    _add_bar(figure, image, [above], "Power (dB)")
    return figure


def _figure(seconds: float, height: float, title: str | None) -> Figure:
    """An empty figure whose width grows with the sound, from a column for a word to a wide page for minutes."""
    return new_figure(min(16.0, 5.0 + 0.7 * seconds**0.85), height, title)


def _draw_mel(axes: Axes, decibels: np.ndarray, frame: float, **colours: Any) -> AxesImage:
    """Draw an (M, T) array in dB; frame t is centred at t * ``frame`` seconds."""
    num_bands, num_frames = decibels.shape
    extent = (-0.5 * frame, (num_frames - 0.5) * frame, -0.5, num_bands - 0.5)
    return axes.imshow(decibels, origin="lower", aspect="auto", extent=extent, **colours)


def code_shades(codes: np.ndarray) -> np.ndarray:
    """Codes -> places 0 .. 1 in CODE_MAP. Neighbours in number have nothing in common and are far apart here."""
    return codes * GOLDEN_RATIO % 1


def _draw_codes(axes: Axes, codes: np.ndarray, code: float, start: float, cell: float) -> None:
    """Draw codes (Q, N) as a strip of cells, with the numbers of a single codebook where they fit on the time axis.

    Args:
        axes: where.
        codes: (Q, N).
        code: seconds per code.
        start: seconds, where the first one begins.
        cell: points, the width of a cell on paper.
    """
    num_books, num_codes = codes.shape
    shades = code_shades(codes)
    extent = (start, start + num_codes * code, num_books - 0.5, -0.5)
    axes.imshow(shades, aspect="auto", extent=extent, cmap=CODE_MAP, vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks([])
    axes.tick_params(axis="x", bottom=False)
    axes.set_title("Codes", **NAME)
    if num_books > 1:
        return
    end = axes.get_xlim()[1]
    for index, (value, shade) in enumerate(zip(codes[0].tolist(), shades[0].tolist(), strict=True)):
        left = start + index * code
        right = min(left + code, end)  # the last code may reach beyond the sound
        size = min(8.0, (right - left) / code * cell / 1.2)
        if size >= CODE_FONT:
            ink = "black" if shade > 0.55 else "white"
            axes.text((left + right) / 2, 0, str(value), size=size, color=ink, rotation=90, ha="center", va="center")


def _strip_height(codes: np.ndarray) -> float:
    """Inches that codes (Q, N) take as a strip."""
    return 0.24 + 0.1 * len(codes)


def _cell(figure: Figure, codes: np.ndarray) -> float:
    """Points that one of codes (Q, N) is wide in ``figure``: labels and colour bar take about a fifth of the width."""
    return 72 * 0.8 * figure.get_figwidth() / codes.shape[1]  # 72 points are an inch


def draw_mel(axes: Axes, mel: np.ndarray, scale: Scale) -> AxesImage:
    """Draw a mel (M, T), natural log power, in dB."""
    return _draw_mel(axes, mel * DB_PER_NAT, scale.frame, cmap=MEL_MAP)


def label_bands(axes: Axes, num_bands: int, scale: Scale) -> None:
    """Ticks in kHz on the frequency axis of a mel with ``num_bands`` bands."""
    low, high = _htk_mel(scale.f_min), _htk_mel(scale.f_max)
    band = (high - low) / (num_bands + 1)  # band i is centred at low + (i + 1) * band
    # f_max is the far foot of the last triangle, half a band outside the picture: its tick stands on the edge
    places = {khz: (_htk_mel(1000 * khz) - low) / band - 1 for khz in KILOHERTZ_TICKS if scale.f_min < 1000 * khz <= scale.f_max}
    axes.set_yticks([min(place, num_bands - 0.5) for place in places.values()], [f"{khz:g}" for khz in places])
    axes.set_ylabel("Frequency (kHz)")


def label_time(axes: Axes, figure: Figure) -> None:
    """Ticks in seconds on the time axis."""
    from matplotlib.ticker import MaxNLocator

    # more labels than that would touch
    axes.xaxis.set_major_locator(MaxNLocator(int(figure.get_figwidth() * 1.2), steps=[1, 2, 5, 10]))
    axes.set_xlabel("Time (s)")


def _htk_mel(hertz: float) -> float:
    """The HTK scale; Young et al., The HTK Book."""
    return 2595 * math.log10(1 + hertz / 700)


def _add_bar(figure: Figure, image: AxesImage, rows: list[Axes], label: str, extend: str = "neither") -> None:
    """A colour bar beside ``rows``, of the same width in inches at every figure width."""
    width = figure.get_figwidth()
    figure.colorbar(image, ax=rows, label=label, extend=extend, fraction=0.6 / width, aspect=14, pad=0.1 / width)
