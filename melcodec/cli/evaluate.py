"""``melcodec evaluate``: how good a tokenizer is."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.vocoder.choice import DEFAULT_VOCODER

if TYPE_CHECKING:
    from melcodec.evaluation.report import Report

Metrics = Annotated[str, typer.Option(help="Metrics to compute: all, core, or names separated by commas.")]
Anchors = Annotated[
    bool, typer.Option("--anchors/--no-anchors", help="Measure other systems on the same speech, to compare the codes with.")
]
Train = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DATA",
        help="Other speech, from which the k-means system learns its codewords; may be repeated.",
        show_default=False,
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="PRIOR",
        callback=options.named,
        help="Also report how many bits this prior needs per code: a folder that melcodec prior train wrote, or the name of "
        "a shipped one. It must not have been trained on this speech.",
        show_default=False,
    ),
]


def evaluate(
    data: options.Data,
    output: options.FolderOutput,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    metrics: Metrics = "all",
    anchors: Anchors = True,
    train: Train = None,
    prior: Prior = None,
    num_workers: options.NumWorkers = 0,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    as_json: options.AsJSON = False,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    r"""Reconstruct speech, score it, and write a report: index.html, metrics.json, files.csv and, with anchors, rates.svg.

    The same command resumes a stopped run. A score that cannot be computed is left out, and the reason is given. Most metrics
    need pip install 'melcodec\[eval]'; none needs a network.
    """
    from melcodec.evaluation.run import Callbacks, EvaluationSettings
    from melcodec.evaluation.run import evaluate as run
    from melcodec.prior.shipped import find_predictor

    settings = EvaluationSettings(
        checkpoint,
        metrics,
        anchors,
        tuple(train or ()),
        num_workers or None,
        limit,
        seed,
        overwrite,
        command_line(),
        vocoder,
        device,
        find_predictor(prior) if prior else None,
    )
    with bar("learning k-means") as learned, bar("scoring") as scored:
        try:
            report = run(data, output, settings, Callbacks(say, learned, scored))
        except KeyboardInterrupt:
            say("interrupted; the same command resumes from the files that are done")
            raise typer.Exit(130) from None
    print(json.dumps(report.to_json(), ensure_ascii=False) if as_json else in_words(report))
    say(f"{output}: index.html, metrics.json and files.csv")
    if report.failures:
        say(f"{len(report.failures)} failed:")
        for reason in report.failures.values():
            say(f"  {reason}")
        raise typer.Exit(1)


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that comes with the first update and goes with the last: only one can be on a terminal."""
    with ExitStack() as shown:
        bars: list[Callable[[int, int], None]] = []

        def update(done: int, total: int) -> None:
            if not bars:
                bars.append(shown.enter_context(progress(label)))
            bars[0](done, total)
            if done >= total:
                shown.close()
                bars.clear()

        yield update


def command_line() -> str:
    """The command as it was typed, so that it can be repeated."""
    return shlex.join(["melcodec", *sys.argv[1:]])


def in_words(report: Report) -> str:
    """The verdict, a table of systems, and how the codes are used."""
    from melcodec.evaluation.summary import absences, table, usage_lines, verdict

    return "\n".join([*verdict(report), "", *table(report), "", *usage_lines(report), *absences(report)])
