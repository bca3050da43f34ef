"""Run folders -> the figures of each run, and their means and intervals over seeds."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.config import RunConfig
from melcodec.files import written_aside
from melcodec.formats.container import read_header
from melcodec.metrics.codes import bit_rate
from melcodec.training.logs import METRICS
from melcodec.training.loop import LAST

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Result:
    """One finished run, at its last step.

    Args:
        parameters: of encoder and decoder.
        codes: entries of all codebooks together.
        bits_per_second: of the codes, at log2(K) bits each.
        step_seconds: mean duration of a training step, without validations; None where no metric line was logged.
        log_mel_l1: of the validation set, natural log power.
        codes_used: of ``codes``, in the validation set.
        perplexity, entropy_bits: of the codes of the validation set; see ``training.validate``.
    """

    parameters: int
    codes: int
    bits_per_second: float
    step_seconds: float | None
    log_mel_l1: float
    codes_used: int
    perplexity: float
    entropy_bits: float


@dataclass(frozen=True)
class Interval:
    """Mean over seeds and half the width of its 95 % confidence interval (Student's t); None with a single seed."""

    mean: float
    half: float | None


def read_result(folder: Path, config: RunConfig) -> Result:
    """The figures of the finished run in ``folder``."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    last = next(line for line in reversed(lines) if line["kind"] == "valid")
    speeds = [line["audio_per_second"] for line in lines if line["kind"] == "train"]
    mel, data, sizes = config.model.mel, config.data, config.model.quantizer.sizes
    seconds = data.batch_size * data.crop_frames * mel.hop_length / mel.sample_rate  # of speech in a step
    entries = read_header(folder / LAST)[1]
    weights = [math.prod(entry["shape"]) for key, entry in entries.items() if key.startswith(("encoder.", "decoder."))]
    return Result(
        parameters=sum(weights),
        codes=sum(sizes),
        bits_per_second=bit_rate(mel.sample_rate, mel.hop_length * config.model.backbone.stride, sizes),
        step_seconds=seconds / speeds[-1] if speeds else None,
        log_mel_l1=last["log_mel_l1"],
        codes_used=last["codes_used"],
        perplexity=last["perplexity"],
        entropy_bits=last["entropy_bits"],
    )


def over_seeds(results: Sequence[Result], name: str) -> Interval | None:
    """One figure of several seeds; None where it is missing."""
    values = [value for result in results if (value := getattr(result, name)) is not None]
    if not values:
        return None
    if len(values) == 1:
        return Interval(float(values[0]), None)
    from scipy.stats import t

    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return Interval(float(np.mean(values)), float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * error))


def write_csv(path: Path, rows: Sequence[tuple[str, dict[str, str], int, Result]]) -> None:
    """One line per finished run: name, varied settings, seed, and the fields of ``Result``."""
    lines: list[dict[str, Any]] = [
        {"run": name, **setting, "seed": seed, **asdict(result)} for name, setting, seed, result in rows
    ]
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
