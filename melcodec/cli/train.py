"""``melcodec train``: a folder of speech to a checkpoint."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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

    with stop_on_signals() as stopped, cache_bar() as cached:
        listener = Listener(say, Reporter(settings).report, cached, lambda: bool(stopped))
        try:
            state = run(data, settings, folder, device=device, mel_stats=mel_stats, listener=listener)
        except KeyboardInterrupt as interrupt:
            say(str(interrupt) or "interrupted; the same command goes on from the last state that was saved")
            raise typer.Exit(128 + stopped[0]) from None
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


@contextmanager
def cache_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar for every set of files whose mels are computed, gone when its last file is done."""
    with ExitStack() as shown:
        bars: list[Callable[[int, int], None]] = []

        def update(done: int, total: int) -> None:
            if not bars:
                bars.append(shown.enter_context(progress("computing mels")))
            bars[0](done, total)
            if done == total:
                shown.close()
                bars.clear()

        yield update


class Reporter:
    """Prints a line per validation, and a training line every few seconds."""

    def __init__(self, settings: RunConfig) -> None:
        self.steps = settings.train.steps
        self.started = self.said = 0.0
        self.first: int | None = None  # the step of the first line: time is counted from there, after mels and k-means

    def report(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Called with every metric line."""
        now = time.monotonic()
        if kind == "valid":
            used = f"{values['codes_used']} codes, perplexity {values['perplexity']:.0f}"
            say(f"step {step}: validation log-mel L1 {values['log_mel_l1']:.3f}, {used}")
            return
        if self.first is None:
            self.first, self.started, self.said = step, now, now
            return
        if now - self.said < PLAIN_SECONDS:
            return
        self.said = now
        left = (now - self.started) / (step - self.first) * (self.steps - step)
        words = f"loss {values['loss']:.4f}, revived {values['revived']:.0f}, {values['audio_per_second']:.0f}x real time"
        say(f"step {step}/{self.steps}: {words}, {left / 60:.0f} min left")
