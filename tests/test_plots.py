"""Pictures: what they show, that nothing in them overlaps or is cut off, and the files and commands they come from."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from melcodec.audio.io import load
from melcodec.audio.mel import build_frontend
from melcodec.cli.plot import plot_app
from melcodec.codec import Codec
from melcodec.config import MelConfig, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.plots import plot_mel, plot_roundtrip, save_figure

DB = 10 / np.log(10)
FRAME = 256 / 22_050


@pytest.fixture(scope="module")
def mel(examples):
    """Natural log-mel (80, 448) of five seconds of speech."""
    frontend = build_frontend(MelConfig(), xtts_mel_norms())
    return frontend(torch.from_numpy(load(examples["lj_en"], 22_050))[None])[0].numpy()


def decoded(mel, num_books=1):
    """A poor reconstruction (M, 4N), four frames alike, and codes (Q, N)."""
    num_codes = -(-mel.shape[1] // 4)
    padded = np.pad(mel, ((0, 0), (0, 4 * num_codes - mel.shape[1])), mode="edge")
    steps = padded.reshape(len(mel), num_codes, 4).mean(axis=2).repeat(4, axis=1)
    return steps, np.random.default_rng(0).integers(0, 1024, (num_books, num_codes))


def drawn(figure):
    """The picture as (H, W, 4) uint8, after layout."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def texts(figure):
    """Every piece of text that is drawn, with its box in pixels."""
    found, draw = [], Text.draw

    def recorded(text, renderer, *args):
        if text.get_visible() and text.get_text().strip():
            found.append((text.get_text(), text.get_window_extent(renderer)))
        draw(text, renderer, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", recorded)
        figure.canvas.draw()
    return found


def check_page(figure):
    """No text leaves the page, and no two texts overlap."""
    width, height = figure.canvas.get_width_height()
    boxes = texts(figure)
    assert {"Time (s)", "Power (dB)", "Frequency (kHz)"} <= {text for text, _ in boxes}
    for text, box in boxes:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    for index, (text, box) in enumerate(boxes):
        for other, other_box in boxes[index + 1 :]:
            both = Bbox.intersection(box, other_box)
            assert both is None or both.width <= 1 or both.height <= 1, (text, other)


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
    other = plot_mel(mel, sample_rate=16_000, hop_length=160)
    assert other.axes[0].images[0].get_extent()[1] == pytest.approx(447.5 * 0.01)
    labels = [tick.get_text() for tick in plot_mel(mel, f_min=300, f_max=5_000).axes[0].get_yticklabels()]
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


def test_a_roundtrip_shows_three_mels_and_the_codes(mel):
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


def test_codes_stand_under_their_frames_and_equal_codes_look_equal(mel):
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
def test_numbers_are_legible_and_inside_the_strip_or_left_out(mel, num_frames):
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


def test_without_codes_there_is_no_strip(mel):
    steps, _ = decoded(mel)
    names = [axes.get_title(loc="left")[:4] for axes in plot_roundtrip(mel, steps).axes[:3]]
    assert names == ["Orig", "Reco", "Diff"]


def test_several_codebooks_are_rows(mel):
    steps, codes = decoded(mel, num_books=8)
    figure = plot_roundtrip(mel, steps, codes)
    assert figure.axes[1].images[0].get_array().shape == codes.shape
    check_page(figure)


# ---- the page


@pytest.mark.parametrize("seconds", [0.02, 0.1, 1, 2.5, 5, 20, 60])
def test_nothing_overlaps_or_is_cut_off(mel, seconds):
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
    from melcodec.plots import CODE_MAP, MEL_MAP

    assert name in (MEL_MAP, CODE_MAP)
    colours = matplotlib.colormaps[name](np.linspace(0, 1, 64))[:, :3]
    luminance = (colours**2.2) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


def test_nothing_global_changes(run_python, tmp_path):
    """Settings stay, pyplot knows of no figure, and importing the module does not import matplotlib."""
    script = """
import sys
import numpy as np
from pathlib import Path
import melcodec.plots as plots
assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules
import matplotlib
before = dict(matplotlib.rcParams)
mel = np.random.default_rng(0).normal(size=(80, 50))
plots.save_figure(plots.plot_mel(mel), Path(sys.argv[1]))
plots.save_figure(plots.plot_roundtrip(mel, mel[:, :48].repeat(2, axis=1)[:, :52]), Path(sys.argv[2]))
assert dict(matplotlib.rcParams) == before
from matplotlib import pyplot
assert pyplot.get_fignums() == []
print('fine')
"""
    assert run_python(script, tmp_path / "a.svg", tmp_path / "b.png", env={"MPLBACKEND": ""}) == "fine\n"


# ---- files


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_the_same_picture_is_the_same_bytes(mel, tmp_path, suffix, monkeypatch):
    steps, codes = decoded(mel)
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path, epoch in zip(paths, ("0", "1000000000"), strict=True):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)  # what matplotlib takes for the date
        save_figure(plot_roundtrip(mel, steps, codes, title="speech"), path)
    content = paths[0].read_bytes()
    assert content == paths[1].read_bytes()
    assert len(content) > 20_000
    if suffix == ".svg":
        assert ET.fromstring(content).tag.endswith("svg")
    else:
        assert content[:4] == b"\x89PNG"
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_png_has_150_dots_per_inch(mel, tmp_path):
    figure = plot_mel(mel)
    save_figure(figure, tmp_path / "mel.png")
    height, width = matplotlib.image.imread(tmp_path / "mel.png").shape[:2]
    assert (width, height) == tuple(np.floor(figure.get_size_inches() * 150))


