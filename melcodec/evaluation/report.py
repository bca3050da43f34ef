"""What an evaluation found: figures with their uncertainty and count, as a dataclass, metrics.json and a CSV of files."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.evaluation.catalog import METRICS
from melcodec.evaluation.results import Result
from melcodec.evaluation.subjects import GROUP_LABELS
from melcodec.evaluation.systems.base import System
from melcodec.evaluation.systems.build import CODES
from melcodec.files import written_aside
from melcodec.metrics.codes import CodeDurations, CodeUsage, code_durations, code_usage, run_lengths
from melcodec.metrics.predictability import Score
from melcodec.metrics.statistics import Estimate, estimate
from melcodec.version import __version__

KIND, FORMAT = "evaluation", 1
METRICS_FILE, FILES_FILE, RESULTS_FILE = "metrics.json", "files.csv", "results.jsonl"
PAGE_FILE, RATES_FILE = "index.html", "rates.svg"


@dataclass(frozen=True)
class CheckpointFacts:
    """The tokenizer. path: file or name; bit_rate: codes at log2(K) bits each; code_rate: codes a second and codebook."""

    path: str
    sha256: str
    fingerprint: str
    sample_rate: int
    code_rate: float
    bit_rate: float
    num_codebooks: int
    codebook_size: int


@dataclass(frozen=True)
class SystemReport:
    """One system: means by metric, and for every absent score its reason and how many files have it."""

    name: str
    label: str
    bit_rate: float | None
    means: dict[str, Estimate]
    absent: dict[str, dict[str, int]]


@dataclass(frozen=True)
class GroupReport:
    """The codes' means over the files of one group."""

    files: int
    means: dict[str, Estimate]


@dataclass(frozen=True)
class UsageReport:
    """How the codebooks are used, over all files.

    Args:
        all: usage of each codebook.
        without_silence: the same, leaving out codes that stand for digital silence.
        silent_share: share of codes left out.
        entropy_bit_rate: bit/s that an ideal coder of single codes would take: entropy times code rate.
        durations: of each codebook's codes.
        counts: (Q, K) how often each code occurs.
    """

    all: list[CodeUsage]
    without_silence: list[CodeUsage]
    silent_share: float
    entropy_bit_rate: float
    durations: list[CodeDurations]
    counts: list[list[int]]


@dataclass(frozen=True)
class Report:
    """An evaluation, whole.

    Args:
        settings: everything that decides the figures; JSON values.
        command: the line that made it.
        files: evaluated; ``seconds`` of speech in them.
        absent_systems, absent_metrics: what could not be measured at all, and why.
        groups: by label (language, dataset, seen, speaker) and value.
        failures: utterances that could not be evaluated, by id, and why.
        predictability: bits per code under a prior; None where none was given.
    """

    checkpoint: CheckpointFacts
    settings: dict[str, Any]
    command: str
    files: int
    seconds: float
    systems: list[SystemReport]
    usage: UsageReport
    groups: dict[str, dict[str, GroupReport]]
    absent_systems: dict[str, str] = field(default_factory=dict)
    absent_metrics: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    predictability: Score | None = None

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that any system has, in the catalog's order."""
        return [name for name in METRICS if any(name in system.means for system in self.systems)]

    def to_json(self) -> dict[str, Any]:
        """JSON values, as in metrics.json."""
        labels = {name: {"label": METRICS[name].label, "better": METRICS[name].better} for name in self.metrics}
        return {"kind": KIND, "format": FORMAT, "melcodec": __version__, **asdict(self), "metrics": labels}


def summarize_systems(results: Sequence[Result], systems: Iterable[System], seed: int) -> list[SystemReport]:
    """Means of every system over all results."""
    return [
        SystemReport(system.name, system.label, system.bit_rate, means(results, system.name, seed), reasons(results, system.name))
        for system in systems
    ]


