"""Settings and the values to vary -> the runs of a sweep, each with a name, a label and its whole configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from melcodec.config import RunConfig, flat, with_overrides
from melcodec.errors import MelcodecError
from melcodec.files import written_aside

SUMMARY, VERSION = "sweep.json", 1
# settings that must be the same in all runs, and what to do instead of varying them
FIXED = {
    "train.steps": "all runs of a sweep take equally many steps; for other budgets run another sweep",
    "train.seed": "give several seeds with --seeds",
    "train.valid_minutes": "errors can be compared only on the same validation set",
    "data.split": "errors can be compared only on the same validation set",
    "data.valid_fraction": "errors can be compared only on the same validation set",
    "model.mel": "errors of different mels cannot be compared",
}
# settings of the machine and of what is reported, which may differ when a sweep is resumed
FREE = {"data.num_workers", "data.on_device", "train.wandb", "train.save_every", "version"}
VALIDATIONS, LINES = 10, 50  # the fewest over a run that give readable curves
UNSAFE = re.compile(r"[^\w.+-]+")
OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        name: of its folder.
        setting: value of every varied setting, as given.
        seed: ``train.seed``.
        config: all of its settings.
    """

    name: str
    setting: dict[str, str]
    seed: int
    config: RunConfig

    @property
    def label(self) -> str:
        """The varied settings in words; runs that differ in the seed alone have the same label."""
        return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.setting.items())


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep in order: all seeds of a combination after each other."""

    runs: tuple[Run, ...]

    @property
    def combinations(self) -> dict[str, list[Run]]:
        """The runs by label."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.label, []).append(run)
        return found


def make_plan(base: RunConfig, vary: Sequence[str], assignments: Sequence[str] = (), seeds: Sequence[int] = ()) -> Plan:
    """Every combination of the varied settings, once per seed.

    Assignments to whole groups are applied before those to single settings inside them, so that
    ``model.backbone.hidden=64`` holds for every value of ``model.backbone``.

    Args:
        base: the settings to begin with.
        vary: ``KEY=V1,V2,...`` each; a recipe is the value of a group, as in ``with_overrides``.
        assignments: ``KEY=VALUE`` each, for all runs.
        seeds: of the runs; without any, that of the settings.

    Raises:
        MelcodecError: nothing varied, a setting varied that must be the same in all runs, the same key or value twice, or a
            combination that is no valid configuration.
    """
    varied = _varied(vary, [text.partition("=")[0].strip() for text in assignments])
    if len(set(seeds)) < len(seeds):
        raise MelcodecError(f"--seeds {','.join(map(str, seeds))}: a seed is given twice")
    runs = []
    for values in product(*varied.values()):
        setting = dict(zip(varied, values, strict=True))
        words = sorted([*assignments, *(f"{key}={value}" for key, value in setting.items())], key=_depth)
        config = _readable(with_overrides(base, words), words)
        for seed in seeds or [config.train.seed]:
            seeded = with_overrides(config, [f"train.seed={seed}"])
            runs.append(Run(_name(setting, seed), setting, seed, seeded))
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MelcodecError(f"two combinations would both be called {twice[0]}", "give each value once")
    return Plan(tuple(runs))


def claim_sweep(folder: Path, plan: Plan, corpus: str) -> None:
    """Write ``sweep.json`` into a new sweep folder, or check that the sweep found there is part of this one.

    Values and seeds may have been added since; nothing else may differ.

    Raises:
        MelcodecError: another corpus or other settings, each named; or a folder that holds something else.
    """
    path = folder / SUMMARY
    now = {run.name: flat(run.config.model_dump(mode="json")) for run in plan.runs}
    if path.exists():
        before = read_summary(path)
        if before["corpus"] != corpus:
            raise MelcodecError(f"{folder}: holds a sweep over another corpus", "choose another folder with -o")
        _check_same(folder, {name: run["settings"] for name, run in before["runs"].items()}, now)
    runs = {run.name: {"setting": run.setting, "seed": run.seed, "settings": now[run.name], "result": None} for run in plan.runs}
    write_summary(path, {"version": VERSION, "corpus": corpus, "runs": runs})


def read_summary(path: Path) -> dict[str, Any]:
    """The content of a ``sweep.json``; MelcodecError when it is none."""
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if summary["version"] != VERSION or not isinstance(summary["corpus"], str):
            raise MelcodecError(f"{path}: written by another version of melcodec", "choose another folder with -o")
        assert all(isinstance(run["settings"], dict) for run in summary["runs"].values())
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise MelcodecError(f"{path}: not the file of a sweep", "choose another folder with -o") from None
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None
    return summary


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write ``sweep.json``."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def _check_same(folder: Path, before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> None:
    hint = "choose another folder with -o"
    if missing := [name for name in before if name not in now]:
        raise MelcodecError(f"{folder}: holds a sweep with other runs, such as {missing[0]}", hint)
    for name, old in before.items():
        # through JSON, as the old ones went
        new = json.loads(json.dumps(now[name]))
        keys = [key for key in {**old, **new} if key not in FREE and old.get(key) != new.get(key)]
        if keys:
            changes = ", ".join(f"{key} {old.get(key)} -> {new.get(key)}" for key in keys)
            raise MelcodecError(f"{folder}: holds a sweep with other settings: {changes}", hint)


def _varied(vary: Sequence[str], assigned: Sequence[str]) -> dict[str, list[str]]:
    """Keys and their values."""
    found: dict[str, list[str]] = {}
    for text in vary:
        key, equals, rest = text.partition("=")
        key, values = key.strip(), [value.strip() for value in OUTSIDE_BRACKETS.split(rest)]
        if not equals or not all(values):
            raise MelcodecError(f"--vary {text}: not of the form KEY=V1,V2,...", "such as model.quantizer=ema,residual")
        for fixed, hint in FIXED.items():
            if key == fixed or key.startswith(f"{fixed}."):
                raise MelcodecError(f"--vary {text}: {fixed} must be the same in all runs", hint)
        if key in found or key in assigned:
            raise MelcodecError(f"{key}: given twice", "give each setting once, with --vary or with --set")
        if len(set(values)) < len(values):
            raise MelcodecError(f"--vary {text}: a value is given twice")
        found[key] = values
    if not found:
        raise MelcodecError("nothing is varied", "name a setting and its values: --vary model.quantizer=ema,residual")
    return found


def _depth(assignment: str) -> tuple[int, bool]:
    """Groups first, then their kinds, then single settings."""
    key = assignment.partition("=")[0].strip()
    return key.count("."), not key.endswith(".kind")


def _readable(config: RunConfig, words: Sequence[str]) -> RunConfig:
    """Validate and log often enough for curves, unless the intervals were chosen."""
    chosen = {word.partition("=")[0].strip() for word in words}
    train = config.train
    fewest = {
        "valid_every": min(train.valid_every, -(-train.steps // VALIDATIONS)),
        "log_every": min(train.log_every, -(-train.steps // LINES)),
    }
    return with_overrides(config, [f"train.{key}={value}" for key, value in fewest.items() if f"train.{key}" not in chosen])


def _name(setting: dict[str, str], seed: int) -> str:
    """Such as ``quantizer-ema_seed-0``."""
    words = [f"{key.rpartition('.')[2]}-{value}" for key, value in {**setting, "seed": str(seed)}.items()]
    return UNSAFE.sub("-", "_".join(words))
