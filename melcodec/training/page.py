"""A run on one page: ``index.html`` in its folder, made anew every few minutes and at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.audio.io import load
from melcodec.config import RunConfig, flat
from melcodec.pages import Picture, Section, Sounds, Table, Track, write_page
from melcodec.plots import UsageHistory, figure_bytes, plot_training, plot_usage_history, read_curves
from melcodec.training.logs import METRICS, USAGE
from melcodec.training.samples import FOLDER, clip_path, codebook_path

PAGE = "index.html"
COLUMNS = {
    "step": "step",
    "log_mel_l1": "log-mel L1 (natural log power)",
    "codes_used": "codes in use",
    "codes_dead": "dead",
    "perplexity": "perplexity",
    "entropy_bits": "entropy (bits)",
    "revived": "revived since the last",
    "agreement": "codes as before training",
}


def write_run_page(folder: Path, settings: RunConfig) -> None:
    """Write ``index.html`` from what the run has left in ``folder`` so far."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    valid = [line for line in lines if line["kind"] == "valid"]
    if not valid:
        return
    sections = [_curves(folder, valid[-1]["step"]), _validations(valid), *_clips(folder, settings, valid[-1]["step"])]
    sections.append(_settings(settings))
    write_page(folder / PAGE, f"Run {folder.name}", _summary(settings, valid), sections)


def _summary(settings: RunConfig, valid: list[dict[str, Any]]) -> list[str]:
    best = min(valid, key=lambda line: line["log_mel_l1"])
    last, size = valid[-1], sum(settings.model.quantizer.sizes)
    words = [
        f"Step {last['step']} of {settings.train.steps}: validation log-mel L1 {last['log_mel_l1']:.3f}, {last['codes_used']} of "
        f"{size} codes in use, perplexity {last['perplexity']:.0f}. Best: {best['log_mel_l1']:.3f} at step {best['step']}."
    ]
    if "agreement" in last:
        words.append(f"{last['agreement']:.1%} of the validation codes are those of the checkpoint it started from.")
    return words


def _curves(folder: Path, step: int) -> Section:
    curves = plot_training(read_curves(folder / METRICS))
    parts = [Picture(figure_bytes(curves), "Losses, validation error and code use over training steps")]
    if (folder / USAGE).exists():
        with np.load(folder / USAGE, allow_pickle=False) as usage:
            history = plot_usage_history(UsageHistory(usage["steps"], usage["counts"]))
        parts.append(Picture(figure_bytes(history), "Use of every code at each validation", "Codes, the most used first"))
    if codebook_path(folder / FOLDER, step).exists():
        picture = codebook_path(folder / FOLDER, step).read_bytes()
        parts.append(
            Picture(picture, "Codewords in the plane of their two largest principal components, as large as they are used")
        )
    return Section("Learning", parts)


def _validations(valid: list[dict[str, Any]]) -> Section:
    known = {key: name for key, name in COLUMNS.items() if key in valid[0]}
    rows = [[line.get(key) for key in known] for line in valid]
    return Section("Validations", [Table("Over the whole validation set", list(known.values()), rows)])


def _clips(folder: Path, settings: RunConfig, step: int) -> list[Section]:
    parts: list[Any] = []
    rate = settings.model.mel.sample_rate
    for index in range(settings.train.samples):
        picture = clip_path(folder / FOLDER, index, step, ".png")
        sounds = [(None, "mel untouched"), (step, "from codes")]
        paths = [(clip_path(folder / FOLDER, index, at, ".wav"), label) for at, label in sounds]
        if picture.exists():
            parts.append(Picture(picture.read_bytes(), f"Mel of validation clip {index}: original, reconstruction, difference"))
        tracks = [Track(label, load(path, rate), rate) for path, label in paths if path.exists()]
        if tracks:
            parts.append(Sounds(f"Clip {index}, vocoder: {settings.vocoder.kind}", tracks))
    return [Section("Validation clips", parts)] if parts else []


def _settings(settings: RunConfig) -> Section:
    default, ours = (flat(config.model_dump(mode="json")) for config in (RunConfig(), settings))
    rows = [[key, str(value), "" if value == default.get(key) else str(default.get(key, ""))] for key, value in ours.items()]
    return Section("Settings", [Table("All settings of the run", ["setting", "value", "default, where it differs"], rows)])
