"""``melcodec vocoder``: train what makes sound of mels."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say, stop_on_signals
from melcodec.cli.train import PLAIN_SECONDS, cache_bar

Init = Annotated[
    str | None, typer.Option(metavar="CHECKPOINT", help="Vocoder to start from: a file, a run folder, or a shipped name.")
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Output folder.",
        show_default="checkpoints/DATA-vocoder",
        callback=options.folder_only,
    ),
]
vocoder_app = typer.Typer(no_args_is_help=True, help="Train a vocoder, which turns mels into sound, for --vocoder.")


@vocoder_app.command("train")
def vocoder_train(
    data: options.Data,
    config: options.Config = None,
    assignments: options.Assignments = None,
    init: Init = None,
    output: RunFolder = None,
    resume: options.Resume = None,
    device: options.Device = "auto",
) -> None:
    """Train a vocoder for the mels of this codec on speech; no transcripts or codes are needed.

    Ctrl-C finishes the step and saves; the same command resumes. The run folder gets best.safetensors and last.safetensors,
    which every command that makes sound takes as --vocoder, metrics.jsonl and TensorBoard logs.
    """
    from melcodec.config import parse, read_toml, with_overrides
    from melcodec.training.vocoder.settings import VocoderRunConfig

    settings = parse(VocoderRunConfig, read_toml(config), str(config)) if config else VocoderRunConfig()
    settings = with_overrides(settings, [*([f'train.init="{init}"'] if init else []), *(assignments or [])])
    folder = output or Path("checkpoints") / f"{Path(data[0]).resolve().stem}-vocoder"

    from melcodec.training.loop import Callbacks
    from melcodec.training.run import check_resume
    from melcodec.training.vocoder.run import train_vocoder

    check_resume(folder, resume)
    reporter = Reporter(settings.train.steps)
    with stop_on_signals() as stopped, cache_bar() as cached:
        calls = Callbacks(reporter.report, say, cached, lambda: bool(stopped))
        try:
            state = train_vocoder(data, settings, folder, device, calls)
        except KeyboardInterrupt as interrupt:
            say(str(interrupt) or "interrupted; the same command resumes from the last state that was saved")
            raise typer.Exit(128 + (stopped[0] if stopped else 2)) from None
    if stopped:
        say(f"stopped at step {state.progress.step} of {settings.train.steps}; the same command resumes")
        raise typer.Exit(128 + stopped[0])
    say(f"{folder}/best.safetensors is ready: melcodec roundtrip in.wav -o out.wav --vocoder {folder}")


@vocoder_app.command("config")
def vocoder_config(assignments: options.Assignments = None) -> None:
    """Print the settings of vocoder train as TOML: every key, its value and what it means."""
    from melcodec.config import to_toml, with_overrides
    from melcodec.training.vocoder.settings import VocoderRunConfig

    print(to_toml(with_overrides(VocoderRunConfig(), assignments or []), comments=True), end="")


class Reporter:
    """A line per validation, and one every few seconds with the loss and the time that is left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.first: tuple[int, float] | None = None
        self.said = 0.0

    def report(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Called with every metric line."""
        if kind == "valid":
            distances = f"{values['stft_refined']:.3f} refined, {values['stft_alone']:.3f} alone"
            say(f"step {step}: validation log-magnitude L1 {distances}; log-mel L1 {values['mel_alone']:.3f}")
            return
        now = time.monotonic()
        if self.first is None:
            self.first = (step, now)
        elif now - self.said >= PLAIN_SECONDS or sys.stderr.isatty():
            self.said = now
            left = (now - self.first[1]) / (step - self.first[0]) * (self.steps - step)
            say(f"step {step}/{self.steps}: loss {values['loss']:.4f}, {left / 60:.0f} min left")
