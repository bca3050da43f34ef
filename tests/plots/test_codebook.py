"""Pictures of a codebook."""

import importlib.util
import sys

import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.plots import plot_codebook, plot_codebook_use, plot_snapping, principal_plane

RNG = np.random.default_rng(0)
EMBED = RNG.normal(size=(50, 8)) * np.arange(8, 0, -1)


def spread(figure):
    """Offsets and areas of every cloud of points."""
    return [(cloud.get_offsets().data, cloud.get_sizes()) for cloud in figure.axes[0].collections if len(cloud.get_offsets())]


def test_the_plane_holds_the_most_variance_and_does_not_depend_on_signs():
    plane = principal_plane(EMBED)
    values, vectors = np.linalg.eigh(np.cov(EMBED.T, bias=True))
    np.testing.assert_allclose(plane.share, values[:-3:-1] / values.sum())
    np.testing.assert_allclose(np.abs(plane.axes.T @ vectors[:, :-3:-1]), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(plane.project(EMBED).mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(principal_plane(EMBED[::-1]).axes, plane.axes, atol=1e-9)
    assert (plane.axes[np.abs(plane.axes).argmax(axis=0), [0, 1]] > 0).all()


@pytest.mark.parametrize("vectors", [np.ones((1, 4)), np.ones((5, 4)), np.eye(2), np.vstack([np.zeros(3), np.ones(3)])])
def test_degenerate_codebooks_have_a_plane(vectors, check_page):
    plane = principal_plane(vectors)
    assert np.isfinite(plane.project(vectors)).all()
    assert all(0 <= share <= 1 for share in plane.share)
    check_page(plot_codebook(vectors), ())


def test_codewords_are_as_large_as_they_are_used(check_page):
    counts = np.arange(50)
    counts[:5] = 0
    figure = plot_codebook(EMBED, counts, "book")
    (used, areas), (dead, _) = spread(figure)
    places = principal_plane(EMBED).project(EMBED)
    np.testing.assert_allclose(used, places[5:])
    np.testing.assert_allclose(dead, places[:5])
    np.testing.assert_allclose(areas[10:] / areas[10], counts[15:] / counts[15])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1] == "never used (5)"
    assert "1 \N{MULTIPLICATION SIGN} even use" in legend
    assert "4 \N{MULTIPLICATION SIGN} even use" not in legend, "no code is used so much"
    first, second = principal_plane(EMBED).share
    check_page(
        figure, (f"Principal axis 1 ({first:.0%} of the variance)", f"Principal axis 2 ({second:.0%} of the variance)", "book")
    )
    assert figure.axes[0].get_aspect() == 1


def test_without_counts_all_are_alike():
    figure = plot_codebook(EMBED)
    ((places, areas),) = spread(figure)
    assert len(places) == 50
    assert len(set(areas.tolist())) == 1
    assert figure.legends == []


def test_latents_are_tied_to_their_codewords(check_page):
    codes = RNG.integers(0, 50, 400)
    latents = EMBED[codes] + RNG.normal(size=(400, 8))
    figure = plot_snapping(latents, codes, EMBED, num_codes=4, title="book")
    axes, plane = figure.axes[0], principal_plane(EMBED)
    named = [int(text.get_text()) for text in axes.texts]
    assert len(named) == 4
    assert named[0] == np.bincount(codes).argmax()
    stars = [line for line in axes.lines if np.isnan(line.get_xdata()).any()]
    assert len(stars) == 4
    for code, star in zip(named, stars, strict=True):
        points = np.array(star.get_data()).T.reshape(-1, 3, 2)
        mine = plane.project(latents[codes == code])
        np.testing.assert_allclose(points[:, 0], mine[: len(points)])
        assert len(points) == min(40, len(mine))
        np.testing.assert_allclose(points[:, 1], np.tile(plane.project(EMBED[[code]]), (len(points), 1)))
    centres = plane.project(EMBED[named])
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)[np.triu_indices(4, 1)]
    assert distances.min() >= 0.12 * np.ptp(plane.project(EMBED), axis=0).max()
    check_page(figure, ("book",))


def test_use_and_snapping_stand_side_by_side(check_page):
    codes = RNG.integers(0, 40, 300)
    counts = np.bincount(codes, minlength=50)
    figure = plot_codebook_use(EMBED, counts, EMBED[codes] + 0.1, codes, "book")
    left, right = figure.axes
    assert left.get_window_extent().x1 < right.get_window_extent().x0
    assert left.collections
    assert right.texts
    check_page(figure, ("book",))


def test_umap_without_the_package_names_the_line_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MelcodecError, match="optional package") as caught:
        plot_codebook(EMBED, umap=True)
    assert "pip install umap-learn" in caught.value.hint


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed: pip install umap-learn")
@pytest.mark.filterwarnings("default")  # numba's and scikit-learn's are not ours
def test_umap_keeps_neighbours(check_page):
    """Two far clusters stay two."""
    figure = plot_codebook(np.vstack([RNG.normal(size=(20, 8)), RNG.normal(size=(20, 8)) + 50]), umap=True)
    ((places, _),) = spread(figure)
    near = np.linalg.norm(places[:20] - places[:20].mean(axis=0), axis=1).max()
    assert near < np.linalg.norm(places[:20].mean(axis=0) - places[20:].mean(axis=0))
    check_page(figure, ("UMAP 1 (no unit)", "UMAP 2 (no unit)"))
