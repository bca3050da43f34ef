"""The page of a sweep: ``index.html`` in its folder, with ``sweep.csv`` and ``sweep.json`` beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from melcodec.audio.io import load
from melcodec.config import RunConfig, flat
from melcodec.formats.container import read_header
from melcodec.pages import Part, Picture, Section, Sounds, Table, Text, Track, write_page
from melcodec.pages.parts import Cell, Noted
from melcodec.plots import beside, figure_bytes, plot_sweep, plot_usage_histories, read_curves, read_history
from melcodec.sweep.plan import SUMMARY, Plan, Run, read_summary, write_summary
from melcodec.sweep.results import Result, over_seeds, read_result, write_csv
from melcodec.training.logs import METRICS, USAGE
from melcodec.training.loop import LAST
from melcodec.training.samples import FOLDER, clip_path

PAGE, TABLE = "index.html", "sweep.csv"
COLUMNS = {
    "parameters": "parameters",
    "bits_per_second": "bit/s",
    "step_seconds": "s per step",
    "log_mel_l1": "log-mel L1",
    "codes": "codes",
    "codes_used": "codes used",
    "perplexity": "perplexity",
    "entropy_bits": "entropy (bits)",
}
SHARED = ("parameters", "codes")  # whole numbers that seeds have in common
HISTORIES = 3  # side by side in one picture


@dataclass(frozen=True)
class Done:
    """A finished run, its folder and its figures."""

    run: Run
    folder: Path
    result: Result


def is_finished(folder: Path, config: RunConfig) -> bool:
    """Whether the run in ``folder`` has taken all of its steps."""
    path = folder / LAST
    return path.exists() and bool(read_header(path)[0]["provenance"]["steps"] >= config.train.steps)


def write_results(folder: Path, plan: Plan, command: str = "") -> None:
    """Write the page, ``sweep.csv`` and the results in ``sweep.json`` from the finished runs in ``folder``; at least one."""
    done = {
        label: [
            Done(run, folder / run.name, read_result(folder / run.name, run.config))
            for run in runs
            if is_finished(folder / run.name, run.config)
        ]
        for label, runs in plan.combinations.items()
    }
    done = {label: seeds for label, seeds in done.items() if seeds}
    rows = [each for seeds in done.values() for each in seeds]
    write_csv(folder / TABLE, [(each.run.name, each.run.setting, each.run.seed, each.result) for each in rows])
    summary = read_summary(folder / SUMMARY)
    for each in rows:
        summary["runs"][each.run.name]["result"] = asdict(each.result)
    write_summary(folder / SUMMARY, summary)
    sections = [
        Section("Results", [_table(done)]),
        Section("Learning curves", [_curves(done)]),
        Section("Codebook use", _usage(done)),
        *_clips(done),
        Section("Settings", [_settings(plan)]),
    ]
    write_page(folder / PAGE, f"Sweep {folder.resolve().name}", _summary(plan, done), sections, command)


def _summary(plan: Plan, done: dict[str, list[Done]]) -> list[str]:
    means = {label: _mean(seeds) for label, seeds in done.items()}
    best = min(means, key=lambda label: means[label])
    steps, finished = plan.runs[0].config.train.steps, sum(map(len, done.values()))
    words = [
        f"{len(plan.combinations)} combinations of settings, {finished} of {len(plan.runs)} runs finished, {steps:,} steps each, "
        f"on the same speech. Lowest validation log-mel L1: {means[best]:.3f}, {best}."
    ]
    if max(map(len, done.values())) == 1:
        words.append("There is one seed per setting, so small differences may be chance: several seeds give intervals (--seeds).")
    if len({seeds[0].result.bits_per_second for seeds in done.values()}) > 1:
        words.append("The bit rates differ: a lower error at a higher bit rate does not make a better quantizer.")
    return words


def _mean(seeds: list[Done]) -> float:
    return sum(each.result.log_mel_l1 for each in seeds) / len(seeds)


def _table(done: dict[str, list[Done]]) -> Table:
    rows = []
    for label, seeds in done.items():
        results = [each.result for each in seeds]
        rows.append([label, len(seeds), *(_cell(results, name) for name in COLUMNS)])
    caption = (
        "At the last step, over the whole validation set; with several seeds, the mean and its 95 % interval (Student's t). "
        "Parameters: of encoder and decoder. Log-mel L1: natural log power"
    )
    return Table(caption, ["setting", "seeds", *COLUMNS.values()], rows)


def _cell(results: list[Result], name: str) -> Cell:
    if name in SHARED:
        return int(getattr(results[0], name))
    found = over_seeds(results, name)
    if found is None:
        return None
    if name == "codes_used" and found.half is None:
        return int(found.mean)
    return found.mean if not found.half else Noted(found.mean, f"± {found.half:.3g}")


def _curves(done: dict[str, list[Done]]) -> Picture:
    curves = {label: [read_curves(each.folder / METRICS) for each in seeds] for label, seeds in done.items()}
    return Picture(
        figure_bytes(plot_sweep(curves)),
        "Validation error, codebook use, loss and each term of the loss over training steps, for every setting",
        "One colour per setting, one line per seed. A term that a setting does not have has no line.",
    )


def _usage(done: dict[str, list[Done]]) -> list[Part]:
    """The histories of each setting's first seed."""
    histories = {label: read_history(seeds[0].folder / USAGE) for label, seeds in done.items()}
    labels, parts = list(histories), list[Part]()
    for first in range(0, len(labels), HISTORIES):
        chosen = {label: histories[label] for label in labels[first : first + HISTORIES]}
        alt = f"Use of every code at each validation: {'; '.join(chosen)}"
        parts.append(Picture(figure_bytes(plot_usage_histories(chosen)), alt, "Codes, the most used first; of the first seed"))
    return parts


def _clips(done: dict[str, list[Done]]) -> list[Section]:
    """The first validation clip: pictures before and after training, and the sounds after it."""
    parts: list[Part] = []
    tracks: list[Track] = []
    for label, seeds in done.items():
        config, folder = seeds[0].run.config, seeds[0].folder / FOLDER
        rate, steps = config.model.mel.sample_rate, config.train.steps
        pictures = [clip_path(folder, 0, step, ".png") for step in (0, steps)]
        if all(path.exists() for path in pictures):
            alt = f"{label}: mel of the clip, its reconstruction and the difference, before training and after {steps:,} steps"
            parts.append(Picture(beside(*(path.read_bytes() for path in pictures)), alt, f"{label}: before training, after it"))
        sounds = [("mel without codes", clip_path(folder, 0, None, ".wav"))] if not tracks else []
        sounds.append((label, clip_path(folder, 0, steps, ".wav")))
        tracks += [Track(name, load(path, rate), rate) for name, path in sounds if path.exists()]
    if tracks:
        vocoder = next(iter(done.values()))[0].run.config.vocoder.kind
        parts.append(Sounds(f"The clip after training; vocoder: {vocoder}", tracks))
    return [Section("One validation clip", [Text(["The seed is the first one of each setting."]), *parts])] if parts else []


def _settings(plan: Plan) -> Table:
    """What all runs have in common and what is not the default."""
    configs = [flat(run.config.model_dump(mode="json")) for run in plan.runs]
    default = flat(RunConfig().model_dump(mode="json"))
    rows = [
        [key, str(value), str(default.get(key, ""))]
        for key, value in configs[0].items()
        if value != default.get(key) and all(config.get(key) == value for config in configs)
    ]
    return Table(
        "Settings that all runs have in common, where they differ from the defaults", ["setting", "value", "default"], rows
    )
