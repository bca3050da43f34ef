"""Many files on several processes, one thread each: the same figures however many there are, and no crash takes others along."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import numpy as np
import torch

from melcodec.codec import Codec
from melcodec.config import GriffinLimConfig, VocoderConfig
from melcodec.errors import MelcodecError
from melcodec.evaluation.anchors import CODES, Workshop
from melcodec.evaluation.catalog import METRICS
from melcodec.evaluation.results import Result
from melcodec.evaluation.scores import Pair, Scores, Spoken, score
from melcodec.evaluation.subjects import Subject, load_sound
from melcodec.metrics.codes import silent_codes
from melcodec.processes import follow_parent, killed_on_error, sigint_held

CRASHED = "the process that scored it died"


@dataclass(frozen=True)
class Task:
    """One file to do, under its key."""

    key: str
    subject: Subject


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to know.

    Args:
        checkpoint: path of the checkpoint.
        systems, metrics: names.
        floor: k-means codebook (K, stride * M), or None.
        vocoder: its settings.
    """

    checkpoint: str
    systems: tuple[str, ...]
    metrics: tuple[str, ...]
    floor: np.ndarray | None = None
    vocoder: VocoderConfig = field(default_factory=GriffinLimConfig)


class Scorer:
    """Scores one file after another, in this process."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.codec = Codec.from_pretrained(recipe.checkpoint, "cpu", recipe.vocoder)
        audible = any(METRICS[name].audible for name in recipe.metrics)
        self.workshop = Workshop(self.codec, recipe.floor, audible)
        self.norms = self.codec.frontend.norms.numpy()

    def do(self, task: Task) -> Result:
        """Raises MelcodecError, among them for what a foreign program makes of one system's output."""
        item = task.subject.utterance
        original = self.workshop.original(load_sound(task.subject, self.codec.sample_rate))
        codes = self.workshop.encode(original)
        scores = {}
        for system in self.recipe.systems:
            try:
                output = self.workshop.output(system, original, codes)
            except MelcodecError as error:
                if system == CODES:
                    raise
                scores[system] = Scores(absent=dict.fromkeys(self.recipe.metrics, error.message))
                continue
            scores[system] = score(Pair(original, output, self.norms, Spoken(item.text, item.language)), self.recipe.metrics)
        silent = silent_codes(original.mel, self.codec.frontend.floor, self.codec.model.reach.stride)
        seconds = len(original.heard) / self.codec.sample_rate
        place = np.flatnonzero(silent).tolist()
        return Result(task.key, item.id, item.path, seconds, task.subject.labels, codes.tolist(), place, scores)


def score_all(recipe: Recipe, tasks: Sequence[Task], num_workers: int) -> Iterator[tuple[Task, Result | MelcodecError]]:
    """Score ``tasks`` on ``num_workers`` spawned processes; each comes with its result or its error, as it is done.

    A file that brings its process down (a segmentation fault in a foreign package, too little memory) is tried once more
    alone, and then named.
    """
    waiting, suspects = deque(tasks), list[Task]()
    while waiting:
        yield from _drain(recipe, waiting, num_workers, suspects)
    for task in suspects:
        again = list[Task]()
        yield from _drain(recipe, deque([task]), 1, again)
        if again:
            yield task, MelcodecError(f"{task.subject.utterance.path}: {CRASHED}", "is there enough memory?")


def _drain(
    recipe: Recipe, waiting: deque[Task], num_workers: int, suspects: list[Task]
) -> Iterator[tuple[Task, Result | MelcodecError]]:
    """Do what is ``waiting`` until all is done or a process dies; what was under way then joins ``suspects``."""
    num_workers = min(num_workers, len(waiting))
    context = multiprocessing.get_context("spawn")  # forked threads of torch and onnxruntime hang
    with ProcessPoolExecutor(num_workers, context, _begin, (recipe,)) as pool, killed_on_error():
        under_way: dict[Future[Result | MelcodecError], Task] = {}
        while waiting or under_way:
            while waiting and len(under_way) < num_workers:
                task = waiting.popleft()
                try:
                    with sigint_held():  # a process may start here
                        under_way[pool.submit(_do, task)] = task
                except BrokenProcessPool:
                    suspects += [task, *under_way.values()]
                    return
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                task = under_way.pop(future)
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    suspects += [task, *under_way.values()]
                    return


_scorer: Scorer  # of a worker process


def _begin(recipe: Recipe) -> None:
    global _scorer
    follow_parent()
    torch.set_num_threads(1)
    _scorer = Scorer(recipe)


def _do(task: Task) -> Result | MelcodecError:
    path = task.subject.utterance.path
    try:
        return _scorer.do(task)
    except MelcodecError as error:
        return error if path in error.message else MelcodecError(f"{path}: {error.message}", error.hint)
    except Exception as error:  # of this one file; others must be done
        return MelcodecError(f"{path}: {type(error).__name__}: {error}")
