"""Learning curves of several trainings on shared axes, and pictures side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.plots.base import calm, new_figure, plain_numbers, points
from melcodec.plots.training import NO_TERMS, Curves, measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, without yellow, which is too faint for a line
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#009E73", "#D55E00", "#CC79A7")
LINES = ("-", (0, (5, 1)), (0, (1, 1)), "-.")
VALIDATION = {"log_mel_l1": "Validation log-mel L1", "codes_used": "Codes used", "perplexity": "Perplexity"}
SPREAD = 10.0  # largest over smallest value from which an axis is logarithmic


def plot_sweep(runs: Mapping[str, Sequence[Curves]]) -> Figure:
    """The validation error, codebook use, the loss and each of its terms over training steps, one colour per setting.

    Args:
        runs: by setting, the curves of each of its seeds, as ``read_curves`` gives them.

    Raises:
        MelcodecError: nothing that could be drawn.
    """
    names = dict.fromkeys(key for seeds in runs.values() for curves in seeds for key in curves.get("train", {}))
    terms = ["loss", *(key for key in names if key not in NO_TERMS and key != "loss")]
    panels = [("valid", key, label) for key, label in VALIDATION.items()]
    panels += [("train", key, f"Training {key.replace('_', ' ')}") for key in terms]
    panels = [panel for panel in panels if any(measured(curves, *panel[:2]) for seeds in runs.values() for curves in seeds)]
    if not panels:
        raise MelcodecError("none of the runs has measured anything yet", "wait for their first validations")
    rows = -(-len(panels) // 2)
    figure = new_figure(9.6, 0.6 + 2.6 * rows)
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True)
    for axes, (kind, key, label) in zip(grid.flat, panels, strict=False):
        _draw(axes, runs, kind, key)
        axes.set_ylabel(label)
        axes.set_xlabel("Training step")
        axes.tick_params(labelbottom=True)
        calm(axes)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    handles = {label: line for axes in grid.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=min(3, len(handles)), fontsize=8, frameon=False)
    return figure


def beside(left: bytes, right: bytes) -> bytes:
    """Two PNG files of the same height side by side, as one."""
    from matplotlib.image import imread, imsave

    images = [imread(io.BytesIO(data))[..., :3] for data in (left, right)]
    height = max(len(image) for image in images)
    padded = [np.pad(image, ((0, height - len(image)), (0, 0), (0, 0)), constant_values=1.0) for image in images]
    file = io.BytesIO()
    imsave(file, np.concatenate(padded, axis=1), format="png")
    return file.getvalue()


def _draw(axes: Axes, runs: Mapping[str, Sequence[Curves]], kind: str, key: str) -> None:
    """One line per seed; only the first of a setting is named."""
    lowest, highest = np.inf, 0.0
    for index, (label, seeds) in enumerate(runs.items()):
        colour, line = COLOURS[index % len(COLOURS)], LINES[(index // len(COLOURS)) % len(LINES)]
        named = label
        for curves in seeds:
            if found := measured(curves, kind, key):
                steps, values = found
                marks = points(len(steps))
                axes.plot(steps, values, color=colour, linestyle=line, linewidth=1.3, alpha=0.9, label=named, **marks)
                named = "_"  # matplotlib leaves such a name out of the legend
                lowest, highest = min(lowest, values.min()), max(highest, values.max())
    if lowest > 0 and highest > SPREAD * lowest:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
