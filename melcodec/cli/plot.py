"""``melcodec plot``: pictures of sound, of codes and codebooks, and of a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli import _pictures as pictures
from melcodec.cli._batch import say_unknown
from melcodec.cli._console import say
from melcodec.cli._pictures import Drawn, check_target, is_page, title_of
from melcodec.cli._standard import input_file
from melcodec.cli.plot_codebook import plot_codebook, plot_training, plot_usage
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.vocoder.choice import DEFAULT_VOCODER

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from melcodec.codec import Codec
    from melcodec.pages import Part

Sound = Annotated[str, typer.Argument(metavar="IN", help="Audio file; - is standard input.", show_default=False)]
SoundOrMel = Annotated[
    str, typer.Argument(metavar="IN", help="Audio file, or a mel (.npy); - is standard input.", show_default=False)
]
SoundOrCodes = Annotated[str, typer.Argument(metavar="IN", help="Audio or codes file; - is standard input.", show_default=False)]
Seconds = Annotated[float, typer.Option(min=0.05, max=600, help="Length of the sound in seconds.")]
plot_app = typer.Typer(
    no_args_is_help=True, help="Pictures (.png, .svg) or pages (.html) of sound, codes, a codebook, a training."
)


@plot_app.command("mel")
def plot_mel(source: SoundOrMel, output: options.Output, overwrite: options.Overwrite = False) -> None:
    """Draw the log-mel spectrogram of a sound, or one that melcodec decode wrote."""
    output = check_target(output, overwrite)

    import numpy as np

    from melcodec import plots
    from melcodec.audio.io import read_blocks
    from melcodec.audio.mel import build_frontend
    from melcodec.config import MelConfig, xtts_mel_norms
    from melcodec.formats.mels import load_mel

    config = MelConfig()
    source = stored_or_sound(source)
    if pictures.is_array(source):  # arrays, by their suffix
        mel = load_mel(Path(source), config.n_mels)
    else:
        frontend = build_frontend(config, xtts_mel_norms())
        mel = np.concatenate(list(frontend.stream(read_blocks(source, config.sample_rate))), axis=1)
    title = title_of(source)
    figure = plots.plot_mel(mel, plots.Scale.of(config), title)
    said = f"mel {mel.shape[0]} x {mel.shape[1]} frames"
    pictures.save(Drawn(figure, title, f"Log-mel spectrogram of {title}", [f"{said}."]), output, overwrite)
    say(f"{output}: {said}")


@plot_app.command("roundtrip")
def plot_roundtrip(
    source: Sound,
    output: options.Output,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Draw a sound before and after, its codes, and the difference; a page plays both."""
    output = check_target(output, overwrite)

    from melcodec import plots
    from melcodec.audio.io import load
    from melcodec.codec import Codec
    from melcodec.metrics.spectral import log_mel_l1

    codec = Codec.from_pretrained(checkpoint, device, vocoder)
    wav = load(source, codec.sample_rate)
    mel = codec.mel(wav)
    codes = codec.encode_mel(mel)
    before, after = mel[0].cpu().numpy(), codec.decode_to_mel(codes)[0].cpu().numpy()
    distance = log_mel_l1(before, after[:, : before.shape[1]])

    title, numbers = title_of(source), codes[0].cpu().numpy()
    figure = plots.plot_roundtrip(before, after, numbers, plots.Scale.of(codec.frontend), title)
    said = f"{before.shape[1]} frames, {codes.shape[-1]} codes, log-mel L1 {distance:.3f}"
    waves = {"Original": wav, "Reconstruction": codec.decode(codes, len(wav))[0].cpu().numpy()} if is_page(output) else {}
    more = with_codes("The original and what its codes give back.", waves, numbers, codec)
    alt = f"Mel spectrograms of {title}: original, codes, reconstruction and their difference"
    pictures.save(Drawn(figure, title, alt, [f"{said} nats."], more), output, overwrite)
    say(f"{output}: {said}")


