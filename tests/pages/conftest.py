"""A page with everything on it, made of real speech, and a real browser to read it with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from melcodec.audio.io import load
from melcodec.audio.mel import build_frontend
from melcodec.config import MelConfig, xtts_mel_norms
from melcodec.pages import Picture, Section, Sounds, Table, Text, Track, write_page
from melcodec.plots import plot_mel, plot_roundtrip, save_figure

HOSTILE = '<script>alert("x")</script> & "quotes" \N{LATIN SMALL LETTER U WITH DIAERESIS}'


@dataclass
class Opened:
    """A page in the browser, and what went wrong on it."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def example_page(examples, tmp_path_factory) -> Path:
    """A report as an evaluation would write it: words, tables, pictures, players."""
    folder = tmp_path_factory.mktemp("page")
    wav = load(examples["lj_en"], 22_050)[: 3 * 22_050]
    frontend = build_frontend(MelConfig(), xtts_mel_norms())
    mel = np.concatenate(list(frontend.stream([wav])), axis=1)
    coarse = mel[:, : mel.shape[1] // 4 * 4].reshape(80, -1, 4).mean(2).repeat(4, axis=1)
    save_figure(plot_mel(mel, title="lj_en.flac"), folder / "mel.svg")
    save_figure(plot_roundtrip(mel[:, : coarse.shape[1]], coarse), folder / "roundtrip.png")
    path = folder / "report.html"
    write_page(
        path,
        "How good melcodec-base is",
        [
            "At 215 bit/s the codes keep what is said and most of who says it: STOI is 0.71 on 50 files of speakers "
            "that training never heard, and log-mel L1 is 0.89 nats.",
            "What limits it is the codebook: with the quantizer bypassed the same decoder reaches 0.90 STOI.",
        ],
        [
            Section("Scores", [Text(["Means over files, with the number of files behind each."]), scores()]),
            Section("Pictures", pictures(folder)),
            Section("Listen", [listen("best: lj_en.flac", wav), listen("worst: noisy.flac", wav[::-1].copy())]),
            Section("Every file", [per_file()]),
            Section(HOSTILE, [Text([HOSTILE]), Table(HOSTILE, [HOSTILE, "n"], [[HOSTILE, 1]])]),
        ],
        "melcodec evaluate data/ -o report/ \N{MIDDLE DOT} melcodec-base, fingerprint 0123456789ab \N{MIDDLE DOT} melcodec 0.1.0",
    )
    return path


def scores() -> Table:
    """Systems and their scores; some are missing, one is tiny, one is a whole number."""
    return Table(
        "Higher is better except for log-mel L1. 215 bit/s unless the name says otherwise.",
        ["System", "STOI", "DistillMOS", "Speaker similarity", "Log-mel L1 (nats)", "Files", "p"],
        [
            ["melcodec-base", 0.7104, 2.81, 0.804, 0.8891, 50, 0.00004],
            ["Mel without quantiser", 0.92, 3.44, 0.99, None, 50, 0.02],
            ["k-means floor", 0.512, 1.2, float("nan"), 1.31, 49, 0.5],
            ["Codec2 at 700 bit/s", 0.67, 2.43, 0.69, float("inf"), 1050, 0.01],
        ],
    )


def pictures(folder: Path) -> list[Picture]:
    return [
        Picture((folder / "mel.svg").read_bytes(), "Log-mel spectrogram of three seconds of speech", "The original."),
        Picture((folder / "roundtrip.png").read_bytes(), "Original, reconstruction, difference", "On one scale."),
    ]


def listen(caption: str, wav: np.ndarray) -> Sounds:
    return Sounds(caption, [Track(name, wav, 22_050) for name in ("Original", "Reconstruction", "Ceiling (no quantiser)")])


def per_file() -> Table:
    rng = np.random.default_rng(0)
    rows = [
        [f"speaker_{index % 7:02d}/a_rather_long_folder_name/utterance_{index}.flac", *rng.random(4).round(4), index]
        for index in range(60)
    ]
    return Table("Sixty files.", ["File", "STOI", "ESTOI", "L1", "Speaker", "Codes"], rows)


@pytest.fixture
def visit(browser):
    """visit(path, width=1280, dark=False) -> Opened; the browser is offline."""
    contexts = []

    def open_page(path: Path, width: int = 1280, dark: bool = False) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme="dark" if dark else "light", offline=True
        )
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("request", lambda request: opened.requests.append(request.url[:40]))
        opened.page.goto(path.as_uri())
        return opened

    yield open_page
    for context in contexts:
        context.close()
