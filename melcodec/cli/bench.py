"""``melcodec bench``: what this machine does, and what limits it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.vocoder.choice import DEFAULT_VOCODER

if TYPE_CHECKING:
    from melcodec.bench.machine import Machine
    from melcodec.bench.run import Figure

Seconds = Annotated[float, typer.Option(min=0.1, max=3600, help="Length of the sound in seconds.")]
Repeats = Annotated[int, typer.Option(min=1, help="Number of timed passes after the first, of which the median is taken.")]
HEAD = ("", "median", "unit", "range", "GEMM", "copy", "starts")
WORDS = (0, 2)  # the columns that are words and stand to the left


def bench(
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    device: options.Device = "auto",
    seconds: Seconds = 10.0,
    repeats: Repeats = 5,
    as_json: options.AsJSON = False,
) -> None:
    """Measure encode, decode, vocoder and training on this machine, with synthetic sound, and say what limits each.

    Each stage is compared with the fastest that this machine can multiply matrices (GEMM), copy memory, and start operations.
    A stage that is close to one of these limits cannot run much faster here.
    """
    from melcodec.bench.machine import describe_machine
    from melcodec.bench.run import measure
    from melcodec.bench.tasks import BenchSettings
    from melcodec.codec import Codec

    settings = BenchSettings(seconds, repeats)
    codec = Codec.from_pretrained(checkpoint, device, vocoder)
    machine = describe_machine(codec.device)
    if machine.busy:
        say(f"{machine.load} processes compete for the {machine.cores} cores: the figures will be too low")
    with progress("measuring") as update:
        figures = measure(codec, settings, update)
    asked = {
        "checkpoint": checkpoint,
        "fingerprint": codec.fingerprint,
        "vocoder": vocoder,
        "seconds": seconds,
        "repeats": repeats,
    }
    if as_json:
        print(json.dumps({"machine": asdict(machine), "settings": asked, "figures": [asdict(figure) for figure in figures]}))
        return
    print(in_words(machine))
    print(f"{checkpoint}, {seconds:g} s of speech, median of {repeats}")
    print(
        "GEMM, copy: shares of the fastest matrix product and memory copy here; starts: share of time spent starting operations"
    )
    print()
    show([cells(figure) for figure in figures])
    print()
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        if figure.limit:
            print(f"{figure.name:<{width}}  {figure.limit}")


def in_words(machine: Machine) -> str:
    """The machine on one line."""
    where = "" if machine.device == "cpu" else f"{machine.device}, "
    return f"{where}{machine.cpu}, cores {machine.cores}, threads {machine.threads}, torch {machine.torch}"


def cells(figure: Figure) -> tuple[str, ...]:
    """A line of the table, as ``HEAD`` names its columns."""
    shares = (figure.gemm_share, figure.memory_share, figure.start_share)
    told = ("" if share is None else f"{share:.0%}" for share in shares)
    spread = f"{number(figure.low)}-{number(figure.high)}"
    return (figure.name, number(figure.median), figure.unit, spread, *told)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show(rows: list[tuple[str, ...]]) -> None:
    """A drawn table on a terminal, plain aligned lines elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table(rows))
        return
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    for row in (HEAD, *rows):
        aligned = (
            f"{cell:<{width}}" if index in WORDS else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(aligned).rstrip())


def table(rows: list[tuple[str, ...]]) -> Any:
    """``rows`` as rich draws them."""
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)  # fits into 80 columns
    for index, name in enumerate(HEAD):
        drawn.add_column(name, justify="left" if index in WORDS else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    return drawn
