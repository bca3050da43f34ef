"""Many files on several processes, one thread each: the same figures however many there are, and no crash takes others along."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from melcodec.codec import Codec
from melcodec.config import GriffinLimConfig, VocoderConfig
from melcodec.errors import MelcodecError
from melcodec.evaluation.catalog import METRICS
from melcodec.evaluation.results import Result
from melcodec.evaluation.scores import Pair, Scores, Spoken, score
from melcodec.evaluation.subjects import Subject, load_sound
from melcodec.evaluation.systems.base import Tools
from melcodec.evaluation.systems.build import CODES, build_systems
from melcodec.metrics.codes import silent_codes
from melcodec.processes import Finished, Pool, run_all

CRASHED = "the process that scored it stopped"


@dataclass(frozen=True)
class FileTask:
    """One file to do, under its key."""

    key: str
    subject: Subject


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to know.

    Args:
        checkpoint: path of the checkpoint.
        systems, metrics: names.
        centres: k-means codebook (K, stride * M), or None.
        vocoder: its settings.
        device: where the codec computes.
    """

    checkpoint: str
    systems: tuple[str, ...]
    metrics: tuple[str, ...]
    centres: np.ndarray | None = None
    vocoder: VocoderConfig = field(default_factory=GriffinLimConfig)
    device: str = "cpu"


class Scorer:
    """Scores one file after another, in this process."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.codec = Codec.from_pretrained(recipe.checkpoint, recipe.device, recipe.vocoder)
        audible = any(METRICS[name].audible for name in recipe.metrics)
        self.tools = Tools(self.codec, recipe.centres, audible)
        self.systems = build_systems(self.tools, recipe.systems)
        self.norms = self.codec.frontend.norms.cpu().numpy()

    def do(self, task: FileTask) -> Result:
        """Raises MelcodecError, also if an external program fails for one system."""
        item = task.subject.utterance
        original = self.tools.original(load_sound(task.subject, self.codec.sample_rate))
        codes = self.tools.encode(original)
        scores = {}
        for system in self.systems:
            try:
                output = system.output(original, codes)
            except MelcodecError as error:
                if system.name == CODES:
                    raise
                scores[system.name] = Scores(absent=dict.fromkeys(self.recipe.metrics, error.message))
                continue
            scores[system.name] = score(Pair(original, output, self.norms, Spoken(item.text, item.language)), self.recipe.metrics)
        silent = silent_codes(original.mel, self.codec.frontend.floor, self.codec.model.reach.stride)
        seconds = len(original.wave) / self.codec.sample_rate
        place = np.flatnonzero(silent).tolist()
        return Result(task.key, item.id, item.path, seconds, task.subject.labels, codes.tolist(), place, scores)


def score_all(recipe: Recipe, tasks: Sequence[FileTask], num_workers: int) -> Iterator[tuple[FileTask, Result | MelcodecError]]:
    """Score ``tasks`` on ``num_workers`` processes; each comes with its result or its error, as it is done.

    A file that brings its process down (a segmentation fault in a foreign package, too little memory) is tried once more
    alone, and then named.
    """
    suspects = list[FileTask]()
    for count, batch in ((num_workers, tasks), (1, suspects)):
        if not batch:
            continue
        with Pool(_start, [recipe] * min(count, len(batch))) as pool:
            for event in run_all(pool, batch):
                if isinstance(event, Finished):
                    yield event.task, event.result
                elif batch is tasks:
                    suspects.append(event.task)
                else:
                    path = event.task.subject.utterance.path
                    yield event.task, MelcodecError(f"{path}: {CRASHED}", "is there enough memory?")


def _start(recipe: Recipe) -> Callable[[FileTask, object], Result | MelcodecError]:
    """In a worker process: load the codec, and return what scores a file."""
    torch.set_num_threads(1)
    scorer = Scorer(recipe)

    def do(task: FileTask, report: object) -> Result | MelcodecError:
        path = task.subject.utterance.path
        try:
            return scorer.do(task)
        except MelcodecError as error:
            return error if path in error.message else error.about(path)
        except Exception as error:  # of this one file; others must be done
            return MelcodecError(f"{path}: {type(error).__name__}: {error}", code="unreadable")

    return do
