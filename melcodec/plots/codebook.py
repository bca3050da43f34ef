"""Pictures of a codebook in a plane, and of latents that become codewords."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.plots.base import BLACK, BLUE, GREY, calm, new_figure
from melcodec.plots.mels import CODE_MAP, code_shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

EVEN_AREA = 16.0  # square points of a code that is used as often as the average
LEAST_AREA, MOST_AREA = 2.0, 400.0
SHOWN_CODES = 16
SHOWN_LATENTS = 40  # per code; more hide one another
UMAP_SEED = 0
SIZE = (6.4, 5.2)  # inches
RATIO = 1.3  # width to height of the axes


class Plane(NamedTuple):
    """A projection onto the two axes along which vectors differ most.

    centre (D,); axes (D, 2), orthonormal; share: of the variance that each axis holds.
    """

    centre: np.ndarray
    axes: np.ndarray
    share: tuple[float, float]

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """(n, D) -> (n, 2)."""
        return (vectors - self.centre) @ self.axes

    @property
    def labels(self) -> list[str]:
        """What stands at the two axes."""
        return [f"Principal axis {index} ({share:.0%} of the variance)" for index, share in enumerate(self.share, start=1)]


def principal_plane(vectors: np.ndarray) -> Plane:
    """The plane of the two largest principal components of vectors (n, D), n >= 1, D >= 2."""
    centre = vectors.mean(axis=0)
    _, scales, rows = np.linalg.svd(np.vstack([vectors - centre, np.zeros((2, vectors.shape[1]))]), full_matrices=False)
    axes = rows[:2].T
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)  # else the sign is the machine's choice
    share = scales[:2] ** 2 / max(float((scales**2).sum()), 1e-30)
    return Plane(centre, axes, (float(share[0]), float(share[1])))


def plot_codebook(embed: np.ndarray, counts: np.ndarray | None = None, title: str | None = None, umap: bool = False) -> Figure:
    """Codewords in a plane, each as large as it is used; those never used are crosses.

    Args:
        embed: (K, D) codewords.
        counts: (K,) how often each occurs; None draws all alike.
        title: above the picture.
        umap: neighbours by UMAP instead of the two largest principal components.

    Raises:
        MelcodecError: ``umap`` without the package.
    """
    figure = new_figure(*SIZE, title)
    _draw_codebook(figure, embed, counts, umap)
    return figure


def plot_snapping(
    latents: np.ndarray, codes: np.ndarray, embed: np.ndarray, num_codes: int = SHOWN_CODES, title: str | None = None
) -> Figure:
    """Latents and, at the end of a line, the codeword that each becomes.

    Shown are much used codes that lie apart; the others would only cover them. A latent may look nearer to another
    codeword in the plane than it is in D dimensions.

    Args:
        latents: (n, D) before quantisation.
        codes: (n,) the codes they get.
        embed: (K, D) codewords.
        num_codes: how many codes are shown; of each at most 40 latents.
        title: above the picture.
    """
    figure = new_figure(*SIZE, title)
    _draw_snapping(figure, latents, codes, embed, num_codes)
    return figure


def plot_codebook_use(
    embed: np.ndarray,
    counts: np.ndarray,
    latents: np.ndarray,
    codes: np.ndarray,
    title: str | None = None,
    umap: bool = False,
) -> Figure:
    """``plot_codebook`` and ``plot_snapping`` side by side: embed (K, D), counts (K,), latents (n, D), codes (n,)."""
    figure = new_figure(2 * SIZE[0], SIZE[1], title)
    left, right = figure.subfigures(1, 2, squeeze=False).flat
    _draw_codebook(left, embed, counts, umap)
    _draw_snapping(right, latents, codes, embed, SHOWN_CODES)
    return figure


def _draw_codebook(figure: FigureBase, embed: np.ndarray, counts: np.ndarray | None, umap: bool) -> None:
    plane = principal_plane(embed)
    places = _umap(embed) if umap else plane.project(embed)
    axes = figure.subplots()
    _lay_out_plane(axes, places, ["UMAP 1 (no unit)", "UMAP 2 (no unit)"] if umap else plane.labels)
    times_even = np.ones(len(embed)) if counts is None else counts / max(counts.sum(), 1) * len(embed)
    _draw_codewords(axes, places, times_even)
    if counts is not None:
        _explain_sizes(axes, times_even)
        figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False, columnspacing=1.2)


def _draw_snapping(figure: FigureBase, latents: np.ndarray, codes: np.ndarray, embed: np.ndarray, num_codes: int) -> None:
    import matplotlib

    plane = principal_plane(embed)
    places = plane.project(embed)
    chosen = _apart(places, np.bincount(codes, minlength=len(embed)), num_codes)
    axes = figure.subplots()
    axes.plot(*places.T, "s", color="#C5CBCF", markersize=2, markeredgewidth=0, label="other codeword", zorder=1)
    axes.plot([], [], "o", color=BLUE, markersize=3, label="latent, in the colour of")
    axes.plot([], [], "s", color=BLUE, markersize=5.5, markeredgecolor=BLACK, label="the codeword it becomes")
    colours = matplotlib.colormaps[CODE_MAP](0.85 * code_shades(np.arange(len(chosen))))
    for code, colour in zip(chosen, colours, strict=True):
        _draw_star(axes, plane.project(latents[codes == code][:SHOWN_LATENTS]), places[code], colour)
        _name_code(axes, places[code], int(code))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    _lay_out_plane(axes, places, plane.labels)


def _apart(places: np.ndarray, counts: np.ndarray, num_codes: int) -> list[int]:
    """At most ``num_codes`` of the codes that occur, by counts (K,), whose places (K, 2) are not close to each other."""
    reach = 0.12 * float(np.ptp(places, axis=0).max())
    chosen: list[int] = []
    for code in np.argsort(-counts, kind="stable"):
        if counts[code] and all(np.linalg.norm(places[code] - places[other]) >= reach for other in chosen):
            chosen.append(int(code))
        if len(chosen) == num_codes:
            break
    return chosen


def _name_code(axes: Axes, place: np.ndarray, code: int) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2, foreground="white")]
    axes.annotate(str(code), (place[0], place[1]), (5, 4), textcoords="offset points", fontsize=7.5, zorder=6, path_effects=halo)


def _lay_out_plane(axes: Axes, places: np.ndarray, labels: list[str]) -> None:
    """Equal units on both axes, around places (K, 2) and what may lie a little outside of them."""
    low, high = places.min(axis=0), places.max(axis=0)
    reach = 0.6 * max(high[0] - low[0], RATIO * (high[1] - low[1]), 1e-6)
    x, y = (low + high) / 2
    axes.set(xlim=(x - reach, x + reach), ylim=(y - reach / RATIO, y + reach / RATIO), xlabel=labels[0], ylabel=labels[1])
    axes.set_aspect("equal")
    calm(axes)


def _draw_star(axes: Axes, points: np.ndarray, centre: np.ndarray, colour: np.ndarray) -> None:
    """Lines from points (n, 2) to the codeword (2,) they become."""
    ends = np.stack([points, np.broadcast_to(centre, points.shape), np.full_like(points, np.nan)], axis=1).reshape(-1, 2)
    axes.plot(*ends.T, color=colour, linewidth=0.5, alpha=0.6)
    axes.plot(*points.T, "o", color=colour, markersize=2.4, markeredgewidth=0)
    axes.plot(*centre, "s", color=colour, markersize=5.5, markeredgecolor=BLACK, markeredgewidth=0.9, zorder=4)


def _draw_codewords(axes: Axes, places: np.ndarray, times_even: np.ndarray) -> None:
    used = times_even > 0
    areas = np.clip(EVEN_AREA * times_even[used], LEAST_AREA, MOST_AREA)
    x, y = places.T
    axes.scatter(x[used], y[used], s=areas, color=BLUE, alpha=0.55, edgecolors="white", linewidths=0.4, zorder=3)
    axes.scatter(x[~used], y[~used], s=12, marker="x", color=GREY, linewidths=0.8, zorder=2)


def _explain_sizes(axes: Axes, times_even: np.ndarray) -> None:
    """Entries of the legend: what the sizes mean, and how many codes are never used."""
    used = times_even[times_even > 0]
    for times in [times for times in (0.25, 1, 4, 16) if used.size and used.min() <= times <= used.max()]:
        label = f"{times:g} \N{MULTIPLICATION SIGN} even use"
        axes.scatter([], [], s=max(LEAST_AREA, EVEN_AREA * times), color=BLUE, alpha=0.55, edgecolors="white", label=label)
    if dead := int((times_even == 0).sum()):
        axes.scatter([], [], s=12, marker="x", color=GREY, linewidths=0.8, label=f"never used ({dead:,})")


def _umap(vectors: np.ndarray) -> np.ndarray:
    """Vectors (K, D) -> (K, 2) in which neighbours stay neighbours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it would like TensorFlow, too
            umap = importlib.import_module("umap")
    except ImportError:
        raise MelcodecError("UMAP needs an optional package", "pip install umap-learn, or leave out --umap") from None
    neighbours = min(15, len(vectors) - 1)
    reducer = umap.UMAP(n_neighbors=neighbours, random_state=UMAP_SEED, n_jobs=1)  # seeded: one picture per codebook
    return np.asarray(reducer.fit_transform(vectors))