def reasons(results: Iterable[Result], system: str) -> dict[str, dict[str, int]]:
    """Why scores of ``system`` are absent: by metric, every reason and its count of files."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        for name, reason in result.scores[system].absent.items():
            found.setdefault(name, Counter())[reason] += 1
    return {name: dict(found[name].most_common()) for name in METRICS if name in found}


def means(results: Iterable[Result], system: str, seed: int) -> dict[str, Estimate]:
    """Mean of every metric that ``system`` has in any of ``results``."""
    scores = [result.scores[system] for result in results]
    found = {}
    for name in METRICS:
        have = [score for score in scores if name in score.values]
        if have:
            found[name] = estimate([s.values[name] for s in have], [s.weights.get(name, 1.0) for s in have], seed)
    return found


def summarize_groups(results: Sequence[Result], seed: int) -> dict[str, dict[str, GroupReport]]:
    """The codes' means by every label that splits the results."""
    groups: dict[str, dict[str, GroupReport]] = {}
    for label in GROUP_LABELS:
        members: dict[str, list[Result]] = {}
        for result in results:
            if label in result.labels:
                members.setdefault(result.labels[label], []).append(result)
        if members:
            groups[label] = {
                value: GroupReport(len(members[value]), means(members[value], CODES, seed)) for value in sorted(members)
            }
    return groups


def summarize_usage(results: Sequence[Result], checkpoint: CheckpointFacts) -> UsageReport:
    """Code usage over all results."""
    shape = (checkpoint.num_codebooks, checkpoint.codebook_size)
    counts, silent = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    runs: list[list[np.ndarray]] = [[] for _ in range(shape[0])]
    for result in results:
        for book, codes in enumerate(np.asarray(result.codes, np.int64)):
            counts[book] += np.bincount(codes, minlength=shape[1])
            silent[book] += np.bincount(codes[result.silent], minlength=shape[1])
            runs[book].append(run_lengths(codes))
    usage = [code_usage(row) for row in counts]
    return UsageReport(
        usage,
        [code_usage(row) for row in counts - silent],
        float(silent.sum() / max(int(counts.sum()), 1)),
        checkpoint.code_rate * sum(book.entropy_bits for book in usage),
        [code_durations(np.concatenate(book)) for book in runs],
        counts.tolist(),
    )


def write_report(folder: Path, report: Report, results: Sequence[Result]) -> None:
    """Write metrics.json and files.csv to ``folder``."""
    _write(folder / FILES_FILE, files_csv(report, results))
    _write(folder / METRICS_FILE, json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def files_csv(report: Report, results: Sequence[Result]) -> str:
    """A row per file and system; a cell is empty where there is no score, and ``absent`` says why."""
    text = io.StringIO()
    metrics = report.metrics
    columns = ["id", "path", *GROUP_LABELS, "seconds", "system", "delay_ms", *metrics, "absent"]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for result in results:
        for system in report.systems:
            scores = result.scores[system.name]
            facts = {"id": result.id, "path": result.path, "seconds": round(result.seconds, 3), "system": system.name}
            if scores.delay is not None:
                facts["delay_ms"] = scores.delay
            if scores.absent:
                facts["absent"] = "; ".join(f"{name}: {reason}" for name, reason in scores.absent.items())
            writer.writerow({**facts, **result.labels, **scores.values})
    return text.getvalue()


def read_metrics(path: Path) -> dict[str, Any]:
    """What a ``metrics.json`` holds.

    Raises:
        MelcodecError: it is damaged, not an evaluation, or of a melcodec whose format this one does not read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind, version = found["kind"], found["format"]
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise MelcodecError(f"{path}: not a report of melcodec evaluate") from None
    if kind != KIND:
        raise MelcodecError(f"{path}: holds {kind}, not an evaluation")
    if version != FORMAT:
        age, writer = "an older" if version < FORMAT else "a newer", found.get("melcodec", "unknown")
        raise MelcodecError(f"{path}: written by {age} melcodec ({writer}, format {version}; this one reads {FORMAT})")
    return dict(found)


def _write(path: Path, text: str) -> None:
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")
