"""Parts -> HTML: one file with its style, script, pictures and sounds inside.

The page's own Content-Security-Policy forbids everything but what is in the file, so no network is not a promise but
a rule that the browser keeps.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.pages.parts import Cell, Noted, Part, Picture, Section, Sounds, Table, Text, Track

ASSETS = Path(__file__).parent
LONG_TABLE = 25  # rows; a longer one scrolls in a window of its own
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CSS_DPI = 96
PNG_DPI = 150  # what melcodec.plots draws at
BREAK_AFTER = re.compile(r"(?<=[/_])(?=.)")  # file names hold no spaces


def write_page(path: Path, title: str, summary: Sequence[str], sections: Sequence[Section], footer: str = "") -> None:
    """Write a page that stands alone; the same parts give the same bytes.

    Args:
        path: ends in .html; replaced when it exists.
        title: of the page.
        summary: paragraphs under the title, what a reader in a hurry should know.
        sections: in reading order; more than two get a table of contents.
        footer: one line, such as the command that made the page.

    Raises:
        MelcodecError: a picture that is neither SVG nor PNG, a sound that cannot be heard, or an unwritable place.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    html = environment.get_template("page.html.j2").render(
        title=title,
        summary=summary,
        sections=[(section.title, [_view(part) for part in section.parts]) for section in sections],
        footer=footer,
        style=(ASSETS / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    with written_aside(path) as aside:
        aside.write_text(html, encoding="utf-8", newline="\n")


def _view(part: Part) -> dict[str, Any]:
    """The values that the template needs for ``part``."""
    match part:
        case Text():
            return {"kind": "text", "paragraphs": part.paragraphs}
        case Table():
            rows = [[_cell(value, part.digits) for value in row] for row in part.rows]
            numeric = [_is_numeric([row[column] for row in rows]) for column in range(len(part.columns))]
            columns = list(zip(part.columns, numeric, strict=True))
            return {"kind": "table", "caption": part.caption, "columns": columns, "rows": rows, "long": len(rows) > LONG_TABLE}
        case Picture():
            return {"kind": "picture", "alt": part.alt, "caption": part.caption, **_image(part.data)}
        case Sounds():
            tracks = [(track.label, _seconds(track), _player(track)) for track in part.tracks]
            return {"kind": "sounds", "caption": part.caption, "tracks": tracks}


def _cell(value: Cell, digits: int) -> dict[str, Any]:
    """A cell's text in pieces between which a line may break, and ``value`` to sort numbers by; nothing when missing."""
    if value in (None, "") or (isinstance(value, float | np.floating) and math.isnan(value)):
        return {"pieces": []}
    if isinstance(value, Noted):
        return {**_cell(value.value, digits), "note": value.note}
    if isinstance(value, str):
        return {"pieces": BREAK_AFTER.split(value)}
    if math.isinf(value):
        sign = "-" if value < 0 else ""
        return {"pieces": [f"{sign}\N{INFINITY}"], "value": f"{sign}Infinity"}
    if isinstance(value, int | np.integer):
        return {"pieces": [f"{value:,}"], "value": str(value)}
    text = f"{value:.{digits}f}"
    if value and not float(text):  # a learning rate is small, not zero
        text = f"{value:.{max(digits, 1)}g}"
    return {"pieces": [text], "value": repr(float(value))}


def _is_numeric(cells: list[dict[str, Any]]) -> bool:
    """Whether a column holds numbers alone, and is set flush right."""
    present = [cell for cell in cells if cell["pieces"]]
    return bool(present) and all("value" in cell for cell in present)


def _image(data: bytes) -> dict[str, Any]:
    """The data URI of a picture and its size in CSS pixels, as large as it would be on paper."""
    if data.startswith(PNG_SIGNATURE):
        width, height = (round(side * CSS_DPI / PNG_DPI) for side in struct.unpack(">II", data[16:24]))
        return {"source": _data_uri("image/png", data), "width": width, "height": height}
    if b"<svg" in data[:2048]:
        size = _svg_size(data)
        return {"source": _data_uri("image/svg+xml", data), "width": size[0], "height": size[1]}
    raise MelcodecError("a picture on the page is neither SVG nor PNG")


def _svg_size(data: bytes) -> tuple[int, int]:
    """Width and height in CSS pixels; matplotlib writes points. (0, 0) where the file does not say."""
    tag = re.search(rb"<svg[^>]*>", data)
    sides = [re.search(rb"\s" + name + rb'="([\d.]+)(pt|px)?"', tag.group()) if tag else None for name in (b"width", b"height")]
    if not all(sides):
        return 0, 0
    width, height = (round(float(side[1]) * (CSS_DPI / 72 if side[2] == b"pt" else 1)) for side in sides if side)
    return width, height


def _player(track: Track) -> str:
    """The sound as a data URI, 16-bit FLAC: lossless at half the size of a wav, and every browser plays it."""
    import soundfile

    wav = np.asarray(track.wav, np.float32)
    if wav.ndim != 1 or not wav.size or not np.isfinite(wav).all():
        raise MelcodecError(f"sound '{track.label}': shape {wav.shape}, not (S,) finite samples")
    file = io.BytesIO()
    soundfile.write(file, np.clip(wav, -1, 1), track.sample_rate, format="FLAC", subtype="PCM_16")
    return _data_uri("audio/flac", file.getvalue())


def _seconds(track: Track) -> str:
    return f"{len(track.wav) / track.sample_rate:.1f} s"


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
