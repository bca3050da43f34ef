"""A prior's training on one page: ``index.html`` in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from melcodec.audio.io import load, probe
from melcodec.config import flat
from melcodec.metrics.ngram import NAMES
from melcodec.pages import Part, Picture, Section, Sounds, Table, Track, write_page
from melcodec.plots import figure_bytes, plot_prior, read_curves
from melcodec.prior.config import PriorConfig
from melcodec.prior.show import FOLDER
from melcodec.training.logs import METRICS
from melcodec.version import __version__

PAGE = "index.html"


def write_prior_page(folder: Path, settings: PriorConfig) -> None:
    """Write ``index.html`` from what the run has left in ``folder`` so far; nothing before the first validation."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    valid = [line for line in lines if line["kind"] == "valid"]
    if not valid:
        return
    baselines = {name: valid[-1][name] for name in NAMES if name in valid[-1]}
    curves = figure_bytes(plot_prior(read_curves(folder / METRICS), baselines))
    sections = [Section("Learning", [Picture(curves, "Bits per token and per held-out code over training steps")])]
    sections += [_validations(valid), *_samples(folder), _settings(settings)]
    best = min(valid, key=lambda line: line["bits_per_code"])
    rest = ", ".join(f"{name} {bits:.3f}" for name, bits in baselines.items())
    words = [
        f"Step {valid[-1]['step']} of {settings.train.steps}: {valid[-1]['bits_per_code']:.3f} bits per held-out code. "
        f"Fewest: {best['bits_per_code']:.3f} at step {best['step']}, which is the prior in this folder. Beside it: {rest}."
    ]
    write_page(folder / PAGE, f"Prior {folder.name}", words, sections, f"melcodec {__version__}, melcodec prior train")


def _validations(valid: list[dict[str, Any]]) -> Section:
    rows = [[line["step"], line["bits_per_code"]] for line in valid]
    return Section("Validations", [Table("On all held-out codes", ["step", "bits per code"], rows)])


def _samples(folder: Path) -> list[Section]:
    """The samples of the last step that has some."""
    paths = sorted((folder / FOLDER).glob("sample*-step-*.wav"), key=lambda path: (path.stem.rpartition("-")[2], path.name))
    if not paths:
        return []
    step = paths[-1].stem.rpartition("-")[2]
    tracks = []
    for path in paths:
        if path.stem.endswith(step):
            rate = probe(path).sample_rate
            tracks.append(Track(path.stem.partition("-")[0], load(path, rate), rate))
    parts: list[Part] = [Sounds(f"Drawn from nothing after step {int(step)}, through Griffin-Lim", tracks)]
    return [Section("Samples", parts)]


def _settings(settings: PriorConfig) -> Section:
    rows = [[key, str(value)] for key, value in flat(settings.model_dump(mode="json")).items()]
    return Section("Settings", [Table("All settings of the run", ["setting", "value"], rows)])
