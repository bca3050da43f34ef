"""``evaluate``: speech and a checkpoint -> a folder with figures, tables and a page."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.codec import Codec
from melcodec.config import GriffinLimConfig, LearnedVocoderConfig, VocoderConfig
from melcodec.errors import MelcodecError, from_os
from melcodec.evaluation.catalog import Choice, choose, package_versions
from melcodec.evaluation.page import write_evaluation_page
from melcodec.evaluation.report import (
    METRICS_FILE,
    RESULTS_FILE,
    CheckpointFacts,
    Report,
    read_metrics,
    summarize_groups,
    summarize_systems,
    summarize_usage,
    write_report,
)
from melcodec.evaluation.results import Result, ResultFile
from melcodec.evaluation.subjects import Subject, find_subjects, subject_key
from melcodec.evaluation.systems.base import System
from melcodec.evaluation.systems.build import KMEANS, plan_systems
from melcodec.evaluation.systems.kmeans import learn_centres
from melcodec.evaluation.workers import FileTask, Recipe, score_all
from melcodec.files import written_aside
from melcodec.formats.shipped import DEFAULT_CHECKPOINT, find_checkpoint
from melcodec.metrics.predictability import Predictor, Score, score
from melcodec.version import __version__
from melcodec.vocoder.choice import DEFAULT_VOCODER, choose_vocoder, find_vocoder

GPU_WORKERS = 4  # processes that share a GPU; each takes half a gigabyte of it before it holds a model
CENTRES_FILE = "kmeans.npz"


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate.

    Args:
        checkpoint: path, or the name of a shipped one.
        metrics: ``all``, ``core``, or names between commas.
        anchors: also measure the original, the vocoder alone, the network without its quantizer, k-means, Codec2, Opus.
        train: speech to learn the k-means centres from.
        num_workers: processes; None is one for every core.
        limit: evaluate that many files, chosen at random by ``seed``.
        seed: of everything random.
        overwrite: begin anew, whatever the folder holds.
        command: the line that asked for it, to be shown.
        vocoder: what makes sound of mels; see ``vocoder.choice.choose_vocoder``.
        device: where the codec computes; a GPU is shared by at most 4 processes unless ``num_workers`` says otherwise.
        predictor: a model of codes, whose bits per code are reported; see ``prior.predictor``.
    """

    checkpoint: str = DEFAULT_CHECKPOINT
    metrics: str = "all"
    anchors: bool = True
    train: tuple[str | Path, ...] = ()
    num_workers: int | None = None
    limit: int | None = None
    seed: int = 0
    overwrite: bool = False
    command: str = ""
    vocoder: str | Path = DEFAULT_VOCODER
    device: str = "cpu"
    predictor: Predictor | None = None


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called during the run: ``say`` with a line of text, ``learned`` and ``scored`` with (done, total)."""

    say: Callable[[str], None] = lambda line: None
    learned: Callable[[int, int], None] = lambda done, total: None
    scored: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Plan:
    """What will be done. ``file``: the checkpoint's; ``settings``: all that decides the figures, as metrics.json shows it."""

    subjects: list[Subject]
    train: list[Subject]
    choice: Choice
    codec: Codec
    file: Path
    checkpoint: CheckpointFacts
    systems: list[System]
    absent_systems: dict[str, str]
    settings: dict[str, Any]


