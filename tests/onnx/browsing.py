"""docs/browser/ opened in headless Chromium: what several tests do with it."""

from __future__ import annotations

from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *args: object) -> None:
        """Nothing on stderr."""


def wait(page, words: str) -> None:
    """Until the page says so."""
    page.wait_for_function("words => document.getElementById('status').textContent.includes(words)", arg=words, timeout=120_000)


def forget(page) -> None:
    """What the page said last."""
    page.evaluate("document.getElementById('status').textContent = ''")


def result(page) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (Q, N), the samples that were encoded and the decoded ones."""
    found = page.evaluate("({codes: result.codes, original: [...result.original], decoded: [...result.decoded]})")
    return np.array(found["codes"]), np.array(found["original"], np.float32), np.array(found["decoded"], np.float32)


def encoded_in_browser(page, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``result`` of a file."""
    forget(page)
    page.set_input_files("#file", path)
    wait(page, "encoded in")
    return result(page)
