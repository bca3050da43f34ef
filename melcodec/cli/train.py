"""``melcodec train``: a folder of speech to a checkpoint."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say

if TYPE_CHECKING:
    from melcodec.config import RunConfig

Data = Annotated[
    list[Path], typer.Argument(help="Folders of speech; train/ and valid/ inside are used as such.", show_default=False)
]
Preset = Annotated[str, typer.Option(help="base, xtts, small or tiny.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with [model] and [train]; replaces the preset.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, as train.steps=5000.")]
Norms = Annotated[Path | None, typer.Option("--mel-stats", help="Norms from melcodec mel-stats; the default is XTTS's.")]
RunFolder = Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; checkpoints/DATA-PRESET if not given.")]
PLAIN_SECONDS = 10.0  # between progress lines when not on a terminal


def train(
    data: Data,
    preset: Preset = "base",
    config: Config = None,
    assignments: Assignments = None,
    output: RunFolder = None,
    mel_stats: Norms = None,
    device: options.Device = "auto",
) -> None:
    """Train a tokenizer on a folder of speech.

    Ctrl-C finishes the step and saves; the same command goes on from there. The run folder gets best.safetensors and
    last.safetensors, which every command takes as --checkpoint, metrics.jsonl and TensorBoard logs.
    """
    from melcodec.config import RunConfig, load_preset, parse, read_toml, with_overrides

    settings = parse(RunConfig, read_toml(config), str(config)) if config else load_preset(preset)
    settings = with_overrides(settings, assignments or [])
    name = config.stem if config else preset
    folder = output or Path("checkpoints") / f"{data[0].resolve().name}-{name}"

    from melcodec.training.run import Listener
    from melcodec.training.run import train as run

    with stop_on_signals() as stopped, progress("computing mels") as cached:
        listener = Listener(say, Reporter(settings).report, cached, lambda: bool(stopped))
        state = run(data, settings, folder, device=device, mel_stats=mel_stats, listener=listener)
    if stopped:
        say(f"stopped at step {state.step} of {settings.train.steps}; the same command goes on from here")
        raise typer.Exit(128 + stopped[0])
    say(f"{folder}/best.safetensors is ready: melcodec roundtrip in.wav -o out.wav --checkpoint {folder}/best.safetensors")


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second Ctrl-C ends at once."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Reporter:
    """Prints a line per validation, and a training line every few seconds."""

    def __init__(self, settings: RunConfig) -> None:
        self.steps = settings.train.steps
        self.started = self.said = time.monotonic()
        self.first: int | None = None

    def report(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Called with every metric line."""
        now = time.monotonic()
        if kind == "valid":
            used = f"{values['codes_used']} codes, perplexity {values['perplexity']:.0f}"
            say(f"step {step}: validation log-mel L1 {values['log_mel_l1']:.3f}, {used}")
            return
        self.first = step if self.first is None else self.first
        if now - self.said < PLAIN_SECONDS:
            return
        self.said = now
        left = (now - self.started) / max(1, step - self.first) * (self.steps - step)
        words = f"loss {values['loss']:.4f}, revived {values['revived']:.0f}, {values['audio_per_second']:.0f}x real time"
        say(f"step {step}/{self.steps}: {words}, {left / 60:.0f} min left")
