"""The reports of the default and of a tiny checkpoint in a real headless browser, and their rate-quality figure."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from melcodec.codec import Codec
from melcodec.evaluation.figure import plot_rates
from melcodec.evaluation.page import write_evaluation_page
from melcodec.plots import figure_bytes
from tests import forked


@pytest.fixture(scope="module")
def of_default(examples, tmp_path_factory) -> Path:
    """The report on melcodec-base as the command writes it: three clips, and the k-means floor learned from a fourth."""
    root = tmp_path_factory.mktemp("default")
    *clips, other = examples.values()
    for clip in clips:
        shutil.copy(clip, root)
    rows = [f"{clip.name},{clip.stem.split('_')[1]}" for clip in clips]
    (root / "manifest.csv").write_text("\n".join(["path,language", *rows]))
    command = ["evaluate", str(root), "-o", str(root / "report"), "--train", str(other), "--metrics", "core"]
    forked.run([sys.executable, "-m", "melcodec", *command], check=True, timeout=240, capture_output=True)
    return root / "report"


@pytest.fixture(scope="module", params=["tiny", pytest.param("default", marks=pytest.mark.slow)])
def opened(request, browser):
    """(page, complaints) of a report, offline, as wide as a phone."""
    folder = request.getfixturevalue("of_default") if request.param == "default" else request.getfixturevalue("evaluated")[1]
    context = browser.new_context(viewport={"width": 390, "height": 844}, offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((folder / "index.html").as_uri())
    page.wait_for_timeout(300)
    yield page, complaints
    context.close()


def test_it_renders_fits_and_complains_about_nothing(opened):
    page, complaints = opened
    assert page.title().startswith("Evaluation of ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert complaints == []


def test_players_hold_original_codes_and_ceiling_of_one_length(opened):
    page, _ = opened
    page.evaluate("document.querySelectorAll('audio').forEach(player => player.load())")
    lengths = []
    for _ in range(100):
        lengths = page.evaluate("[...document.querySelectorAll('audio')].map(player => player.duration || 0)")  # NaN at first
        if all(lengths):
            break
        page.wait_for_timeout(50)
    assert len(lengths) == 9
    for start in (0, 3, 6):
        assert lengths[start] > 0.5
        assert lengths[start : start + 3] == pytest.approx([lengths[start]] * 3, abs=0.01)


def test_every_table_names_its_columns(opened):
    page, _ = opened
    heads = page.evaluate("[...document.querySelectorAll('table')].map(table => table.tHead.innerText)")
    assert any("unquantized" in head for head in heads)
    assert any("language" in head for head in heads)
    assert sum("unquantized" in head for head in heads) == 1
    [cell] = (
        page.evaluate("""[...document.querySelectorAll('table')].filter(table => table.tHead.innerText.includes('unquantized'))
        .map(table => table.tBodies[0].rows[0].cells[1].innerText)""")
    )
    assert re.fullmatch(r"\d+\.\d{3}\s+\d+\.\d{3} to \d+\.\d{3}", cell)


def test_verdict_sounds_and_pictures_come_before_the_figures(opened):
    page, _ = opened
    first = page.evaluate("document.querySelector('.summary p').innerText")
    assert re.match(r"Verdict: (good|fair|poor) \(", first)
    places = page.evaluate(
        "['.summary', 'audio', 'img', 'table'].map(tag => document.querySelector(tag).getBoundingClientRect().top)"
    )
    assert places == sorted(places)


def test_the_figure_has_a_panel_for_each_of_its_metrics(evaluated):
    report, _ = evaluated
    figure = plot_rates(report)
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_visible()]
    assert len(labels) == 2
    assert "mel-cepstral distortion (dB) \N{DOWNWARDS ARROW}" in labels
    assert all(axes.get_xlabel() == "Bit rate (bit/s)" for axes in figure.axes)
    assert figure_bytes(figure, ".svg").startswith(b"<?xml")
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {system.label for system in report.systems}


def test_a_mean_over_fewer_files_says_how_many(evaluated, tmp_path):
    report, _ = evaluated
    mean = replace(report.systems[0].means["mcd"], count=report.files - 1)
    few = replace(report.systems[0], means={**report.systems[0].means, "mcd": mean})
    codec = Codec.from_pretrained("melcodec-base", "cpu")
    write_evaluation_page(tmp_path, replace(report, systems=[few, *report.systems[1:]]), [], [], codec)
    page = (tmp_path / "index.html").read_text()
    interval = f"{mean.low:.3f} to {mean.high:.3f}"
    assert f'data-value="{mean.mean!r}">{mean.mean:.3f} <span class="note">{interval}, 5 files</span></td>' in page


def test_alone_the_codes_need_no_figure(evaluated, tmp_path):
    report, folder = evaluated
    assert (folder / "rates.svg").read_bytes() == figure_bytes(plot_rates(report), ".svg")
    alone = replace(report, systems=report.systems[:1])
    assert plot_rates(alone) is None
    (tmp_path / "rates.svg").write_text("of an earlier report")
    codec = Codec.from_pretrained("melcodec-base", "cpu")
    write_evaluation_page(tmp_path, alone, [], [], codec)
    assert not (tmp_path / "rates.svg").exists()
