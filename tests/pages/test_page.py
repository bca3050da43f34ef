"""Pages as text: what is in them, what is escaped, what is refused."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from melcodec.errors import MelcodecError
from melcodec.pages import Picture, Section, Sounds, Table, Text, Track, write_page

VOID = {"meta", "img", "wbr"}
WAV = np.sin(np.arange(2_205) / 10).astype(np.float32) * 0.5
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")


class Outline(HTMLParser):
    """Checks that every tag is closed in order, and keeps what it saw."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.ids = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def written(tmp_path, *parts, title="title", summary=(), footer=""):
    path = tmp_path / "page.html"
    write_page(path, title, summary, [Section("section", parts)], footer)
    return path.read_text(encoding="utf-8")


def cells(html):
    """(text, data-value, missing) of every cell of the body."""
    found = re.findall(r"<(?:td|th scope=\"row\")([^>]*)>(.*?)</t[dh]>", html)
    value = re.compile(r'data-value="([^"]*)"')
    return [(re.sub("<[^>]*>", "", text), *(value.findall(attrs) or [None]), "data-missing" in attrs) for attrs, text in found]


def test_the_example_is_sound_html(example_page):
    html = example_page.read_text(encoding="utf-8")
    outline = Outline(html)
    assert outline.attributes("html") == [{"lang": "en"}]
    assert len(outline.ids) == len(set(outline.ids))
    referred = [attrs["aria-labelledby"] for _, attrs in outline.tags if "aria-labelledby" in attrs]
    links = [attrs["href"][1:] for attrs in outline.attributes("a")]
    assert set(referred + links) <= set(outline.ids)
    assert len(links) == 6, "to the content, and five sections"
    assert all(attrs["alt"] for attrs in outline.attributes("img"))
    assert all(attrs["aria-label"] for attrs in outline.attributes("audio"))
    assert [attrs["scope"] for attrs in outline.attributes("th")].count("row") == 4 + 60 + 1
    assert all(attrs["aria-sort"] == "none" for attrs in outline.attributes("th") if attrs["scope"] == "col")
    assert len(outline.attributes("caption")) == len(outline.attributes("table")) == 3


def test_nothing_comes_from_elsewhere(example_page):
    html = example_page.read_text(encoding="utf-8")
    places = re.findall(r'(?:src|href)="([^"]{0,20})', html)
    assert places
    assert all(place.startswith(("data:", "#")) for place in places)
    assert "http:" not in html.replace("http-equiv", "")
    assert "https:" not in html
    assert "default-src 'none'" in html


def test_words_are_words_and_never_markup(tmp_path):
    evil = "</script></style><script>alert(1)</script> <b> & \"'"
    table = Table(evil, [evil, evil], [[evil, evil]])
    parts = Text([evil]), table, Picture(PNG, evil, evil), Sounds(evil, [Track(evil, WAV, 22_050)])
    html = written(tmp_path, *parts, title=evil, summary=[evil], footer=evil)
    outline = Outline(html)
    assert len(outline.attributes("script")) == 1
    assert outline.attributes("b") == []
    assert outline.attributes("img")[0]["alt"] == evil


def test_the_same_parts_are_the_same_bytes_and_others_are_not(tmp_path):
    parts = Table("t", ["a"], [[1.5]]), Sounds("s", [Track("a", WAV, 22_050)])
    first = written(tmp_path, *parts)
    assert written(tmp_path, *parts) == first
    assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]
    assert written(tmp_path, *parts, footer="made by hand") != first


def test_numbers_words_and_what_is_missing(tmp_path):
    numbers = [1, 1234567, 0.12345, -2.0, 0.0, 0.00004, float("inf"), -float("inf")]
    row = ["a", *numbers, None, float("nan"), "", np.float32(0.5), np.int64(7)]
    html = written(tmp_path, Table("t", list("abcdefghijklmn"), [row]))
    assert cells(html) == [
        ("a", None, False),
        ("1", "1", False),
        ("1,234,567", "1234567", False),
        ("0.123", "0.12345", False),
        ("-2.000", "-2.0", False),
        ("0.000", "0.0", False),
        ("4e-05", "4e-05", False),
        ("\N{INFINITY}", "Infinity", False),
        ("-\N{INFINITY}", "-Infinity", False),
        ("\N{EN DASH}missing", None, True),
        ("\N{EN DASH}missing", None, True),
        ("\N{EN DASH}missing", None, True),
        ("0.500", "0.5", False),
        ("7", "7", False),
    ]


