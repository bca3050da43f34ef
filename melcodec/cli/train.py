"""``melcodec train``: a folder of speech to a checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say, stop_on_signals
from melcodec.cli._steps import Steps

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
        callback=options.named,
    ),
]
Tune = Annotated[
    str | None,
    typer.Option(
        help="What to train of the --init checkpoint: full, decoder (its codes stay valid) or frozen-codebook.",
        show_default="full",
    ),
]
Vocoder = Annotated[
    str | None,
    typer.Option(
        help="Vocoder: griffin-lim, a file or run folder of melcodec vocoder train, or a .toml file with settings.",
        show_default="griffin-lim",
        callback=options.named,
    ),
]
RunFolder = Annotated[Path | None, options.run_folder("checkpoints/DATA-PRESET")]


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
    with stop_on_signals() as stopped, cache_bar() as cached, Steps(settings.train.steps) as steps:
        reporter = Reporter(settings, steps)
        callbacks = Callbacks(reporter.report, steps.say, cached, lambda: bool(stopped), reporter.stepped)
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
    if init and not config and preset in (None, "finetune"):
        from melcodec.formats.container import read_header
        from melcodec.formats.shipped import find_checkpoint

        model = parse(ModelConfig, read_header(find_checkpoint(init))[0].get("model", {}), init)
        settings = settings.model_copy(update={"model": model})
    said = [f"train.{key}={json.dumps(value)}" for key, value in (("init", init), ("tune", tune)) if value]
    return with_overrides(settings, [*said, *assignments])


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
    """Shows a training: its steps, and a line for every validation."""

    def __init__(self, settings: RunConfig, steps: Steps) -> None:
        data, mel = settings.data, settings.model.mel
        self.steps = steps
        self.hours_per_step = data.batch_size * data.crop_frames * mel.hop_length / mel.sample_rate / 3600
        self.tuned = bool(settings.train.init)
        self.codes = ""
        self.before: float | None = None  # the error before tuning

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
        self.steps.say(f"step {step}: validation log-mel L1 {error:.3f}{then}, {used}")
        self.steps.pause()

    def stepped(self, step: int, values: Mapping[str, Any]) -> None:
        """Called before the first step, with no values, and after every step."""
        if values:
            self.steps.step(step, lambda each: self._words(float(values["loss"]), each or 0))
        elif step:
            self.steps.begin(step, f"continuing after step {step}")
        else:
            self.steps.begin(
                step, f"preparing the first step: {'validating' if self.tuned else 'starting the codebook and validating'}"
            )

    def _words(self, loss: float, each: float) -> str:
        speed = f"{each:.1f} s a step" if each >= 1 else f"{1 / each:.1f} steps/s"
        hours = 60 * self.hours_per_step / each
        audio = f"{hours:.1f} h of audio/min" if hours >= 1 else f"{60 * hours:.1f} min of audio/min"
        return f"loss {loss:.4f}{self.codes}, {speed}, {audio}, {_memory()}"


def _memory() -> str:
    """What this process holds, on the GPU too when it uses one."""
    import psutil
    import torch

    words = f"{psutil.Process().memory_info().rss / 2**30:.1f} GiB"
    if torch.cuda.is_available():
        words += f" + {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    return words
