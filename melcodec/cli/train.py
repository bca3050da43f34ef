"""``melcodec train``: a folder of speech to a checkpoint."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say, stop_on_signals

if TYPE_CHECKING:
    from melcodec.config import RunConfig

Preset = Annotated[
    str | None,
    typer.Option(help="Settings to begin with: base, xtts, small, tiny or finetune.", show_default="base; finetune with --init"),
]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Checkpoint to start from: a file, a run folder, a shipped name, or user/name of the hub. It is only read.",
    ),
]
Tune = Annotated[
    str | None,
    typer.Option(
        help="What of the checkpoint to train: full, decoder (its codes stay valid) or frozen-codebook.", show_default="full"
    ),
]
Vocoder = Annotated[
    str | None,
    typer.Option(
        help="What makes sound: griffin-lim, a file or run folder of melcodec vocoder train, or a .toml file with settings.",
        show_default="griffin-lim",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Output folder.",
        show_default="checkpoints/DATA-PRESET",
        callback=options.folder_only,
    ),
]
PLAIN_SECONDS = 60.0  # between lines of progress when not on a terminal
TERMINAL_SECONDS = 0.25  # between updates of the bar


def train(
    data: options.Data,
    preset: Preset = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    init: Init = None,
    tune: Tune = None,
    vocoder: Vocoder = None,
    output: RunFolder = None,
    resume: options.Resume = None,
    mel_stats: options.MelStats = None,
    device: options.Device = "auto",
) -> None:
    """Train a tokenizer on speech.

    Ctrl-C finishes the step and saves; the same command resumes from there. The run folder gets best.safetensors and
    last.safetensors, which every command takes as --checkpoint, index.html, metrics.jsonl, samples and TensorBoard logs.
    Several GPUs: torchrun --nproc-per-node 8 -m melcodec train DATA.
    """
    settings = read_settings(preset, config, assignments or [], init, tune)
    if vocoder:
        from melcodec.vocoder.choice import choose_vocoder

        settings = settings.model_copy(update={"vocoder": choose_vocoder(vocoder)})
    name = config.stem if config else preset or ("finetune" if init else "base")
    folder = output or Path("checkpoints") / f"{Path(data[0]).resolve().stem}-{name}"

    from melcodec.training.loop import Callbacks
    from melcodec.training.run import check_resume
    from melcodec.training.run import train as run

    check_resume(folder, resume)
    with stop_on_signals() as stopped, cache_bar() as cached, Reporter(settings) as reporter:
        callbacks = Callbacks(reporter.report, reporter.say, cached, lambda: bool(stopped), reporter.stepped)
        try:
            state = run(data, settings, folder, device=device, mel_stats=mel_stats, callbacks=callbacks)
        except KeyboardInterrupt as interrupt:
            say(str(interrupt) or "interrupted; the same command resumes from the last state that was saved")
            raise typer.Exit(128 + stopped[0]) from None
    if int(os.environ.get("RANK", "0")):  # only one of several processes prints
        raise typer.Exit(128 + stopped[0] if stopped else 0)
    if stopped:
        say(f"stopped at step {state.step} of {settings.train.steps}; the same command resumes from here")
        raise typer.Exit(128 + stopped[0])
    say(f"{folder}/best.safetensors is ready: melcodec roundtrip in.wav -o out.wav --checkpoint {folder}")
    say(f"{folder}/index.html shows the run")


def read_settings(
    preset: str | None, config: Path | None, assignments: list[str], init: str | None, tune: str | None
) -> RunConfig:
    """The settings that the words of the command line mean.

    A preset or file names the model; with ``init`` and neither, the model is that of the checkpoint.
    """
    from melcodec.config import ModelConfig, RunConfig, load_preset, parse, read_toml, with_overrides

    if config:
        settings = parse(RunConfig, read_toml(config), str(config))
    else:
        settings = load_preset(preset or ("finetune" if init else "base"))
    said = [f"train.{key}={json.dumps(value)}" for key, value in (("init", init), ("tune", tune)) if value]
    settings = with_overrides(settings, [*said, *assignments])
    if init and not config and preset in (None, "finetune"):
        from melcodec.formats.container import read_header
        from melcodec.formats.shipped import find_checkpoint

        model = parse(ModelConfig, read_header(find_checkpoint(init))[0].get("model", {}), init)
        settings = settings.model_copy(update={"model": model})
    return settings


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
    """A bar on a terminal; elsewhere a line after the first step and then one a minute. Both have one per validation."""

    def __init__(self, settings: RunConfig) -> None:
        self.steps = settings.train.steps
        data, mel = settings.data, settings.model.mel
        self.hours_per_step = data.batch_size * data.crop_frames * mel.hop_length / mel.sample_rate / 3600
        self.first = self.done = 0  # steps: of the start of this process, and now
        self.last = self.shown = 0.0  # times: of the latest step or validation, and of the latest line
        self.seconds = 0.0  # of all steps of this process, without validations
        self.codes = ""
        self.before: float | None = None  # the error before tuning
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """One line, above the bar when there is one."""
        if self.bar:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            say(text)

    def report(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Called with every line of metrics.jsonl; shows validations."""
        if kind != "valid":
            return
        self.codes = f", {values['codes_used']} codes used"
        kept = f", {values['agreement']:.1%} of the codes as before" if "agreement" in values else ""
        used = f"{values['codes_used']} codes used, perplexity {values['perplexity']:.0f}{kept}"
        error = values["log_mel_l1"]
        self.before = error if step == 0 else self.before
        then = f" ({self.before:.3f} before)" if kept and step and self.before else ""
        self.say(f"step {step}: validation log-mel L1 {error:.3f}{then}, {used}")
        self.last = time.monotonic()

    def stepped(self, step: int, values: Mapping[str, Any]) -> None:
        """Called before the first step, with no values, and after every step."""
        now = time.monotonic()
        if not values:
            self.first = self.done = step
            self.last = now
            if sys.stderr.isatty():
                self._show(step, "preparing the first step")
            return
        self.seconds += now - self.last
        self.last, self.done = now, step
        interval = TERMINAL_SECONDS if sys.stderr.isatty() else PLAIN_SECONDS
        if step > self.first + 1 and step < self.steps and now - self.shown < interval:
            return
        self.shown = now
        words = self._words(float(values["loss"]))
        if sys.stderr.isatty():
            self._show(step, words)
        else:
            say(f"step {step}/{self.steps}: {words}")

    def _words(self, loss: float) -> str:
        each = max(self.seconds / (self.done - self.first), 1e-9)
        speed = f"{each:.1f} s a step" if each >= 1 else f"{1 / each:.1f} steps/s"
        hours = 60 * self.hours_per_step / each
        audio = f"{hours:.1f} h of audio/min" if hours >= 1 else f"{60 * hours:.1f} min of audio/min"
        return f"loss {loss:.4f}{self.codes}, {speed}, {audio}, {_memory()}, {in_time(each * (self.steps - self.done))} left"

    def _show(self, step: int, words: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        if not self.bar:
            columns = MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(words, total=self.steps)
        self.bar.update(self.task, completed=step, description=words)


def in_time(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _memory() -> str:
    """What this process holds, on the GPU too when it uses one."""
    import psutil
    import torch

    words = f"{psutil.Process().memory_info().rss / 2**30:.1f} GiB"
    if torch.cuda.is_available():
        words += f" + {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    return words
