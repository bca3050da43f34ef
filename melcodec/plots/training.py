"""Learning curves."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.plots.base import BLACK, BLUE, ORANGE, SKY, calm, new_figure, plain_numbers, points
from melcodec.plots.usage import HISTORY_HEIGHT, UsageHistory, draw_usage_histories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

MANY = 200  # points; more are smoothed, with the raw curve faint behind
LINES = ("-", (0, (5, 1)), (0, (1, 1)), "-.")
COLOURS = (BLUE, ORANGE, BLACK, SKY)
# the first four differ in colour and in line, and no two are alike
STYLES = tuple((COLOURS[index % 4], LINES[(index + index // 4) % 4]) for index in range(16))


class Panel(NamedTuple):
    """One of the axes: curves of one kind ("train" or "valid") that share a unit."""

    kind: str
    curves: Mapping[str, str]  # key in metrics.jsonl -> name in the legend
    label: str
    noisy: bool = False  # smoothed, and on a logarithmic axis


ADVERSARY = {name: name.replace("_", " ") for name in ("adversarial", "discriminator", "feature_matching")}
# of training lines, what is no term of the loss
NO_TERMS = {*ADVERSARY, "step", "time", "lr", "grad_norm", "perplexity", "temperature", "audio_per_second"}
PANELS = (
    Panel("valid", {"log_mel_l1": "log-mel L1"}, "Validation log-mel L1"),
    Panel("valid", {"codes_used": "codes used", "perplexity": "perplexity"}, "Validation codes"),
    Panel("valid", {"agreement": "agreement"}, "Codes that stayed (share)"),
    Panel("train", {"perplexity": "perplexity"}, "Perplexity of a batch"),
    Panel("train", ADVERSARY, "Adversary"),
    Panel("train", {"temperature": "temperature"}, "Temperature"),
    Panel("train", {"lr": "learning rate"}, "Learning rate"),
    Panel("train", {"grad_norm": "gradient norm"}, "Gradient norm", True),
)
Curves = Mapping[str, Mapping[str, np.ndarray]]


def read_curves(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """A run's ``metrics.jsonl`` -> by kind and name float (n,), with the ``step`` of each; NaN where a line lacks a value.

    Raises:
        MelcodecError: no such file, not such a file, or nothing in it.
    """
    lines: dict[str, list[dict[str, float]]] = {}
    number = 0
    try:
        for text in path.read_text(encoding="utf-8").split("\n")[:-1]:  # a line without an end is still being written
            number += 1
            line = json.loads(text)
            lines.setdefault(line["kind"], []).append({**line, "step": int(line["step"])})
    except FileNotFoundError:
        raise MelcodecError(f"{path}: no such file", "give the folder that melcodec train wrote") from None
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise MelcodecError(f"{path}: line {max(1, number)} is no measurement", "did something else write this file?") from None
    if not lines:
        raise MelcodecError(f"{path}: nothing has been measured yet", "wait for the first lines of the training")
    return {kind: _columns(measured) for kind, measured in lines.items()}


def read_history(path: Path) -> UsageHistory:
    """A run's ``usage.npz``.

    Raises:
        MelcodecError: missing, damaged, or not such a file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            history = UsageHistory(arrays["steps"], arrays["counts"])
    except FileNotFoundError:
        raise MelcodecError(
            f"{path}: no such file: this run has no history of its codes", "draw this run alone to see its curves"
        ) from None
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or 'not a .npz file'}") from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError):
        raise MelcodecError(f"{path}: no usage history, or damaged", "melcodec train writes one at every validation") from None
    if history.counts.ndim != 2 or not len(history.steps) or history.steps.shape != history.counts.shape[:1]:
        raise MelcodecError(f"{path}: steps {history.steps.shape} and counts {history.counts.shape} are no usage history")
    return history


def plot_training(curves: Curves, history: UsageHistory | None = None, title: str | None = None) -> Figure:
    """Losses, validation error, codes in use, learning rate and gradient norm over training steps.

    Args:
        curves: by kind ("train", "valid") and name, float (n,); each kind has its ``step``. What is missing is left out.
        history: of every code's use, drawn below.
        title: above the picture.

    Raises:
        MelcodecError: nothing that could be drawn.
    """
    panels = [
        panel
        for panel in (_losses(curves), *PANELS)
        if any(measured(curves, panel.kind, key) is not None for key in panel.curves)
    ]
    if not panels:
        raise MelcodecError(f"none of the curves of a training is in {', '.join(curves)}", "wait for its first lines")
    rows = -(-len(panels) // 2)
    height = 0.2 + 2.4 * rows
    if history is None:
        figure = new_figure(8.4, height, title)
        _draw_panels(figure, panels, rows, curves)
        return figure
    figure = new_figure(8.4, height + HISTORY_HEIGHT, title)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[height, HISTORY_HEIGHT]).flat
    _draw_panels(above, panels, rows, curves)
    draw_usage_histories(below, {"Use of every code": history})
    return figure


def _losses(curves: Curves) -> Panel:
    """The loss and every term of it that was logged, whatever its name."""
    terms = [name for name in curves.get("train", {}) if name not in NO_TERMS and name != "loss"]
    named = {"loss": "loss (weighted sum)"} | {name: name.replace("_", " ") for name in terms}
    return Panel("train", named, "Training loss", True)


def _draw_panels(figure: FigureBase, panels: list[Panel], rows: int, curves: Curves) -> None:
    grid = figure.subplots(rows, min(2, len(panels)), sharex=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, curves)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for index, axes in enumerate(grid.flat):
        if index + grid.shape[1] >= len(panels):  # nothing below
            axes.set_xlabel("Training step")
            axes.tick_params(labelbottom=True)


def _draw_panel(axes: Axes, panel: Panel, curves: Curves) -> None:
    there = [(name, measured(curves, panel.kind, key)) for key, name in panel.curves.items()]
    shown = [(name, found) for name, found in there if found is not None]
    for (name, (steps, values)), (colour, line) in zip(shown, STYLES, strict=False):
        smooth = values
        if panel.noisy and len(steps) > MANY:
            axes.plot(steps, values, color=colour, linewidth=0.5, alpha=0.25)
            smooth = _smooth(values)
        axes.plot(steps, smooth, color=colour, linestyle=line, linewidth=1.4, label=name, **points(len(steps)))
    if panel.noisy:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    elif "codes_used" in panel.curves:
        axes.set_ylim(bottom=0)  # so that both the distance from 0 and from all is seen
    elif "lr" in panel.curves:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_ylabel(panel.label)
    calm(axes)
    if len(panel.curves) > 1:
        axes.legend(fontsize=8, frameon=False)


def _columns(lines: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Lines of one kind -> float (n,) for every key whose values are numbers."""
    keys = dict.fromkeys(key for line in lines for key, value in line.items() if isinstance(value, int | float))
    return {key: np.array([_number(line.get(key)) for line in lines], float) for key in keys}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def measured(curves: Curves, kind: str, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps and values (n,) of a curve where it is finite; None where it is nowhere."""
    columns = curves.get(kind, {})
    if key not in columns:
        return None
    known = np.isfinite(columns[key])
    return (columns["step"][known], columns[key][known]) if known.any() else None


def _smooth(values: np.ndarray) -> np.ndarray:
    """Values (n,) -> their running means over 2 % of them; windows at the ends are shorter, their values not invented."""
    half = len(values) // 100
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
