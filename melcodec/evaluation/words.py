"""An evaluation in words and columns, for a terminal and the head of a page."""

from __future__ import annotations

from pathlib import Path

from melcodec.evaluation.catalog import METRICS
from melcodec.evaluation.report import Report
from melcodec.evaluation.systems.build import BYPASSED, CODES, MEL

WIDTH = 12
HEADLINES = ("log_mel_l1", "stoi", "pesq_wb", "distillmos", "speaker_similarity", "wer")
BEST = {"stoi": 1.0, "estoi": 1.0, "speaker_similarity": 1.0}  # what the original itself has


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


def summary(report: Report) -> list[str]:
    """What a reader in a hurry should know."""
    facts, first = report.checkpoint, report.systems[0]
    speakers = len(report.groups.get("speaker", {}))
    who = f" by {plural(speakers, 'speaker')}" if speakers else ""
    unseen = report.groups.get("seen", {}).get("unseen")
    if unseen is not None:
        who += f"; {unseen.files} of the files are by speakers that were never trained on"
    lines = [
        f"{Path(facts.path).stem} (checkpoint {facts.fingerprint}) makes {facts.code_rate:.2f} codes a second, "
        f"{facts.bit_rate:.0f} bit/s, measured on {plural(report.files, 'file')}, {report.seconds / 60:.1f} minutes{who}."
    ]
    said = []
    for name in [name for name in HEADLINES if name in first.means] or list(first.means):
        found = first.means[name]
        between = "" if found.low is None else f" ({found.low:.3f} to {found.high:.3f})"
        few = "" if found.count == report.files else f", {plural(found.count, 'file')}"
        said.append(f"{METRICS[name].label} {found.mean:.3f}{between}{few}")
    if said:
        lines.append(f"The codes: {'; '.join(said)}. In brackets, where the mean lies with 95 % confidence.")
    return [*lines, *limits(report), *usage_lines(report), *absences(report)]


def limits(report: Report) -> list[str]:
    """Which part of the chain costs most: the vocoder, the network, or the codes."""
    systems = {system.name: system.means for system in report.systems}
    name = next((name for name in BEST if all(name in systems.get(system, {}) for system in (MEL, BYPASSED, CODES))), None)
    if name is None:
        return []
    compared = [system for system in report.systems if system.name in (MEL, BYPASSED, CODES)]
    if any(system.absent.get(name) != compared[0].absent.get(name) for system in compared):
        return []  # means over different files have no difference
    found = [systems[system][name] for system in (MEL, BYPASSED, CODES)]
    ceiling, network, codes = (item.mean for item in found)
    losses = {"the vocoder": BEST[name] - ceiling, "the network": ceiling - network, "quantising": network - codes}
    worst = max(losses, key=lambda part: losses[part])
    parts = ", ".join(f"{part} {loss:.3f}" for part, loss in losses.items())
    over = "" if found[0].count == report.files else f", over {plural(found[0].count, 'file')}"
    lost = f"Of {METRICS[name].label}{over}, {BEST[name] - codes:.3f} are lost on the way: {parts}."
    return [f"{lost} What limits most is {worst}."]


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
    return lines


def absences(report: Report) -> list[str]:
    """What is not there, and why."""
    lines = [f"Without {name}: {reason}." for name, reason in {**report.absent_systems, **report.absent_metrics}.items()]
    for name, reasons in report.systems[0].absent.items():
        for reason, count in reasons.items():
            files = "any file" if count == report.files else f"{count} of {report.files} files"
            lines.append(f"No {METRICS[name].label} for {files}: {reason}.")
    lines += [f"Failed: {reason}." for reason in report.failures.values()]
    return lines
