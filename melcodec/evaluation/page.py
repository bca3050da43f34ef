"""The evaluation on one page: ``index.html`` in its folder, which needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.catalog import METRICS
from melcodec.evaluation.figure import plot_rates
from melcodec.evaluation.report import PAGE_FILE, RATES_FILE, GroupReport, Report
from melcodec.evaluation.results import Result
from melcodec.evaluation.subjects import Subject, load_sound
from melcodec.evaluation.summary import absences, plural, usage_lines, verdict
from melcodec.evaluation.systems.base import Tools
from melcodec.evaluation.systems.build import CODES, MEL, build_systems
from melcodec.metrics.statistics import Estimate
from melcodec.pages import Part, Picture, Section, Sounds, Table, Text, Track, write_page
from melcodec.pages.parts import Cell, Noted
from melcodec.plots import Scale, figure_bytes, plot_roundtrip, plot_usage, save_figure
from melcodec.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUP_WORDS = {"seen": "whether training has seen the speaker"}
JUDGES = ("distillmos", "stoi", "log_mel_l1")  # the first that is there says which files are best and worst
MAX_SECONDS = 20.0  # of a sound on the page


def write_evaluation_page(
    folder: Path, report: Report, results: Sequence[Result], subjects: Sequence[Subject], codec: Codec
) -> None:
    """Write ``index.html`` to ``folder``: a verdict, sounds and pictures, then the figures.

    The rate-quality figure lies beside it as ``rates.svg``, for papers and READMEs.
    """
    figure = plot_rates(report)
    if figure is None:
        (folder / RATES_FILE).unlink(missing_ok=True)  # of an earlier report
    else:
        save_figure(figure, folder / RATES_FILE)
    sections = [
        *_listening_section(results, subjects, codec),
        Section("Figures", _figures(report, figure)),
        Section("Codes", [Text(usage_lines(report)), *_usage_pictures(report), _usage_table(report)]),
        *_groups(report),
        Section("Files", [_files(report, results)]),
        *([Section("What was not measured", [Text(absent)])] if (absent := list(absences(report))) else []),
        Section("Settings", [_settings(report)]),
    ]
    title = f"Evaluation of {Path(report.checkpoint.path).stem}"
    write_page(folder / PAGE_FILE, title, verdict(report), sections, report.command)


def _figures(report: Report, figure: Figure | None) -> list[Part]:
    """The rate-quality figure, and one table: a row per metric, a column per system."""
    parts: list[Part] = []
    if figure is not None:
        words = "Quality of the checkpoint and its anchors over their bit rates"
        parts.append(Picture(figure_bytes(figure, ".svg"), words, "Bars: 95 % confidence. Lines: systems that code nothing."))
    rows = [
        [
            f"{METRICS[name].label}, {METRICS[name].better} is better",
            *(_mean(system.means.get(name), report.files) for system in report.systems),
        ]
        for name in report.metrics
    ]
    systems = "; ".join(f"{system.name}: {system.label}" for system in report.systems)
    caption = (
        f"Means over {plural(report.files, 'file')} and their 95 % confidence intervals; a mean over fewer files says over how "
        f"many. {systems}."
    )
    return [*parts, Table(caption, ["metric", *(system.name for system in report.systems)], rows)]


def _listening_section(results: Sequence[Result], subjects: Sequence[Subject], codec: Codec) -> list[Section]:
    """The best, the median and the worst file: sounds and pictures."""
    judge = next((name for name in JUDGES if any(name in result.scores[CODES].values for result in results)), None)
    if judge is None:
        return []
    scored = [result for result in results if judge in result.scores[CODES].values]
    scored.sort(key=lambda result: result.scores[CODES].values[judge], reverse=METRICS[judge].better == "higher")
    chosen = {0: "best", len(scored) // 2: "median", len(scored) - 1: "worst"}
    by_id = {subject.utterance.id: subject for subject in subjects}
    tools = Tools(codec, audible=True)
    words = "the original; the codes, decoded; and the vocoder alone, which makes sound of the original's mel"
    parts: list[Part] = [Text([f"Each file three times: {words}. Files are ranked by {METRICS[judge].label} of the codes."])]
    for index, word in sorted(chosen.items()):
        result = scored[index]
        caption = f"{word}: {result.id}, {METRICS[judge].label} {result.scores[CODES].values[judge]:.3f}"
        try:
            parts += _listen(tools, by_id[result.id], caption)
        except MelcodecError as error:  # gone since it was scored
            parts.append(Text([f"{caption}: {error.message}"]))
    return [Section("Listen and look", parts)]


def _listen(tools: Tools, subject: Subject, caption: str) -> list[Part]:
    codec = tools.codec
    wav = load_sound(subject, codec.sample_rate)[: round(MAX_SECONDS * codec.sample_rate)]
    original = tools.original(wav)
    codes = tools.encode(original)
    coded, untouched = (system.output(original, codes) for system in build_systems(tools, (CODES, MEL)))
    outputs = {"original": original, "codes": coded, "vocoder alone": untouched}
    made = outputs["codes"].mel
    figure = plot_roundtrip(original.mel, made, codes, Scale.of(codec.frontend), subject.utterance.id)
    words = f"Mel of {subject.utterance.id}, its codes, the reconstruction, and their difference"
    tracks = [Track(label, sound.wave, sound.rate) for label, sound in outputs.items()]
    return [Sounds(caption, tracks), Picture(figure_bytes(figure), words)]


def _usage_pictures(report: Report) -> list[Part]:
    pictures: list[Part] = []
    for book, counts in enumerate(report.usage.counts):
        name = f"Usage of codebook {book}" if len(report.usage.counts) > 1 else "Usage of the codes"
        pictures.append(Picture(figure_bytes(plot_usage(np.asarray(counts)), ".svg"), f"{name}, the most used first", name))
    return pictures


def _usage_table(report: Report) -> Table:
    usage = report.usage
    rows: list[list[Cell]] = []
    for book in range(len(usage.all)):
        name = f"codebook {book}, " if len(usage.all) > 1 else ""
        stay = usage.durations[book]
        whole, audible = usage.all[book], usage.without_silence[book]
        rows.append([f"{name}all", whole.used, whole.perplexity, whole.entropy_bits, whole.total, stay.mean, stay.repeated])
        facts = (audible.used, audible.perplexity, audible.entropy_bits, audible.total)
        rows.append([f"{name}without digital silence", *facts, None, None])
    columns = ["codes", "used", "perplexity", "entropy (bits)", "counted", "mean duration (codes)", "share that repeat"]
    return Table("How the codebook is used", columns, rows)


def _groups(report: Report) -> list[Section]:
    parts: list[Part] = []
    for label, groups in report.groups.items():
        names = [name for name in report.metrics if any(name in group.means for group in groups.values())]
        rows = [_group_row(value, group, names) for value, group in groups.items()]
        parts.append(
            Table(
                f"The codes by {GROUP_WORDS.get(label, label)}", [label, "files", *(METRICS[name].label for name in names)], rows
            )
        )
    return [Section("Groups", parts)] if parts else []


def _group_row(value: str, group: GroupReport, names: Sequence[str]) -> list[Cell]:
    return [value, group.files, *(_mean(group.means.get(name), group.files) for name in names)]


def _files(report: Report, results: Sequence[Result]) -> Table:
    names = [name for name in report.metrics if name in report.systems[0].means]
    rows: list[list[Cell]] = [
        [result.id, result.seconds, *(result.scores[CODES].values.get(name) for name in names)] for result in results
    ]
    return Table("The codes of every file", ["file", "seconds", *(METRICS[name].label for name in names)], rows)


def _settings(report: Report) -> Table:
    rows: list[list[Cell]] = [["melcodec", __version__]]
    rows += [[f"checkpoint: {name}", str(value)] for name, value in vars(report.checkpoint).items()]
    rows += [[name, _words(value)] for name, value in report.settings.items() if value not in (None, [], "")]
    return Table("What decides these figures", ["setting", "value"], rows)


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _mean(found: Estimate | None, files: int) -> Cell:
    """A mean, its confidence interval, and the count of files behind it where it is not all of them."""
    if found is None:
        return None
    notes = [] if found.low is None or found.high is None else [f"{found.low:.3f} to {found.high:.3f}"]
    notes += [] if found.count == files else [plural(found.count, "file")]
    return Noted(found.mean, ", ".join(notes)) if notes else found.mean