def test_other_suffixes_existing_files_and_folders(mel, tmp_path):
    figure = plot_mel(mel[:, :20])
    for name in ("mel.gif", "mel.jpg", "mel"):
        with pytest.raises(MelcodecError, match="cannot write") as caught:
            save_figure(figure, tmp_path / name)
        assert caught.value.hint == "use one of .png, .svg"
    path = tmp_path / "mel.png"
    path.write_text("precious")
    with pytest.raises(MelcodecError, match="exists already"):
        save_figure(figure, path, overwrite=False)
    assert path.read_text() == "precious"
    save_figure(figure, path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(MelcodecError, match="is a folder"):
        save_figure(figure, tmp_path / "folder.png")


def test_a_title_the_font_lacks_is_no_reason_to_fail(mel, tmp_path):
    save_figure(plot_mel(mel[:, :20], title="语音 $1 and $2.wav"), tmp_path / "mel.png")


# ---- the commands


def melcodec(*args, stdin=None):
    """Run the command in a process; returns its stderr. stdout must stay empty."""
    command = [sys.executable, "-W", "error", "-m", "melcodec", *map(str, args)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, stdin=stdin)
    talk = done.stderr.decode()
    assert (done.returncode, done.stdout) == (0, b""), talk
    return talk


def plot(*args):
    """Run ``melcodec plot`` here."""
    return plot_app([str(item) for item in args], standalone_mode=False)


def saved(figure, folder):
    """The bytes of ``figure`` as a file."""
    path = folder / "expected.png"
    save_figure(figure, path)
    return path.read_bytes()


def test_plot_mel_of_sound_stdin_and_mel_file(examples, tmp_path, mel, capsys):
    output = tmp_path / "mel.png"
    plot("mel", examples["lj_en"], "-o", output)
    assert output.read_bytes() == saved(plot_mel(mel, title="lj_en.flac"), tmp_path)
    assert capsys.readouterr() == ("", f"{output}: mel 80 x 448 frames\n")
    with examples["lj_en"].open("rb") as file:
        melcodec("plot", "mel", "-", "--output", tmp_path / "stdin.png", stdin=file)
    assert (tmp_path / "stdin.png").read_bytes() == saved(plot_mel(mel, title="standard input"), tmp_path)
    np.save(tmp_path / "decoded.npy", mel)
    plot("mel", tmp_path / "decoded.npy", "-o", output, "-f")
    assert output.read_bytes() == saved(plot_mel(mel, title="decoded.npy"), tmp_path)


def test_plot_roundtrip_uses_the_checkpoint(examples, tmp_path, tiny_checkpoint):
    path, output = examples["lj_en"], tmp_path / "both.png"
    talk = melcodec("plot", "roundtrip", path, "-o", output, "--checkpoint", tiny_checkpoint, "--device", "cpu")
    codec = Codec.from_pretrained(tiny_checkpoint, "cpu")
    before = codec.mel(load(path, 22_050))
    codes = codec.encode_mel(before)
    after = codec.decode_to_mel(codes)
    figure = plot_roundtrip(before[0].numpy(), after[0].numpy(), codes[0].numpy(), title="lj_en.flac")
    assert output.read_bytes() == saved(figure, tmp_path)
    assert "448 frames, 112 codes, log-mel L1" in talk


def test_what_the_commands_refuse(examples, tmp_path, tiny_checkpoint):
    path, output, new = examples["lj_en"], tmp_path / "x.png", tmp_path / "new.png"
    output.write_text("precious")
    np.save(tmp_path / "codes.npy", np.zeros((1, 9), np.uint16))
    refusals = [
        (("mel", path, "-o", output), "exists already"),
        (("roundtrip", path, "-o", output), "exists already"),
        (("mel", path, "-o", tmp_path / "x.gif"), r"cannot write '\.gif' pictures"),
        (("roundtrip", path, "-o", tmp_path / "x.gif"), r"cannot write '\.gif' pictures"),
        (("mel", tmp_path / "no.wav", "-o", new), "no such file"),
        (("mel", tmp_path / "codes.npy", "-o", new), "not a mel"),
        (("roundtrip", path, "-o", new, "--checkpoint", tmp_path / "no.safetensors"), r"no\.safetensors"),
        (("roundtrip", path, "-o", new, "--checkpoint", tiny_checkpoint, "--device", "abc"), "--device abc"),
    ]
    for words, reason in refusals:
        with pytest.raises(MelcodecError, match=reason):
            plot(*words)
    assert output.read_text() == "precious"
    assert not new.exists()
    plot("roundtrip", path, "-o", output, "-f", "--checkpoint", tiny_checkpoint)
    assert output.read_bytes()[:4] == b"\x89PNG"
