"""Pictures of codebook usage."""

import matplotlib
import numpy as np
import pytest

from melcodec.metrics.codes import code_usage
from melcodec.plots import UsageHistory, perplexities, plot_usage, plot_usage_histories, plot_usage_history
from melcodec.plots.usage import USAGE_MAP

RNG = np.random.default_rng(0)


def history(num_codes=64, dead=16, validations=8):
    """Counts of codes of which the last ``dead`` die half way."""
    counts = RNG.integers(20, 200, (validations, num_codes))
    counts[validations // 2 :, num_codes - dead :] = 0
    return UsageHistory(np.arange(1, validations + 1) * 500, counts)


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_perplexity_is_that_of_the_metrics():
    counts = np.vstack([RNG.integers(0, 5, (6, 50)), np.eye(1, 50, 7, dtype=int), np.full((1, 50), 3)])
    np.testing.assert_allclose(perplexities(counts), [code_usage(row).perplexity for row in counts])
    assert perplexities(np.zeros((1, 4))) == pytest.approx(1)


def test_a_histogram_falls_from_the_most_used_code_and_says_how_many_occur(check_page):
    counts = np.array([0, 10, 0, 60, 30])
    figure = plot_usage(counts, "some $files$")
    axes = figure.axes[0]
    rank, share = axes.lines[0].get_data()
    assert rank.tolist() == [1, 2, 3]
    np.testing.assert_allclose(share, [60, 30, 10])
    assert axes.lines[1].get_ydata()[0] == pytest.approx(20), "even use of five codes"
    assert axes.lines[2].get_xdata()[0] == pytest.approx(code_usage(counts).perplexity)
    assert labels(axes) == ["3 of 5 codes occur", "even use of all 5", "perplexity 2"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    check_page(figure, ("Rank of the code", "Share of all codes (%)", "some $files$"))


@pytest.mark.parametrize("counts", [[1], [0, 1], [5, 5, 5], np.arange(1024) ** 2, np.eye(1024, dtype=int)[3]])
def test_any_usage_fits_on_the_page(counts, check_page):
    check_page(plot_usage(np.array(counts)), ("Rank of the code",))


def test_history_shows_the_share_of_every_code_and_leaves_the_dead_white():
    steps, counts = history()
    figure = plot_usage_history(UsageHistory(steps, counts), "run")
    image = figure.axes[0].images[0]
    shown = image.get_array()
    assert len(shown) == 64
    even = counts.sum(axis=1) / 64
    order = np.argsort(-(counts / even[:, None])[-2:].mean(axis=0), kind="stable")
    np.testing.assert_allclose(shown[:48, -1], counts[-1][order][:48] / even[-1])
    np.testing.assert_allclose(shown[:, 0], counts[0][order] / even[0])
    assert shown.mask[48:, -1].all()
    assert not shown.mask[:48].any()
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)
    assert image.get_extent() == [250, 4250, 64, 0], "half a validation to each side"
    assert figure.get_suptitle() == "run"


def test_curves_under_the_history():
    steps, counts = history()
    axes = plot_usage_history(UsageHistory(steps, counts)).axes[1]
    every, occur, perplexity = axes.lines
    assert every.get_ydata()[0] == 64
    assert occur.get_data()[0].tolist() == steps.tolist()
    assert occur.get_data()[1].tolist() == [64] * 4 + [48] * 4
    np.testing.assert_allclose(perplexity.get_ydata(), perplexities(counts))
    assert labels(axes) == ["all 64", "occur", "perplexity"]
    assert axes.get_ylim()[0] == 0


def test_uneven_steps_keep_their_places():
    steps = np.array([100, 200, 1000])
    image = plot_usage_history(UsageHistory(steps, np.array([[9, 1], [1, 9], [5, 5]]))).axes[0].images[0]
    left, right, *_ = image.get_extent()
    assert (left, right) == (50, 1400)
    columns = image.get_array().shape[1]

    def at(step):
        return image.get_array()[:, int((step - left) / (right - left) * columns)].tolist()

    # the second code is the most used one at the end, by 0.2 against 0.2: the order is that of the mean of the last quarter
    assert at(100) == pytest.approx([1.8, 0.2])
    assert at(250) == at(200) == pytest.approx([0.2, 1.8])
    assert at(1000) == pytest.approx([1, 1])


def test_a_collapse_can_be_read():
    """One code of many lies on a linear axis: the axis is logarithmic then, and begins and ends with the training."""
    healthy, collapsed = history(), UsageHistory(np.array([0, 100, 200]), np.eye(1, 64, dtype=np.int64).repeat(3, 0))
    assert plot_usage_history(healthy).axes[1].get_yscale() == "linear"
    picture, curves = plot_usage_history(collapsed).axes[:2]
    assert curves.get_yscale() == "log"
    assert 0 < curves.get_ylim()[0] < 1 < 64 < curves.get_ylim()[1]
    assert picture.get_title(loc="left") == "1 of 64 codes occur at the end"
    assert picture.get_xlim() == curves.get_xlim() == (0, 200)


def test_even_use_is_in_the_picture():
    counts = np.zeros(1024, np.int64)
    counts[:4] = 100
    axes = plot_usage(counts).axes[0]
    assert axes.get_ylim()[0] < 100 / 1024


def test_with_and_without_revival_stand_side_by_side_on_one_scale(check_page):
    figure = plot_usage_histories({"With revival": history(dead=0), "Without revival": history(dead=40)})
    first, second = (axes for axes in figure.axes if axes.images)
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == (
        "With revival: 64 of 64 codes occur at the end",
        "Without revival: 24 of 64 codes occur at the end",
    )
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert first.get_ylim() == second.get_ylim()
    assert first.get_position().x1 < second.get_position().x0
    check_page(figure, ("Training step", "Codes, most used first", "Codes"))


@pytest.mark.parametrize(("codes", "validations"), [(2, 1), (1024, 3), (1024, 200), (8, 40)])
def test_any_history_fits_on_the_page(codes, validations, check_page):
    figure = plot_usage_history(history(codes, codes // 4, validations), "a/long/run/folder/" * 9)
    assert figure.axes[0].images[0].get_array().shape[0] == min(codes, 256)
    assert figure.axes[0].images[0].get_array().shape[1] <= 600
    check_page(figure, ("Training step",))


def test_more_use_is_darker_in_grey_too():
    colours = matplotlib.colormaps[USAGE_MAP](np.linspace(0, 1, 64))[:, :3]
    luminance = (colours**2.2) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    assert luminance[0] < 0.85, "the least used is no white: that is for the dead"


def test_several_codebooks_are_lines_with_their_own_figures():
    (axes,) = plot_usage([np.array([4, 0, 4]), np.array([8, 0, 0, 0])]).axes
    assert [line.get_label() for line in axes.lines] == [
        "codebook 1: 2 of 3 codes occur, perplexity 2",
        "codebook 2: 1 of 4 codes occur, perplexity 1",
    ]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[50, 50], [100]]
    assert len(plot_usage([np.array([4, 0, 4])]).axes[0].lines) == len(plot_usage(np.array([4, 0, 4])).axes[0].lines)
