"""Figures into files, and that drawing changes nothing else."""

import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.plots import figure_bytes, figure_pixels, plot_mel, plot_roundtrip, save_figure


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_the_same_picture_is_the_same_bytes(mel, tmp_path, suffix, monkeypatch, decoded):
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


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_bytes_are_those_of_the_file(mel, tmp_path, suffix):
    save_figure(plot_mel(mel, title="a"), tmp_path / f"a{suffix}")
    assert figure_bytes(plot_mel(mel, title="a"), suffix) == (tmp_path / f"a{suffix}").read_bytes()


def test_pixels_are_those_of_the_file(mel, tmp_path):
    save_figure(plot_mel(mel, title="a"), tmp_path / "a.png")
    pixels = figure_pixels(plot_mel(mel, title="a"))
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels / 255, matplotlib.image.imread(tmp_path / "a.png")[..., :3], atol=1 / 255)


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
plots.figure_bytes(plots.plot_usage(np.arange(9)), ".svg")
plots.figure_pixels(plots.plot_codebook(mel[:, :9], np.arange(80)))
plots.figure_pixels(plots.plot_training({"train": {"step": np.arange(3), "loss": np.ones(3)}}))
assert dict(matplotlib.rcParams) == before
from matplotlib import pyplot
assert pyplot.get_fignums() == []
print('fine')
"""
    assert run_python(script, tmp_path / "a.svg", tmp_path / "b.png", env={"MPLBACKEND": ""}) == "fine\n"
