"""Pictures of mels and codes: what they show, and that nothing in them overlaps or is cut off."""

import matplotlib
import numpy as np
import pytest
import torch

from melcodec.audio.mel import build_frontend
from melcodec.config import MelConfig, xtts_mel_norms
from melcodec.plots import CODE_MAP, MEL_MAP, Scale, plot_codes, plot_mel, plot_roundtrip
from melcodec.plots.mels import DIFFERENCE_MAP

DB = 10 / np.log(10)
FRAME = 256 / 22_050


def drawn(figure):
    """The picture as (H, W, 4) uint8, after layout."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


# ---- what is shown


def test_a_mel_is_drawn_in_decibels_over_seconds(mel):
    figure = plot_mel(mel, title="A $title$ as it_is")
    axes, bar = figure.axes
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), mel * DB, rtol=1e-6)
    assert image.origin == "lower"
    assert image.get_extent() == pytest.approx([-FRAME / 2, (447.5) * FRAME, -0.5, 79.5])
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("Time (s)", "Frequency (kHz)", "Power (dB)")
    assert figure.get_suptitle() == "A $title$ as it_is"
    assert not figure._suptitle.get_parse_math()
    assert plot_mel(mel).get_suptitle() == ""
    assert figure.dpi == 150


def test_frame_rate_and_band_edges_reach_the_axes(mel):
    other = plot_mel(mel, Scale(sample_rate=16_000, hop_length=160))
    assert other.axes[0].images[0].get_extent()[1] == pytest.approx(447.5 * 0.01)
    labels = [tick.get_text() for tick in plot_mel(mel, Scale(f_min=300, f_max=5_000)).axes[0].get_yticklabels()]
    assert labels == ["0.5", "1", "2", "4"]


def test_a_tone_stands_at_its_frequency():
    """The loudest band of a pure tone is the one at the tick of its frequency."""
    frontend = build_frontend(MelConfig(), xtts_mel_norms())
    time = torch.arange(22_050) / 22_050
    for hertz, label in ((500, "0.5"), (1_000, "1"), (2_000, "2"), (4_000, "4")):
        mel = frontend(0.5 * torch.sin(2 * torch.pi * hertz * time)[None])[0].numpy()
        axes = plot_mel(mel).axes[0]
        places = {tick.get_text(): place for tick, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
        assert list(places) == ["0.25", "0.5", "1", "2", "4", "8"]
        assert abs(mel.mean(axis=1).argmax() - places[label]) <= 0.75
        assert places["8"] == 79.5  # the edge of the picture


def test_a_roundtrip_shows_three_mels_and_the_codes(mel, decoded):
    steps, codes = decoded(mel)
    figure = plot_roundtrip(mel, steps, codes, title="speech")
    first, strip, second, third = figure.axes[:4]
    assert [axes.get_title(loc="left")[:10] for axes in (first, strip, second, third)] == [
        "Original",
        "Codes",
        "Reconstruc",
        "Difference",
    ]
    shown = steps[:, : mel.shape[1]]
    assert shown.shape[1] < steps.shape[1] or mel.shape[1] % 4 == 0
    np.testing.assert_allclose(first.images[0].get_array(), mel * DB, rtol=1e-5)
    np.testing.assert_allclose(second.images[0].get_array(), shown * DB, rtol=1e-5)
    np.testing.assert_allclose(third.images[0].get_array(), (shown - mel) * DB, atol=1e-4)
    assert first.images[0].get_clim() == second.images[0].get_clim() == pytest.approx((mel.min() * DB, mel.max() * DB))
    low, high = third.images[0].get_clim()
    assert low == -high
    assert high < np.abs(shown - mel).max() * DB, "the largest errors do not set the scale"
    assert {axes.get_xlim() for axes in (first, strip, second, third)} == {first.get_xlim()}
    assert figure.get_suptitle() == "speech"


def test_codes_stand_under_their_frames_and_equal_codes_look_equal(mel, decoded, check_page):
    num_frames = 101  # not a multiple of four: the last code reaches beyond the sound
    steps, codes = decoded(mel[:, :num_frames])
    codes[0, :6] = [5, 5, 6, 5, 1023, 6]
    figure = plot_roundtrip(mel[:, :num_frames], steps, codes)
    strip = figure.axes[1]
    assert strip.images[0].get_extent()[:2] == pytest.approx([-FRAME / 2, (4 * 26 - 0.5) * FRAME])
    shades = strip.images[0].get_array()[0]
    assert shades[0] == shades[1] == shades[3] != shades[2] == shades[5]
    assert abs(shades[0] - shades[2]) > 0.2, "neighbours in number are far apart in colour"
    # one frame of the last code is left, which is too narrow for its number
    assert [text.get_text() for text in strip.texts] == [str(code) for code in codes[0][:-1]]
    assert strip.texts[0].get_position()[0] == pytest.approx(1.5 * FRAME)
    check_page(figure)


@pytest.mark.parametrize("num_frames", [1, 3, 8, 90, 101, 180, 266, 267, 268, 400])
def test_numbers_are_legible_and_inside_the_strip_or_left_out(mel, num_frames, decoded, check_page):
    steps, codes = decoded(mel[:, :num_frames])
    figure = plot_roundtrip(mel[:, :num_frames], steps, codes)
    check_page(figure)
    strip = figure.axes[1]
    assert len(strip.texts) in ({0} if num_frames > 300 else {codes.size, codes.size - 1})
    inside = strip.get_window_extent()
    for text in strip.texts:
        box = text.get_window_extent()
        assert 4.5 <= text.get_fontsize() <= 8
        assert inside.x0 - 1 <= box.x0 <= box.x1 <= inside.x1 + 1
        assert inside.y0 - 1 <= box.y0 <= box.y1 <= inside.y1 + 1


def test_without_codes_there_is_no_strip(mel, decoded):
    steps, _ = decoded(mel)
    names = [axes.get_title(loc="left")[:4] for axes in plot_roundtrip(mel, steps).axes[:3]]
    assert names == ["Orig", "Reco", "Diff"]


def test_several_codebooks_are_rows(mel, decoded, check_page):
    steps, codes = decoded(mel, num_books=8)
    figure = plot_roundtrip(mel, steps, codes)
    assert figure.axes[1].images[0].get_array().shape == codes.shape
    check_page(figure)


def test_codes_stand_under_the_mel(mel, decoded, check_page):
    _, codes = decoded(mel)
    figure = plot_codes(mel, codes, title="speech")
    above, strip = figure.axes[:2]
    np.testing.assert_allclose(above.images[0].get_array(), mel * DB, rtol=1e-6)
    assert strip.images[0].get_array().shape == codes.shape
    assert strip.images[0].get_extent()[:2] == pytest.approx([-FRAME / 2, (4 * codes.shape[1] - 0.5) * FRAME])
    assert above.get_xlim() == strip.get_xlim() == pytest.approx((-FRAME / 2, 447.5 * FRAME))
    assert figure.get_suptitle() == "speech"
    check_page(figure)
    other = plot_codes(mel, codes, Scale(16_000, 160, 300, 5_000))
    assert other.axes[0].get_xlim()[1] == pytest.approx(447.5 * 0.01)
    assert [tick.get_text() for tick in other.axes[0].get_yticklabels()] == ["0.5", "1", "2", "4"]


def test_cut_mels_keep_their_codes_in_place(mel, decoded):
    """5 codes and 17 frames: the last code has one frame left, and still starts at frame 16."""
    _, codes = decoded(mel[:, :17])
    strip = plot_codes(mel[:, :17], codes).axes[1]
    assert strip.images[0].get_extent()[1] == pytest.approx(19.5 * FRAME)


def test_a_reconstruction_cut_to_the_original_keeps_its_codes_in_place(mel, decoded):
    steps, codes = decoded(mel[:, :101])
    whole, cut = (plot_roundtrip(mel[:, :101], made, codes).axes[1].images[0] for made in (steps, steps[:, :101]))
    assert cut.get_extent() == whole.get_extent()


# ---- the page


@pytest.mark.parametrize("seconds", [0.02, 0.1, 1, 2.5, 5, 20, 60])
def test_nothing_overlaps_or_is_cut_off(mel, seconds, decoded, check_page):
    num_frames = int(seconds / FRAME) + 1
    long = np.tile(mel, -(-num_frames // mel.shape[1]))[:, :num_frames]
    steps, codes = decoded(long)
    title = "a/very/long/folder/" * 20 + "speech.flac"
    figures = plot_mel(long, title=title), plot_roundtrip(long, steps, codes, title=title)
    for figure in figures:
        check_page(figure)
        width, height = figure.get_size_inches()
        assert 5 <= width <= 16
        assert 2 <= height <= 9
        assert figure.get_suptitle().endswith("/speech.flac")
        # without room for axes matplotlib gives up on the layout; a third of the page must be picture
        assert sum(axes.get_position().width * axes.get_position().height for axes in figure.axes if axes.images) > 0.33
    assert plot_mel(mel).get_figwidth() < figures[0].get_figwidth() or seconds < 6


def test_silence_and_equality_are_drawn(mel):
    silence = np.full((80, 40), np.log(1e-5), np.float32)
    for figure in (plot_mel(silence), plot_roundtrip(silence, silence), plot_roundtrip(mel, mel)):
        assert drawn(figure).std() > 0
    assert plot_roundtrip(mel, mel).axes[2].images[0].get_clim() == (-1, 1)
    assert drawn(plot_mel(mel[:, :1])).size > 0


@pytest.mark.parametrize("name", ["magma", "viridis"])
def test_louder_is_lighter_in_grey_too(name):
    assert name in (MEL_MAP, CODE_MAP)
    colours = matplotlib.colormaps[name](np.linspace(0, 1, 64))[:, :3]
    luminance = (colours**2.2) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


def test_too_much_is_lighter_than_too_little_in_grey_too():
    colours = matplotlib.colormaps[DIFFERENCE_MAP](np.linspace(0, 1, 64))[:, :3]
    luminance = (colours**2.2) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()
    assert np.ptp(colours[31]) < 0.1, "no difference is grey"