def test_digits_are_the_table_s(tmp_path):
    assert [text for text, *_ in cells(written(tmp_path, Table("t", ["a", "b"], [[0.25, 3]], digits=1)))] == ["0.2", "3"]
    assert [text for text, *_ in cells(written(tmp_path, Table("t", ["a", "b"], [[2.25, 0.25]], digits=0)))] == ["2", "0.2"]


def test_columns_of_numbers_alone_are_flush_right(tmp_path):
    html = written(tmp_path, Table("t", ["words", "numbers", "mixed", "none"], [["a", 1, 1, None], ["b", None, "x", None]]))
    headings = Outline(html).attributes("th")[:4]
    assert [attrs.get("class") for attrs in headings] == [None, "number", None, None]


def test_long_names_may_break_after_slashes(tmp_path):
    html = written(tmp_path, Table("t", ["file"], [["a/b_c/d.wav"]]))
    assert "a/<wbr>b_<wbr>c/<wbr>d.wav" in html


def test_tables_are_rectangular():
    with pytest.raises(ValueError, match="2 cells under 1 columns"):
        Table("t", ["a"], [["a", 1]])


def test_long_tables_scroll(tmp_path):
    assert 'class="scroll long"' in written(tmp_path, Table("t", ["a"], [[i] for i in range(26)]))
    assert 'class="scroll long"' not in written(tmp_path, Table("t", ["a"], [[i] for i in range(25)]))


def test_contents_only_where_they_help(tmp_path):
    path = tmp_path / "page.html"
    for number, wanted in ((2, False), (3, True)):
        write_page(path, "t", [], [Section(f"s{i}", []) for i in range(number)])
        assert ("<nav" in path.read_text()) is wanted


def test_pictures_have_the_size_they_have_on_paper(tmp_path):
    svg = b'<?xml version="1.0"?>\n<svg height="36pt" version="1.1" width="72pt" xmlns="http://www.w3.org/2000/svg"></svg>'
    html = written(tmp_path, Picture(svg, "s"), Picture(svg.replace(b"pt", b""), "px"), Picture(b"<svg></svg>", "none"))
    sizes = [(attrs.get("width"), attrs.get("height")) for attrs in Outline(html).attributes("img")]
    assert sizes == [("96", "48"), ("72", "36"), (None, None)]
    png = PNG[:16] + (1500).to_bytes(4, "big") + (300).to_bytes(4, "big") + PNG[24:]
    (attrs,) = Outline(written(tmp_path, Picture(png, "p"))).attributes("img")
    assert (attrs["width"], attrs["height"]) == ("960", "192"), "150 dots of the file are an inch, 96 of the page"
    assert base64.b64decode(attrs["src"].partition(",")[2]) == png
    with pytest.raises(MelcodecError, match="neither SVG nor PNG"):
        written(tmp_path, Picture(b"GIF89a", "g"))


def test_sounds_are_lossless(tmp_path):
    html = written(tmp_path, Sounds("caption", [Track("quiet", WAV, 22_050), Track("loud", WAV * 4, 16_000)]))
    players = Outline(html).attributes("audio")
    assert [player["aria-label"] for player in players] == ["quiet, caption", "loud, caption"]
    for player, wav, rate in zip(players, (WAV, np.clip(WAV * 4, -1, 1)), (22_050, 16_000), strict=True):
        assert player["src"].startswith("data:audio/flac;base64,")
        heard, heard_rate = soundfile.read(io.BytesIO(base64.b64decode(player["src"].partition(",")[2])))
        assert heard_rate == rate
        np.testing.assert_allclose(heard, wav, atol=1 / 32_000)


@pytest.mark.parametrize("wav", [np.zeros(0), np.array([0.0, np.nan]), np.zeros((2, 5))])
def test_sounds_that_are_none(tmp_path, wav):
    with pytest.raises(MelcodecError, match="sound 'broken'"):
        written(tmp_path, Sounds("caption", [Track("broken", wav, 22_050)]))
    assert list(tmp_path.iterdir()) == []


def test_a_page_replaces_one_and_never_a_folder(tmp_path):
    assert "first" in written(tmp_path, Text(["first"]))
    assert "first" not in written(tmp_path, Text(["second"]))
    (tmp_path / "folder").mkdir()
    with pytest.raises(MelcodecError, match="is a folder"):
        write_page(tmp_path / "folder", "t", [], [])


def test_importing_pages_is_cheap(run_python):
    script = "import sys, melcodec.pages; print({'jinja2', 'torch', 'soundfile', 'matplotlib'} & set(sys.modules))"
    assert run_python(script) == "set()\n"
