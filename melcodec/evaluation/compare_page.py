"""A comparison on one page: ``index.html`` and ``comparison.json`` in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.compare import Comparison, Side, verdict
from melcodec.evaluation.page import MAX_SECONDS
from melcodec.evaluation.report import PAGE_FILE
from melcodec.evaluation.subjects import Subject, find_subjects, load_sound
from melcodec.evaluation.systems.base import Tools
from melcodec.evaluation.systems.codes import Codes
from melcodec.files import written_aside
from melcodec.metrics.statistics import Estimate
from melcodec.pages import Part, Picture, Section, Sounds, Table, Text, Track, write_page
from melcodec.pages.parts import Cell, Noted
from melcodec.plots import Scale, figure_bytes, plot_roundtrip

COMPARISON_FILE = "comparison.json"


def check_report_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a file, and a folder that holds a report; raises MelcodecError. To be called before the long work."""
    if folder.exists() and not folder.is_dir():
        raise MelcodecError(f"{folder}: is a file; a report needs a folder")
    if not overwrite and any((folder / name).exists() for name in (PAGE_FILE, COMPARISON_FILE)):
        raise MelcodecError(f"{folder}: holds a report", "add -f to replace it, or give another folder")


def write_comparison(folder: Path, found: Comparison, data: Sequence[str | Path] = (), command: str = "") -> None:
    """Write ``index.html`` and ``comparison.json`` to ``folder``, which is made if it is not there.

    Args:
        found: what ``compare`` returned; its checkpoints are loaded again for the sounds.
        data: the speech that they were compared on; empty for folders of codes, whose page has no sounds.
        command: the line that asked for it, to be shown.

    Raises:
        MelcodecError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with written_aside(folder / COMPARISON_FILE) as aside:
        aside.write_text(json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sections = [
        *(_listen(found, data) if found.errors else []),
        Section("Figures", [_figures(found), *_languages(found), *_bands(found)]),
        Section("Codes", _moved(found)),
        *([Section("Files", [_files(found)])] if found.errors else []),
    ]
    if found.left_out:
        sections.append(Section("What was left out", [Text([f"{name}: {reason}." for name, reason in found.left_out.items()])]))
    names = [Path(side.name).stem for side in (found.a, found.b)]
    if names[0] == names[1]:
        names = [found.a.name, found.b.name]
    write_page(folder / PAGE_FILE, f"Comparison of {names[0]} (A) and {names[1]} (B)", verdict(found), sections, command)


def _listen(found: Comparison, data: Sequence[str | Path]) -> list[Section]:
    """The file that B makes most of beside A, the median, and the one that it makes least of."""
    tools = [Tools(Codec.from_pretrained(side.name, "cpu"), audible=True) for side in (found.a, found.b)]
    subjects = {subject.utterance.id: subject for subject in find_subjects(data)}
    ranked = sorted(found.errors, key=lambda name: found.errors[name][1] - found.errors[name][0])
    chosen = {0: "where B gains most", len(ranked) // 2: "the median", len(ranked) - 1: "where B loses most"}
    if len(ranked) == 1:
        chosen = {0: "the only file"}
    parts: list[Part] = [
        Text([f"A is {found.a.name}, B is {found.b.name}. Files are ranked by the difference of their log-mel L1, B less A."])
    ]
    for index, word in sorted(chosen.items()):
        name = ranked[index]
        before, after = found.errors[name]
        caption = f"{word}: {name}, log-mel L1 {before:.3f} by A and {after:.3f} by B"
        try:
            parts += _sounds(tools, subjects[name], caption)
        except MelcodecError as error:  # gone since it was compared
            parts.append(Text([f"{caption}: {error.message}"]))
    return [Section("Listen and look", parts)]


def _sounds(tools: Sequence[Tools], subject: Subject, caption: str) -> list[Part]:
    tracks: list[Track] = []
    pictures: list[Part] = []
    for letter, tool in zip("AB", tools, strict=True):
        rate = tool.codec.sample_rate
        original = tool.original(load_sound(subject, rate)[: round(MAX_SECONDS * rate)])
        codes = tool.encode(original)
        made = Codes(tool).output(original, codes)
        if not tracks:
            tracks.append(Track("original", original.wave, rate))
        tracks.append(Track(letter, made.wave, rate))
        title = f"{subject.utterance.id}, {letter}"
        figure = plot_roundtrip(original.mel, made.mel, codes, Scale.of(tool.codec.frontend), title)
        words = f"Mel of {subject.utterance.id}, its codes by {letter}, the reconstruction, and their difference"
        pictures.append(Picture(figure_bytes(figure), words))
    return [Sounds(caption, tracks), *pictures]


def _figures(found: Comparison) -> Table:
    rows: list[list[Cell]] = []
    if found.a.error is not None:
        rows.append(["log-mel L1", *(_mean(side) for side in (found.a.error, found.b.error, found.difference))])
    for number, book in enumerate(found.books):
        name = f"codebook {number}, " if len(found.books) > 1 else ""
        before, after = found.a.usage[number], found.b.usage[number]
        rows += [
            [f"{name}codes used", before.used, after.used, after.used - before.used],
            [f"{name}perplexity", before.perplexity, after.perplexity, after.perplexity - before.perplexity],
            [f"{name}share of codes that are equal", None, None, book.exact],
            [f"{name}the same after the best renumbering", None, None, book.matched],
            [f"{name}Jensen-Shannon divergence of the usage (bits)", None, None, book.drift],
        ]
    caption = f"{found.files} files, {found.codes} codes. Under a mean stands its 95 % confidence interval."
    return Table(caption, ["", f"A: {_name(found.a)}", f"B: {_name(found.b)}", "B less A, or both"], rows)


def _languages(found: Comparison) -> list[Part]:
    rows: list[list[Cell]] = [
        [name, item.files, item.exact, _mean(item.before), _mean(item.after)] for name, item in found.languages.items()
    ]
    columns = ["language", "files", "share of codes that are equal", "log-mel L1 of A", "log-mel L1 of B"]
    return [Table("By language", columns, rows)] if rows else []


def _bands(found: Comparison) -> list[Part]:
    if not found.a.bands or not found.b.bands or len(found.a.bands) != len(found.b.bands):
        return []
    rows: list[list[Cell]] = [
        [str(band), a, b, b - a] for band, (a, b) in enumerate(zip(found.a.bands, found.b.bands, strict=True))
    ]
    return [Table("Log-mel L1 by mel band; 0 is the lowest", ["band", "A", "B", "B less A"], rows)]


def _moved(found: Comparison) -> list[Part]:
    if not found.moved:
        return [Text(["No code changed."])]
    rows: list[list[Cell]] = [[str(m.codebook), m.before, m.after, m.count, m.share] for m in found.moved]
    columns = ["codebook", "code of A", "code of B", "times", "share of that code of A"]
    return [Table("The most frequent changes", columns, rows)]


def _files(found: Comparison) -> Table:
    rows: list[list[Cell]] = [[name, a, b, b - a] for name, (a, b) in found.errors.items()]
    return Table("Log-mel L1 of every file", ["file", "A", "B", "B less A"], rows)


def _name(side: Side) -> str:
    return Path(side.name).stem + (f" ({side.fingerprint})" if side.fingerprint else "")


def _mean(found: Estimate | None) -> Cell:
    if found is None or found.low is None:
        return None if found is None else found.mean
    return Noted(found.mean, f"{found.low:.3f} to {found.high:.3f}")
