"""The rate-quality figure: a checkpoint among its anchors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melcodec.evaluation.catalog import METRICS
from melcodec.evaluation.report import Report
from melcodec.evaluation.systems.build import CODES, ORIGINAL
from melcodec.plots.base import BLACK, BLUE, GREY, ORANGE, calm, new_figure, plain_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("stoi", "distillmos", "speaker_similarity", "pesq_wb", "mcd", "log_mel_l1")
MOST = 4  # panels
MARKS = {"codes": "o", "kmeans": "s", "codec2": "^", "opus": "D"}
LINES = {"unquantized": "--", "mel": ":", "original": "-"}


def plot_rates(report: Report) -> Figure | None:
    """Quality over bit rate, a panel for each of up to four metrics; None when nothing stands beside the codes.

    What codes nothing has no rate and is a line across. Bars are 95 % confidence intervals.
    """
    names = [name for name in SHOWN if name in report.systems[0].means][:MOST]
    if not names or len(report.systems) < 2:
        return None
    rows = -(-len(names) // 2)
    figure = new_figure(7.2, 2.9 * rows + 0.4)
    grid = figure.subplots(rows, min(2, len(names)), squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        _draw(axes, report, name)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _draw(axes: Axes, report: Report, name: str) -> None:
    for system in report.systems:
        found = system.means.get(name)
        if system.bit_rate is None:
            # a metric that needs no original has a value for it; the others would only draw their own best
            if found is not None and (system.name != ORIGINAL or METRICS[name].alone):
                axes.axhline(found.mean, color=GREY, linestyle=LINES.get(system.name, "-."), label=system.label)
            else:
                axes.plot([], [], color=GREY, linestyle=LINES.get(system.name, "-."), label=system.label)
        elif found is not None:
            bars = None if found.low is None or found.high is None else [[found.mean - found.low], [found.high - found.mean]]
            colour = BLUE if system.name == CODES else ORANGE if system.name == "kmeans" else BLACK
            mark = MARKS.get(system.name, "x")
            axes.errorbar(system.bit_rate, found.mean, bars, color=colour, marker=mark, capsize=3, label=system.label)
    axes.set_xscale("log")
    rates = [system.bit_rate for system in report.systems if system.bit_rate]
    axes.set_xlim(min(rates) / 1.6, max(rates) * 1.6)
    arrow = "\N{UPWARDS ARROW}" if METRICS[name].better == "higher" else "\N{DOWNWARDS ARROW}"
    axes.set_ylabel(f"{METRICS[name].label} {arrow}")
    axes.set_xlabel("Bit rate (bit/s)")
    plain_numbers(axes.xaxis)
    calm(axes)