@plot_app.command("codes")
def plot_codes(
    source: SoundOrCodes,
    output: options.Output,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    device: options.Device = "auto",
    any_checkpoint: options.AnyCheckpoint = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw codes as a strip under the mel: that of the sound, or the decoded one when IN is a codes file."""
    output = check_target(output, overwrite)

    from melcodec.audio.io import load
    from melcodec.codec import Codec
    from melcodec.store.reader import read_codes

    source = stored_or_sound(source)
    stored = read_codes(Path(source)) if pictures.is_array(source) else None
    codec = Codec.from_pretrained(checkpoint, device, vocoder)
    length: int | None
    if stored is None:
        wav = load(source, codec.sample_rate)
        length = len(wav)
        mel, waves = codec.mel(wav), {"Original": wav}
        codes = codec.encode_mel(mel)[0].cpu().numpy()
    else:
        if not any_checkpoint:
            codec.check_fingerprint(stored, source)
        codes, waves, length = stored.codes, {}, stored.num_samples
        mel = codec.decode_to_mel(codes, length)
    if is_page(output):
        waves["Decoded"] = codec.decode(codes, length)[0].cpu().numpy()
    figure, title = draw_codes(codec, mel[0].cpu().numpy(), codes, title_of(source)), title_of(source)
    said = f"{codes.shape[1]} codes, {len(set(codes.ravel().tolist()))} of them different"
    more = with_codes("The sound and what its codes give back.", waves, codes, codec)
    pictures.save(Drawn(figure, title, f"Codes under the mel spectrogram of {title}", [f"{said}."], more), output, overwrite)
    say(f"{output}: {said}")
    say_unknown([source] if stored and not stored.fingerprint and not any_checkpoint else [])


@plot_app.command("chance")
def plot_chance(
    output: options.Output,
    seconds: Seconds = 10.0,
    seed: options.Seed = 0,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Draw and play random codes, decoded: how the codebook sounds without speech."""
    output = check_target(output, overwrite)

    import numpy as np

    from melcodec.codec import Codec

    codec = Codec.from_pretrained(checkpoint, device, vocoder)
    random, length = np.random.default_rng(seed), max(1, round(seconds * codec.code_rate))
    codes = np.stack([random.integers(0, size, length) for size in codec.sizes])
    title = "Random codes, decoded"
    figure = draw_codes(codec, codec.decode_to_mel(codes)[0].cpu().numpy(), codes, title)
    waves = {"Decoded": codec.decode(codes)[0].cpu().numpy()} if is_page(output) else {}
    said = f"{codes.shape[1]} random codes of {title_of(checkpoint)}"
    more = with_codes("Random codes, decoded.", waves, codes, codec)
    pictures.save(Drawn(figure, title, "Random codes under the mel that they decode to", [f"{said}."], more), output, overwrite)
    say(f"{output}: {said}")


for name, command in (("codebook", plot_codebook), ("usage", plot_usage), ("training", plot_training)):
    plot_app.command(name)(command)


def stored_or_sound(source: str) -> str:
    """``source``, or a copy of standard input that is named by what it holds."""
    return str(input_file(Path(source)))


def draw_codes(codec: Codec, mel: np.ndarray, codes: np.ndarray, title: str) -> Figure:
    """Codes (Q, N) under mel (M, T), natural log power, on the axes of ``codec``."""
    from melcodec import plots

    return plots.plot_codes(mel, codes, plots.Scale.of(codec.frontend), title)


def with_codes(caption: str, waves: dict[str, np.ndarray], codes: np.ndarray, codec: Codec) -> list[Part]:
    """What a page shows under a picture of codes (Q, N): players for waves (S,), and the codes with their times."""
    from melcodec.pages import Table

    books = [f"Code of book {book}" for book in range(1, len(codes) + 1)] if len(codes) > 1 else ["Code"]
    rows = [[index, index / codec.code_rate, *map(int, column)] for index, column in enumerate(codes.T)]
    table = Table("Every code and when it begins.", ["Place", "Begins at (s)", *books], rows)
    return [pictures.sounds(caption, waves, codec.sample_rate), table] if waves else [table]
