"""Pictures of how a codebook is used: over its codes, over training, and by two trainings side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from melcodec.plots.base import BLACK, BLUE, GREY, NAME, ORANGE, calm, new_figure, plain_numbers, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase
    from matplotlib.image import AxesImage

USAGE_MAP = "viridis_r"  # darker is more; a dead code is white, as paper is
MAX_ROWS = 256  # more than that a picture of three inches cannot show
MAX_COLUMNS = 600
HISTORY_HEIGHT = 4.8  # inches
COLLAPSED = 0.1  # share of codes in use below which their number is drawn on a logarithmic axis
LEAST, MOST = 0.05, 20.0  # times even use, the ends of the colour scale


class UsageHistory(NamedTuple):
    """Counts (V, K) of every code at each of V validations, and their training steps (V,), rising."""

    steps: np.ndarray
    counts: np.ndarray


def perplexities(counts: np.ndarray) -> np.ndarray:
    """Counts (V, K) -> exp of the entropy of each row (V,): the size of an evenly used codebook that says as much."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.exp(-(share * np.log(np.where(share > 0, share, 1))).sum(axis=1))


def plot_usage(counts: np.ndarray | Sequence[np.ndarray], title: str | None = None) -> Figure:
    """How often codes occur, the most used first, against a codebook that is used evenly.

    Args:
        counts: (K,), over a whole set; or those of each codebook, which are drawn as lines, without what even use would be.
        title: above the picture.
    """
    if not isinstance(counts, np.ndarray):
        if len(counts) > 1:
            return _plot_usages(counts, title)
        (counts,) = counts
    total, used = counts.sum(), int((counts > 0).sum())
    figure = new_figure(6.4, 3.6, title)
    axes = figure.add_subplot()
    share = np.sort(counts[counts > 0])[::-1] / total * 100
    rank = np.arange(1, used + 1)
    bottom = min(share.min(initial=100), 100 / len(counts)) / 2
    axes.fill_between(rank, share, bottom, step="mid", color=BLUE, alpha=0.25, linewidth=0)
    axes.step(rank, share, where="mid", color=BLUE, label=f"{used:,} of {len(counts):,} codes occur")
    perplexity = perplexities(counts[None])[0]
    axes.axhline(100 / len(counts), color=BLACK, linestyle="--", linewidth=1, label=f"even use of all {len(counts):,}")
    axes.axvline(perplexity, color=ORANGE, linestyle=":", linewidth=2, label=f"perplexity {perplexity:,.0f}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.9, len(counts) * 1.1)
    axes.set_ylim(bottom=bottom)
    _label_ranks(axes)
    return figure


def _plot_usages(books: Sequence[np.ndarray], title: str | None) -> Figure:
    from matplotlib import colormaps

    figure = new_figure(6.4, 3.6, title)
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=colormaps["viridis"](np.linspace(0, 0.85, len(books))))
    for book, (counts, perplexity) in enumerate(zip(books, (perplexities(c[None])[0] for c in books), strict=True), start=1):
        share = np.sort(counts[counts > 0])[::-1] / max(counts.sum(), 1) * 100
        label = f"codebook {book}: {len(share):,} of {len(counts):,} codes occur, perplexity {perplexity:,.0f}"
        axes.step(np.arange(1, len(share) + 1), share, where="mid", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _label_ranks(axes)
    return figure


def _label_ranks(axes: Axes) -> None:
    axes.set_xlabel("Rank of the code")
    axes.set_ylabel("Share of all codes (%)")
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    calm(axes)
    axes.legend(loc="lower left", fontsize=8, frameon=False)


def plot_usage_history(history: UsageHistory, title: str | None = None) -> Figure:
    """The use of every code over training; see ``plot_usage_histories``."""
    return plot_usage_histories({"": history}, title)


def plot_usage_histories(histories: Mapping[str, UsageHistory], title: str | None = None) -> Figure:
    """The use of every code over training, trainings side by side: with and without revival, say.

    Above, codes from the most to the least used at the end, as a share of even use: what stays white is dead. Below,
    the codes that occur and their perplexity.

    Args:
        histories: by the name that stands above each.
        title: above the picture.
    """
    figure = new_figure(1.6 + 4.4 * len(histories), HISTORY_HEIGHT, title)
    draw_usage_histories(figure, histories)
    return figure


def draw_usage_histories(figure: FigureBase, histories: Mapping[str, UsageHistory]) -> None:
    """What ``plot_usage_histories`` shows, into a figure or a part of one."""
    from matplotlib.ticker import MaxNLocator

    grid = figure.subplots(2, len(histories), sharex="col", sharey="row", height_ratios=[3, 2], squeeze=False)
    for column, (name, history) in enumerate(histories.items()):
        image = _draw_history(grid[0, column], history)
        grid[0, column].set_title(f"{name}: {_at_end(history)}" if name else _at_end(history), **NAME)
        _draw_counts(grid[1, column], history)
        grid[1, column].set_xlabel("Training step")
        grid[1, column].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(6, integer=True))
    grid[0, 0].set_ylabel("Codes, most used first")
    grid[1, 0].set_ylabel("Codes")
    grid[1, -1].legend(loc="best", fontsize=8, frameon=False)
    bar = figure.colorbar(image, ax=list(grid[0]), label="Use (\N{MULTIPLICATION SIGN} even share)", extend="max")
    bar.set_ticks([0.1, 1, 10], labels=["0.1", "1", "10"])
    bar.ax.minorticks_off()


