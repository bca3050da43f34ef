"""``melcodec mel-stats``: the norms of a corpus."""

from __future__ import annotations

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say
from melcodec.cli._standard import output_file


def mel_stats(data: options.Data, output: options.Output, overwrite: options.Overwrite = False) -> None:
    """Measure the mean log-mel of every band over a corpus, for melcodec train --mel-stats and XTTS.

    .pth is what XTTS reads; .npy and .json hold the same 80 numbers; -o - writes JSON.
    """
    from melcodec.files import check_output
    from melcodec.manifests.build import find_speech

    output = output_file(output, ".json")
    check_output(output, overwrite)
    notes: list[str] = []
    utterances = find_speech(data, notes.append)

    from melcodec.audio.io import Span, read_blocks
    from melcodec.audio.mel import build_frontend
    from melcodec.audio.stats import mel_statistics, save_mel_norms
    from melcodec.config import MelConfig

    config = MelConfig()
    sources = [(item.path, config.sample_rate, Span(item.start, item.duration), item.member) for item in utterances]
    with progress("measuring") as update:
        frontend = build_frontend(config, (1.0,) * config.n_mels)
        stats = mel_statistics(range(len(sources)), frontend, update, lambda index: read_blocks(*sources[index]))
    for error in stats.failures.values():
        say(f"left out: {error}")
    save_mel_norms(output, stats.norms, overwrite)
    say(f"{output}: {len(stats.norms)} norms from {len(utterances) - len(stats.failures)} utterances")
    for note in notes:
        say(note)
    if stats.failures:
        raise typer.Exit(1)
