"""``melcodec vocoder``: train a vocoder, which makes sound of mels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say, stop_on_signals
from melcodec.cli._steps import Steps
from melcodec.cli.train import cache_bar

if TYPE_CHECKING:
    from melcodec.training.loop import Report

Init = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT", help="Vocoder to start from: a file, a run folder, or a shipped name.", callback=options.named
    ),
]
RunFolder = Annotated[Path | None, options.run_folder("checkpoints/DATA-vocoder")]
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
    with stop_on_signals() as stopped, cache_bar() as cached, Steps(settings.train.steps) as steps:
        calls = Callbacks(report_to(steps), steps.say, cached, lambda: bool(stopped))
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


def report_to(steps: Steps) -> Report:
    """What is called with every metric line: shows the loss, and a line for every validation."""

    def report(kind: str, step: int, values: dict[str, Any]) -> None:
        if kind == "valid":
            distances = f"{values['stft_refined']:.3f} refined, {values['stft_alone']:.3f} alone"
            steps.say(f"step {step}: validation log-magnitude L1 {distances}; log-mel L1 {values['mel_alone']:.3f}")
            steps.pause()
        else:
            steps.step(step, lambda each: f"loss {values['loss']:.4f}")

    return report
