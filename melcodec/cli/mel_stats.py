"""``melcodec mel-stats``: the norms of a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say

Data = Annotated[list[Path], typer.Argument(help="Audio files or folders.", show_default=False)]


def mel_stats(data: Data, output: options.Output, overwrite: options.Overwrite = False) -> None:
    """Mean log-mel of every band over a corpus, for melcodec train --mel-stats and XTTS.

    .pth is what XTTS reads; .npy and .json hold the same 80 numbers.
    """
    from melcodec.audio.io import find_audio
    from melcodec.errors import MelcodecError
    from melcodec.files import check_output

    check_output(output, overwrite)
    paths = [path for item in data for path in (find_audio(item) if item.is_dir() else [item])]
    if not paths:
        raise MelcodecError(f"no audio files in {', '.join(map(str, data))}")

    from melcodec.audio.mel import build_frontend
    from melcodec.audio.stats import mel_statistics, save_mel_norms
    from melcodec.config import MelConfig

    config = MelConfig()
    with progress("measuring") as update:
        stats = mel_statistics(paths, build_frontend(config, (1.0,) * config.n_mels), update)
    for error in stats.failures.values():
        say(f"left out: {error}")
    save_mel_norms(output, stats.norms, overwrite)
    say(f"{output}: {len(stats.norms)} norms from {len(paths) - len(stats.failures)} files")
    if stats.failures:
        raise typer.Exit(1)
