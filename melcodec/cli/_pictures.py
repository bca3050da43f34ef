"""What the plot commands share: where a picture goes, alone or on a page with what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from melcodec.cli._standard import output_file, plain
from melcodec.errors import MelcodecError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from melcodec.pages import Part, Sounds

PAGE = ".html"
PLAYED_SECONDS = 60  # on a page; more would make it heavy


@dataclass(frozen=True)
class Drawn:
    """A picture and, for a page, what to say around it.

    Args:
        figure: the picture.
        title: of the page.
        alt: what the picture shows, for those who do not see it.
        summary: paragraphs under the title.
        more: what stands under the picture: tables, sounds.
    """

    figure: Figure
    title: str
    alt: str
    summary: Sequence[str] = ()
    more: Sequence[Part] = field(default_factory=tuple)


def check_target(output: Path, overwrite: bool) -> Path:
    """The file to write, for ``-`` one whose PNG goes to standard output; refuse at once what cannot be written."""
    from melcodec.files import check_output
    from melcodec.plots import FORMATS

    output = output_file(output, ".png")
    check_output(output, overwrite)
    if output.suffix.lower() not in (*FORMATS, PAGE):
        raise MelcodecError(f"{output}: cannot write '{output.suffix}' pictures", f"use one of {', '.join((*FORMATS, PAGE))}")
    return output


def save(drawn: Drawn, output: Path, overwrite: bool) -> None:
    """Write a picture, or a page around it; the suffix says which."""
    from melcodec.plots import figure_bytes, save_figure

    if not is_page(output):
        save_figure(drawn.figure, output, overwrite)
        return
    from melcodec.files import check_output
    from melcodec.pages import Picture, Section, Table, write_page
    from melcodec.version import __version__

    check_output(output, overwrite)
    sections = [Section("Picture", [Picture(figure_bytes(drawn.figure), drawn.alt)])]
    tables = [part for part in drawn.more if isinstance(part, Table)]
    heard = [part for part in drawn.more if not isinstance(part, Table)]
    sections += [Section(name, parts) for name, parts in (("Sound", heard), ("Numbers", tables)) if parts]
    write_page(output, drawn.title, drawn.summary, sections, f"melcodec {__version__}, melcodec plot")


def is_page(output: Path) -> bool:
    """Whether ``output`` is to be a page."""
    return output.suffix.lower() == PAGE


def sounds(caption: str, waves: dict[str, np.ndarray], sample_rate: int) -> Sounds:
    """Players for waves (S,), at most a minute of each."""
    from melcodec.pages import Sounds, Track

    most = PLAYED_SECONDS * sample_rate
    if any(len(wave) > most for wave in waves.values()):
        caption = f"{caption} The first {PLAYED_SECONDS} s."
    return Sounds(caption, [Track(name, wave[:most], sample_rate) for name, wave in waves.items()])


def is_array(source: str | Path) -> bool:
    """Whether ``source`` is named as codes or a mel are, not as sound."""
    from melcodec.formats.arrays import SUFFIXES

    return Path(source).suffix.lower() in SUFFIXES


def title_of(source: str | Path) -> str:
    """What to write above the picture of ``source``."""
    return "standard input" if str(source) == "-" or plain(str(source)) != str(source) else Path(source).name