def _draw_history(axes: Axes, history: UsageHistory) -> AxesImage:
    from matplotlib.colors import LogNorm

    steps, counts = history
    even = np.maximum(counts.sum(axis=1, keepdims=True), 1) / counts.shape[1]
    # ranked by the last quarter of training: a single validation's order is noise
    order = np.argsort(-(counts / even)[-max(1, len(counts) // 4) :].mean(axis=0), kind="stable")
    ranked = (counts / even)[:, order].T  # (K, V)
    rows = np.array([part.mean(axis=0) for part in np.array_split(ranked, min(len(ranked), MAX_ROWS))])
    edges = _edges(steps)
    if len(steps) > 1:
        axes.set_xlim(steps[0], steps[-1])  # half of the first and last columns lie outside of the training
    places = np.linspace(edges[0], edges[-1], min(MAX_COLUMNS, 40 * len(steps)) + 1)
    columns = np.clip(np.searchsorted(edges, (places[1:] + places[:-1]) / 2) - 1, 0, len(steps) - 1)
    shown = np.ma.masked_equal(rows[:, columns], 0)
    extent = (edges[0], edges[-1], counts.shape[1], 0)
    axes.set_facecolor("white")
    return axes.imshow(
        shown, aspect="auto", extent=extent, cmap=USAGE_MAP, norm=LogNorm(LEAST, MOST, clip=True), interpolation="nearest"
    )


def _draw_counts(axes: Axes, history: UsageHistory) -> None:
    steps, counts = history
    axes.axhline(counts.shape[1], color=GREY, linestyle="--", linewidth=1, label=f"all {counts.shape[1]:,}")
    axes.plot(steps, (counts > 0).sum(axis=1), color=BLUE, label="occur", **points(len(steps)))
    axes.plot(steps, perplexities(counts), color=ORANGE, linestyle=(0, (4, 1)), label="perplexity", **points(len(steps)))
    if (counts > 0).sum(axis=1).min() < COLLAPSED * counts.shape[1]:
        axes.set_yscale("log")  # one code of a thousand lies on the axis otherwise
        axes.set_ylim(0.7, 1.6 * counts.shape[1])
        plain_numbers(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    calm(axes)


def _at_end(history: UsageHistory) -> str:
    """What a picture that is nearly all white means."""
    return f"{(history.counts[-1] > 0).sum():,} of {history.counts.shape[1]:,} codes occur at the end"


def _edges(steps: np.ndarray) -> np.ndarray:
    """Steps (V,) -> borders (V + 1,), half way between neighbours."""
    if len(steps) == 1:
        return np.array([steps[0] - 1, steps[0] + 1])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[steps[0] - (middle[0] - steps[0])], middle, [steps[-1] + (steps[-1] - middle[-1])]])
