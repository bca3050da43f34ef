"""Pictures of a prior: how it learned, and what surprises it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from melcodec.plots.base import BLACK, BLUE, GREY, ORANGE, SKY, calm, new_figure, points
from melcodec.plots.mels import XTTS_SCALE, Scale, draw_mel, label_bands, label_time

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from melcodec.plots.training import Curves


def plot_prior(curves: Curves, baselines: Mapping[str, float], title: str | None = None) -> Figure:
    """Bits per token in training, bits per held-out code beside the baselines', and the learning rate, over steps.

    Args:
        curves: of ``read_curves``: "train" with ``bits_per_token`` and ``lr``, "valid" with ``bits_per_code``.
        baselines: bits per held-out code by name.
        title: above the picture.
    """
    figure = new_figure(8.4, 4.4, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for kind, key, colour, name in (
        ("train", "bits_per_token", SKY, "training, per token"),
        ("valid", "bits_per_code", BLUE, "held out, per code"),
    ):
        if key in curves.get(kind, {}):
            steps, values = curves[kind]["step"], curves[kind][key]
            above.plot(steps, values, color=colour, label=name, **points(len(steps)))
    for name, bits in baselines.items():
        above.axhline(bits, color=GREY, linewidth=0.8, linestyle="--")
        above.annotate(f"{name} {bits:.2f}", (1, bits), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    above.set_ylabel("Bits")
    above.legend(fontsize=8, frameon=False, loc="lower left")
    if "lr" in curves.get("train", {}):
        below.plot(curves["train"]["step"], curves["train"]["lr"], color=ORANGE)
    below.set_ylabel("Learning rate")
    below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    below.set_xlabel("Training step")
    for axes in (above, below):
        calm(axes)
    return figure


def plot_surprise(
    mel: np.ndarray, surprise: np.ndarray, uniform: float, scale: Scale = XTTS_SCALE, title: str | None = None
) -> Figure:
    """Bits of every code under the mel that it stands for, on one time axis.

    Args:
        mel: (M, T) natural log power.
        surprise: (Q, N) bits, of codes of ceil(T / N) frames each; for Q > 1 their sum is drawn.
        uniform: bits of the codes at one time if all were equally likely, drawn as a line.
        scale: of the mel.
        title: above the picture.
    """
    num_frames = mel.shape[1]
    figure = new_figure(min(16.0, 5.0 + 0.7 * (num_frames * scale.frame) ** 0.85), 4.2, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1.4])
    draw_mel(above, mel, scale)
    label_bands(above, mel.shape[0], scale)
    bits = surprise.sum(0)
    code = -(-num_frames // len(bits)) * scale.frame
    edges = np.arange(len(bits) + 1) * code - 0.5 * scale.frame
    below.stairs(bits, edges, color=BLUE, fill=True, alpha=0.5)
    below.axhline(uniform, color=GREY, linewidth=0.8, linestyle="--")
    below.axhline(float(bits.mean()), color=BLACK, linewidth=0.8)
    below.set_ylabel("Surprise (bits)")
    below.set_ylim(bottom=0)
    above.set_xlim(-0.5 * scale.frame, (num_frames - 0.5) * scale.frame)
    calm(below)
    label_time(below, figure)
    return figure
