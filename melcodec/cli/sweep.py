"""``melcodec sweep``: every combination of varied settings, trained at an equal budget and compared on one page."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say, stop_on_signals
from melcodec.cli.train import cache_bar
from melcodec.errors import MelcodecError

Vary = Annotated[
    list[str],
    typer.Option(
        metavar="KEY=V1,V2,...",
        help="Setting to vary and its values, such as model.quantizer=ema,residual; may be repeated: all combinations are run.",
        show_default=False,
    ),
]
Preset = Annotated[str, typer.Option(help="Settings to begin with: base, xtts, small, tiny or finetune.")]
Seeds = Annotated[
    str | None,
    typer.Option(metavar="N1,N2,...", help="Random seeds; every combination is run with each.", show_default="train.seed"),
]
NumWorkers = Annotated[int, typer.Option(min=1, help="Number of trainings that run at the same time.")]


def sweep(
    data: options.Data,
    vary: Vary,
    output: options.FolderOutput,
    preset: Preset = "base",
    config: options.Config = None,
    assignments: options.Assignments = None,
    seeds: Seeds = None,
    num_workers: NumWorkers = 1,
    device: options.Device = "auto",
) -> None:
    """Train every combination of some settings and compare the runs.

    All runs learn from the same speech and take equally many steps (train.steps). Each is an ordinary run folder in OUT.
    index.html there shows the comparison; sweep.csv and sweep.json hold its figures. Ctrl-C stops; the same command continues,
    and values or seeds may be added to it. Unless they are set, train.valid_every and train.log_every are lowered until a
    run has 10 validations and 50 lines of metrics.
    """
    from melcodec.config import RunConfig, load_preset, parse, read_toml
    from melcodec.sweep import make_plan
    from melcodec.sweep import sweep as run
    from melcodec.training.loop import Callbacks

    base = parse(RunConfig, read_toml(config), str(config)) if config else load_preset(preset)
    plan = make_plan(base, vary, assignments or [], _numbers(seeds))
    with stop_on_signals() as stopped, cache_bar() as cached:
        callbacks = Callbacks(say=say, cached=cached, should_stop=lambda: bool(stopped))
        command = shlex.join(["melcodec", *sys.argv[1:]])
        try:
            complete = run(data, plan, output, device, num_workers, callbacks, command)
        except KeyboardInterrupt as interrupt:
            say(str(interrupt) or "interrupted; the same command continues from the last states that were saved")
            raise typer.Exit(128 + stopped[0]) from None
    if not complete:
        say("stopped; the same command continues from here")
        raise typer.Exit(128 + stopped[0])
    say(f"{output}/index.html shows the comparison")


def _numbers(seeds: str | None) -> list[int]:
    try:
        return [int(word) for word in seeds.split(",")] if seeds else []
    except ValueError:
        raise MelcodecError(f"--seeds {seeds}: not whole numbers with commas between them", "such as --seeds 0,1,2") from None