def evaluate(
    data: Sequence[str | Path], folder: Path, settings: EvaluationSettings, callbacks: Callbacks | None = None
) -> Report:
    """Measure a checkpoint on ``data``, files and folders, and write the report to ``folder``.

    A run that was stopped is resumed. Call it from a module that may be imported: it starts processes.

    Raises:
        MelcodecError: nothing to evaluate, no such checkpoint or metric, ``folder`` holds another evaluation, or no file could
            be evaluated. A file that fails while others succeed is in ``Report.failures`` instead.
    """
    callbacks = callbacks or Callbacks()
    plan = make_plan(data, settings, callbacks.say)
    check_folder(folder, plan, settings.overwrite)
    for name, reason in {**plan.choice.absent, **plan.absent_systems}.items():
        callbacks.say(f"{name} is not measured: {reason}")
    centres = None
    if any(system.name == KMEANS for system in plan.systems):
        centres = find_centres(folder / CENTRES_FILE, plan, settings, callbacks.learned)
    results, failures = score_files(folder / RESULTS_FILE, plan, centres, settings, callbacks)
    if not results:
        raise MelcodecError(f"no file could be evaluated; the first: {next(iter(failures.values()))}")
    report = Report(
        checkpoint=plan.checkpoint,
        settings=plan.settings,
        command=settings.command,
        files=len(results),
        seconds=round(sum(result.seconds for result in results), 3),
        systems=summarize_systems(results, plan.systems, settings.seed),
        usage=summarize_usage(results, plan.checkpoint),
        groups=summarize_groups(results, settings.seed),
        absent_systems=plan.absent_systems,
        absent_metrics=plan.choice.absent,
        failures=failures,
        predictability=predictability(results, plan, settings),
    )
    write_report(folder, report, results)
    write_evaluation_page(folder, report, results, plan.subjects, plan.codec)
    return report


def make_plan(data: Sequence[str | Path], settings: EvaluationSettings, note: Callable[[str], None]) -> Plan:
    """Find everything that is needed, so that what is missing is said before long work."""
    subjects = find_subjects(data, settings.limit, settings.seed, note)
    train = without(find_subjects(settings.train), subjects) if settings.train else []
    path = find_checkpoint(settings.checkpoint)
    vocoder = choose_vocoder(settings.vocoder)
    choice = choose(settings.metrics, keeps_phases=not isinstance(vocoder, GriffinLimConfig))
    codec = Codec.from_pretrained(path, settings.device, vocoder)
    if settings.predictor is not None and settings.predictor.fingerprint != codec.fingerprint:
        raise MelcodecError(
            f"{settings.predictor.name}: models codes of checkpoint {settings.predictor.fingerprint}, but "
            f"{settings.checkpoint} is {codec.fingerprint}",
            "give a prior that was trained on codes of this checkpoint",
        )
    systems, absent = plan_systems(codec, settings.anchors, bool(train))
    checkpoint = CheckpointFacts(
        str(settings.checkpoint),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        codec.fingerprint,
        codec.sample_rate,
        codec.code_rate,
        codec.bitrate,
        codec.num_codebooks,
        codec.codebook_size,
    )
    facts = {
        "data": [str(item) for item in data],
        "metrics": list(choice.names),
        "systems": [system.name for system in systems],
        "vocoder": vocoder_facts(vocoder),
        "train": [str(item) for item in settings.train],
        "limit": settings.limit,
        "seed": settings.seed,
        "device": codec.device.type,
        "packages": package_versions(choice.names),
    }
    return Plan(subjects, train, choice, codec, path, checkpoint, systems, absent, facts)


