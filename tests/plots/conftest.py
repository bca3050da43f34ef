"""Real speech as a mel, and the rule that nothing on a picture overlaps or is cut off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from melcodec.audio.io import load
from melcodec.audio.mel import build_frontend
from melcodec.config import MelConfig, xtts_mel_norms


@pytest.fixture(scope="session")
def mel(examples):
    """Natural log-mel (80, 448) of five seconds of speech."""
    frontend = build_frontend(MelConfig(), xtts_mel_norms())
    return frontend(torch.from_numpy(load(examples["lj_en"], 22_050))[None])[0].numpy()


@pytest.fixture(scope="session")
def decoded():
    """decoded(mel, num_books=1) -> a poor reconstruction (M, 4N), four frames alike, and codes (Q, N)."""

    def make(mel, num_books=1):
        num_codes = -(-mel.shape[1] // 4)
        padded = np.pad(mel, ((0, 0), (0, 4 * num_codes - mel.shape[1])), mode="edge")
        steps = padded.reshape(len(mel), num_codes, 4).mean(axis=2).repeat(4, axis=1)
        return steps, np.random.default_rng(0).integers(0, 1024, (num_books, num_codes))

    return make


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


@pytest.fixture(scope="session")
def check_page():
    """check_page(figure, labels): they are there, no text leaves the page, and no two texts overlap."""

    def check(figure, labels=("Time (s)", "Power (dB)", "Frequency (kHz)")):
        width, height = figure.canvas.get_width_height()
        boxes = texts(figure)
        assert set(labels) <= {text for text, _ in boxes}
        for text, box in boxes:
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= width + 1, text
            assert box.y1 <= height + 1, text
        for index, (text, box) in enumerate(boxes):
            for other, other_box in boxes[index + 1 :]:
                both = Bbox.intersection(box, other_box)
                assert both is None or both.width <= 1 or both.height <= 1, (text, other)

    return check
