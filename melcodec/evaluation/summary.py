"""An evaluation in sentences and columns, for a terminal and for the head of a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from melcodec.evaluation.catalog import METRICS
from melcodec.evaluation.report import Report
from melcodec.evaluation.systems.build import BYPASSED, CODES, MEL, ORIGINAL
from melcodec.metrics.statistics import Estimate

WIDTH = 12
LEVELS = ("good", "fair", "poor")


@dataclass(frozen=True)
class Aspect:
    """One side of quality, on which the verdict says good, fair or poor.

    Args:
        name: as in a sentence.
        metrics: the first of them that was measured decides.
        worst, best: the metric for an output that has nothing of the original, and for the original itself.
        limits: good and fair begin here. Where higher is better, a limit is the share of the way from ``worst`` to the vocoder's
            ceiling (to ``best``, if the ceiling was not measured); where lower is better, it is a value of the metric.
    """

    name: str
    metrics: tuple[str, ...]
    worst: float
    best: float
    limits: tuple[float, float] = (0.9, 0.7)


ASPECTS = (
    Aspect("intelligibility", ("stoi", "estoi"), 0, 1),
    Aspect("naturalness", ("distillmos", "dnsmos"), 1, 5),
    Aspect("likeness of the voice", ("speaker_similarity",), 0, 1),
    Aspect("accuracy of the spectrum", ("log_mel_l1",), float("inf"), 0, limits=(0.5, 1.0)),
)


@dataclass(frozen=True)
class Rating:
    """What the verdict says about one aspect: ``level`` is an index of LEVELS."""

    aspect: Aspect
    metric: str
    level: int


def plural(count: int, what: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def table(report: Report) -> list[str]:
    """A line per metric, a column per system; the count of files stands beside a mean wherever it is not all of them."""
    if not report.metrics:
        return ["No figure could be computed for any file."]
    label = max(len(METRICS[name].label) for name in report.metrics)
    lines = [" " * label + "".join(f"{system.name:>{WIDTH}}" for system in report.systems)]
    for name in report.metrics:
        cells = []
        for system in report.systems:
            found = system.means.get(name)
            few = "" if found is None or found.count == report.files else f" ({found.count})"
            cells.append("-" if found is None else f"{found.mean:.3f}{few}")
        lines.append(f"{METRICS[name].label:<{label}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells))
    return lines


def rate(report: Report) -> list[Rating]:
    """Good, fair or poor for every aspect of which a metric was measured."""
    means = {system.name: system.means for system in report.systems}
    found = []
    for aspect in ASPECTS:
        name = next((name for name in aspect.metrics if name in means[CODES]), None)
        if name is None:
            continue
        value, (good, fair) = means[CODES][name].mean, aspect.limits
        if METRICS[name].better == "higher":
            ceiling = means.get(MEL, {}).get(name)
            best = aspect.best if ceiling is None else ceiling.mean
            value = -(value - aspect.worst) / max(best - aspect.worst, 1e-9)
            good, fair = -good, -fair
        found.append(Rating(aspect, name, 0 if value <= good else 1 if value <= fair else 2))
    return found


def verdict(report: Report) -> list[str]:
    """What a reader in a hurry should know: how good it is, what limits it, what was measured, and how that compares."""
    ratings, lines = rate(report), []
    if ratings:
        overall = sorted(rating.level for rating in ratings)[len(ratings) // 2]
        parts = ", ".join(f"{rating.aspect.name} {LEVELS[rating.level]}" for rating in ratings)
        lines.append(" ".join([f"Verdict: {LEVELS[overall]} ({parts}).", *limits(report)]))
    lines.append(measured(report))
    return lines + [comparison(report, rating) for rating in ratings]


def measured(report: Report) -> str:
    """Which checkpoint, at what rate, on what speech."""
    facts = report.checkpoint
    speakers = len(report.groups.get("speaker", {}))
    who = f" by {plural(speakers, 'speaker')}" if speakers else ""
    unseen = report.groups.get("seen", {}).get("unseen")
    if unseen is not None:
        who += f"; {unseen.files} of the files are by speakers that were never trained on"
    return (
        f"{Path(facts.path).stem} (checkpoint {facts.fingerprint}) makes {facts.code_rate:.2f} codes a second, "
        f"{facts.bit_rate:.0f} bit/s, measured on {plural(report.files, 'file')}, {report.seconds / 60:.1f} minutes{who}."
    )


def comparison(report: Report, rating: Rating) -> str:
    """The figure behind a rating, beside those of the other systems."""
    name, own = rating.metric, report.systems[0].means[rating.metric]
    between = "" if own.low is None else f" (95 % confidence interval {own.low:.3f} to {own.high:.3f})"
    few = "" if own.count == report.files else f", over {plural(own.count, 'file')}"
    others: dict[str, list[str]] = {}
    for system in report.systems[1:]:
        other = system.means.get(name)
        if other is not None and system.name not in (MEL, ORIGINAL):
            others.setdefault(_relation(own, other, METRICS[name].better), []).append(f"{system.label} ({other.mean:.3f})")
    beside = "".join(f"; {relation} {' and '.join(labels)}" for relation, labels in others.items())
    ceiling = next((system.means.get(name) for system in report.systems if system.name == MEL), None)
    reach = f"; the vocoder alone reaches {ceiling.mean:.3f}" if ceiling and METRICS[name].better == "higher" else ""
    words = f"{rating.aspect.name}: {LEVELS[rating.level]}. {METRICS[name].label} {own.mean:.3f}{between}{few}{reach}{beside}."
    return words[0].upper() + words[1:]


def _relation(own: Estimate, other: Estimate, better: str) -> str:
    """How ``own`` stands to ``other``; a difference counts where the confidence intervals do not overlap."""
    if None in (own.low, own.high, other.low, other.high):
        overlap = own.mean == other.mean
    else:
        overlap = own.low <= other.high and other.low <= own.high  # type: ignore[operator]
    if overlap:
        return "not clearly different from"
    return "better than" if (own.mean > other.mean) == (better == "higher") else "worse than"


def limits(report: Report) -> list[str]:
    """Which part of the chain costs most: the vocoder, the network, or the quantizer. Empty where that cannot be said."""
    compared = {system.name: system for system in report.systems if system.name in (MEL, BYPASSED, CODES)}
    best = {"stoi": 1.0, "estoi": 1.0, "speaker_similarity": 1.0, "log_mel_l1": 0.0}  # of the original itself
    name = next((name for name in best if sum(name in system.means for system in compared.values()) == 3), None)
    if name is None:
        return []
    if len({tuple(sorted(system.absent.get(name, {}).items())) for system in compared.values()}) > 1:
        return []  # means over different files have no difference
    ceiling, network, codes = (compared[system].means[name] for system in (MEL, BYPASSED, CODES))
    sign = 1 if METRICS[name].better == "higher" else -1
    losses = {
        "the vocoder": sign * (best[name] - ceiling.mean),
        "the network": sign * (ceiling.mean - network.mean),
        "the quantizer": sign * (network.mean - codes.mean),
    }
    if not METRICS[name].audible:
        del losses["the vocoder"]  # which has no part in a mel
    worst = max(losses, key=lambda part: losses[part])
    over = "" if codes.count == report.files else f", over {plural(codes.count, 'file')}"
    change = "falls" if sign > 0 else "rises"
    parts = ", ".join(f"{loss:.3f} by {part}" for part, loss in losses.items())
    lost = f"From the original to the decoded codes{over}, {METRICS[name].label} {change} from {best[name]:g} to {codes.mean:.3f}"
    return [f"{lost}: {parts}. {worst.capitalize()} limits most."]


def usage_lines(report: Report) -> list[str]:
    """How the codes are used, with and without digital silence."""
    usage, facts = report.usage, report.checkpoint
    lines = []
    for book, (whole, audible, stay) in enumerate(zip(usage.all, usage.without_silence, usage.durations, strict=True)):
        name = f"Codebook {book}: " if facts.num_codebooks > 1 else ""
        silence = (
            f"; without digital silence ({100 * usage.silent_share:.1f} %) {audible.used}, {audible.perplexity:.0f} and "
            f"{audible.entropy_bits:.2f} bits"
        )
        silence = silence if usage.silent_share else ""
        lines.append(
            f"{name}{whole.used} of {facts.codebook_size} codes are used, perplexity {whole.perplexity:.0f}, entropy "
            f"{whole.entropy_bits:.2f} bits, over {plural(whole.total, 'code')}{silence}. "
            f"A code stays for {1000 * stay.mean / facts.code_rate:.0f} ms."
        )
    lines.append(f"Ideal coding of single codes would take {usage.entropy_bit_rate:.1f} of the {facts.bit_rate:.1f} bit/s.")
    if report.predictability is not None:
        found, per_code = report.predictability, report.predictability.bits_per_code
        between = "" if per_code.low is None else f" (95 % confidence interval {per_code.low:.2f} to {per_code.high:.2f})"
        lines.append(
            f"The prior {found.name} predicts each code from those before it with {per_code.mean:.2f} bits{between}: "
            f"{found.bits_per_second.mean:.1f} bit/s, perplexity {found.perplexity:.0f}."
        )
    return lines


def absences(report: Report) -> Iterator[str]:
    """What was not measured, and why."""
    for name, reason in {**report.absent_systems, **report.absent_metrics}.items():
        yield f"{name} was not measured: {reason}."
    for name, reasons in report.systems[0].absent.items():
        for reason, count in reasons.items():
            files = "any file" if count == report.files else f"{count} of {report.files} files"
            yield f"No {METRICS[name].label} for {files}: {reason}."
    yield from (f"Failed: {reason}." for reason in report.failures.values())