def vocoder_facts(config: VocoderConfig) -> dict[str, Any]:
    """The settings of a vocoder, with its file's content instead of its place."""
    facts = config.model_dump(mode="json")
    if isinstance(config, LearnedVocoderConfig):
        path = find_vocoder(config.weights)
        facts |= {"weights": path.stem, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return facts


def without(train: Sequence[Subject], evaluated: Sequence[Subject]) -> list[Subject]:
    """What of ``train`` is not evaluated: an anchor must not be learned from the files that it is tested on."""
    known = {(os.path.realpath(item.utterance.path), item.utterance.member) for item in evaluated}
    return [item for item in train if (os.path.realpath(item.utterance.path), item.utterance.member) not in known]


def check_folder(folder: Path, plan: Plan, overwrite: bool) -> None:
    """Refuse a folder that holds another evaluation, unless it may be replaced.

    Raises:
        MelcodecError: another checkpoint's, with other settings, or of another version.
    """
    if folder.exists() and not folder.is_dir():
        raise MelcodecError(f"{folder}: is a file; a report needs a folder")
    path = folder / METRICS_FILE
    if overwrite or not path.exists():
        return
    hint = "add -f to make it again, or give another folder"
    try:
        found = read_metrics(path)
    except MelcodecError as error:
        raise MelcodecError(error.message, hint) from None
    if found["melcodec"] != __version__:
        raise MelcodecError(f"{folder}: holds an evaluation by melcodec {found['melcodec']}, this is {__version__}", hint)
    if found["checkpoint"]["sha256"] != plan.checkpoint.sha256:
        raise MelcodecError(f"{folder}: holds the evaluation of checkpoint {found['checkpoint']['fingerprint']}", hint)
    for name, value in plan.settings.items():
        if found["settings"].get(name) != value:
            raise MelcodecError(f"{folder}: holds an evaluation with other settings ({name})", hint)


def find_centres(path: Path, plan: Plan, settings: EvaluationSettings, update: Callable[[int, int], None]) -> np.ndarray:
    """The k-means codebook: learned, or as an earlier run with the same speech and seed left it."""
    words = [plan.checkpoint.fingerprint, settings.seed, *(str(item.utterance) for item in plan.train)]
    key = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    if path.exists() and not settings.overwrite:
        try:
            with np.load(path, allow_pickle=False) as kept:
                if str(kept["key"]) == key:
                    return np.asarray(kept["centres"])
        except (ValueError, KeyError, OSError):
            pass  # damaged: learned again
    centres = learn_centres(plan.codec, plan.train, settings.seed, update)
    with written_aside(path) as aside:
        np.savez(aside, key=key, centres=centres)
    return centres


def predictability(results: Sequence[Result], plan: Plan, settings: EvaluationSettings) -> Score | None:
    """How well the settings' predictor predicts the codes of all results; None without one."""
    if settings.predictor is None:
        return None
    codes = [np.asarray(result.codes, np.int64) for result in results]
    return score(settings.predictor.surprise, settings.predictor.name, codes, plan.checkpoint.code_rate, settings.seed)


def score_files(
    path: Path, plan: Plan, centres: np.ndarray | None, settings: EvaluationSettings, callbacks: Callbacks
) -> tuple[list[Result], dict[str, str]]:
    """Every subject's result, in order, and the reasons of those that have none, by id."""
    names = tuple(system.name for system in plan.systems)
    recipe = Recipe(str(plan.file), names, plan.choice.names, centres, choose_vocoder(settings.vocoder), str(plan.codec.device))
    keys, failures = name_tasks(plan, centres)
    with ResultFile(path, fresh=settings.overwrite) as kept:
        todo = {task.key: task for task in keys.values() if task.key not in kept.known}
        total = len(plan.subjects)
        done = total - len(todo) - len(failures)
        if done:
            callbacks.say(f"{done} of {total} files were scored before")
        cores = usable_cores()
        workers = settings.num_workers or (cores if plan.codec.device.type == "cpu" else min(cores, GPU_WORKERS))
        for task, outcome in score_all(recipe, list(todo.values()), workers):
            if isinstance(outcome, MelcodecError):
                failures[task.subject.utterance.id] = outcome.message
            else:
                kept.add(outcome)
            done += 1
            callbacks.scored(done, total)
        results = [relabelled(kept.known[task.key], task.subject) for task in keys.values() if task.key in kept.known]
    return results, failures


def name_tasks(plan: Plan, centres: np.ndarray | None) -> tuple[dict[str, FileTask], dict[str, str]]:
    """A task for every subject by its id, and the files that cannot even be read."""
    deciding = {name: plan.settings[name] for name in ("metrics", "systems", "packages", "vocoder", "device")}
    centres_key = "" if centres is None else hashlib.sha256(centres.tobytes()).hexdigest()
    words = [__version__, plan.checkpoint.sha256, plan.checkpoint.fingerprint, deciding, centres_key]
    settings = json.dumps(words, sort_keys=True)
    tasks, failures = dict[str, FileTask](), dict[str, str]()
    for subject in plan.subjects:
        name = subject.utterance.id
        try:
            tasks[name] = FileTask(subject_key(subject, settings), subject)
        except OSError as error:
            failures[name] = from_os(error).message
    return tasks, failures


def relabelled(result: Result, subject: Subject) -> Result:
    """``result`` under the name and labels that its sound has now: it may come from a copy of the file."""
    facts = vars(result) | {"id": subject.utterance.id, "path": subject.utterance.path, "labels": subject.labels}
    return Result(**facts)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
