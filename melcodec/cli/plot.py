"""``melcodec plot``: pictures of sound, and of what the codes keep of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say
from melcodec.formats.shipped import DEFAULT_CHECKPOINT

Sound = Annotated[str, typer.Argument(metavar="IN", help="Audio file; - is standard input.", show_default=False)]
SoundOrMel = Annotated[
    str, typer.Argument(metavar="IN", help="Audio file, or a mel (.npy); - is standard input.", show_default=False)
]
plot_app = typer.Typer(no_args_is_help=True, help="Pictures (.png, .svg): a mel spectrogram, or before and after the codes.")


@plot_app.command("mel")
def plot_mel(source: SoundOrMel, output: options.Output, overwrite: options.Overwrite = False) -> None:
    """Draw the log-mel spectrogram of a sound, or one that melcodec decode wrote."""
    check_target(output, overwrite)

    import numpy as np

    from melcodec import plots
    from melcodec.audio.io import read_blocks
    from melcodec.audio.mel import build_frontend
    from melcodec.config import MelConfig, xtts_mel_norms
    from melcodec.formats.arrays import SUFFIXES
    from melcodec.formats.mels import load_mel

    config = MelConfig()
    if Path(source).suffix.lower() in SUFFIXES:
        mel = load_mel(Path(source), config.n_mels)
    else:
        frontend = build_frontend(config, xtts_mel_norms())
        mel = np.concatenate(list(frontend.stream(read_blocks(source, config.sample_rate))), axis=1)
    figure = plots.plot_mel(mel, config.sample_rate, config.hop_length, title_of(source), config.f_min, config.f_max)
    plots.save_figure(figure, output, overwrite)
    say(f"{output}: mel {mel.shape[0]} x {mel.shape[1]} frames")


@plot_app.command("roundtrip")
def plot_roundtrip(
    source: Sound,
    output: options.Output,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Draw a sound before and after, its codes, and the difference."""
    check_target(output, overwrite)

    from melcodec import plots
    from melcodec.audio.io import load
    from melcodec.codec import Codec
    from melcodec.metrics.spectral import log_mel_l1

    codec = Codec.from_pretrained(checkpoint, device)
    mel = codec.mel(load(source, codec.sample_rate))
    codes = codec.encode_mel(mel)
    before, after = mel[0].cpu().numpy(), codec.decode_to_mel(codes)[0].cpu().numpy()
    distance = log_mel_l1(before, after[:, : before.shape[1]])

    front = codec.frontend
    figure = plots.plot_roundtrip(
        before, after, codes[0].cpu().numpy(), front.sample_rate, front.hop_length, title_of(source), front.f_min, front.f_max
    )
    plots.save_figure(figure, output, overwrite)
    say(f"{output}: {before.shape[1]} frames, {codes.shape[-1]} codes, log-mel L1 {distance:.3f}")


def check_target(output: Path, overwrite: bool) -> None:
    """Refuse at once what could not be written in the end."""
    from melcodec.files import check_output
    from melcodec.plots import check_picture

    check_output(output, overwrite)
    check_picture(output)


def title_of(source: str) -> str:
    """What to write above the picture of ``source``."""
    return "standard input" if source == "-" else Path(source).name
