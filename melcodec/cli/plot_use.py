"""``melcodec plot codebook``, ``usage`` and ``training``: pictures of how a codebook lies, is used and was learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli import _pictures as pictures
from melcodec.cli._console import progress, say
from melcodec.cli._pictures import Drawn, check_target, title_of
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    import numpy as np

    from melcodec.codec import Codec
    from melcodec.formats.codes import Codes
    from melcodec.pages import Table

LATENT_SECONDS = 10.0  # of each file: thousands of latents say no more than hundreds do
Model = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="Checkpoint file, or the name of a shipped one.", show_default=False)
]
Speech = Annotated[list[Path] | None, typer.Argument(metavar="[DATA]...", help="Audio files or folders: how the codes are used.")]
Counted = Annotated[
    list[Path], typer.Argument(metavar="IN...", help="Codes files, audio files, or folders of them.", show_default=False)
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders that melcodec train wrote.", show_default=False)]
Umap = Annotated[bool, typer.Option("--umap", help="Neighbours by UMAP (pip install umap-learn), not principal components.")]


def plot_codebook(
    checkpoint: Model,
    output: options.Output,
    data: Speech = None,
    umap: Umap = False,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Draw the codewords in a plane; with DATA each as large as it is used, and latents as they become codewords."""
    check_target(output, overwrite)

    from melcodec import plots
    from melcodec.codec import Codec

    codec = Codec.from_pretrained(checkpoint, device)
    embed = codec.model.codebook.embed.T.cpu().numpy()
    title, counts = title_of(checkpoint), None
    if data:
        files = find_speech(data)
        counts = count_codes(files, lambda: codec)
        figure = plots.plot_codebook_use(embed, counts, *first_latents(codec, files), title, umap)
    else:
        figure = plots.plot_codebook(embed, title=title, umap=umap)
    said = usage_said(counts) if counts is not None else f"{len(embed):,} codewords of width {embed.shape[1]}"
    alt = "Codewords as points in a plane" + (", as large as they are used, beside latents that become codewords" if data else "")
    pictures.save(Drawn(figure, title, alt, [f"{said}."], [codeword_table(embed, counts)]), output, overwrite)
    say(f"{output}: {said}")


def plot_usage(
    inputs: Counted,
    output: options.Output,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Draw how often each code occurs, over all of IN; --checkpoint encodes audio. A folder's codes go before its audio."""
    check_target(output, overwrite)
    files = find_codes_or_sound(inputs)

    from functools import cache

    import numpy as np

    from melcodec import plots
    from melcodec.codec import Codec
    from melcodec.pages import Table

    counts = count_codes(files, cache(lambda: Codec.from_pretrained(checkpoint, device)))
    title = title_of(inputs[0]) if len(inputs) == 1 else f"{len(files):,} files"
    order = np.argsort(-counts, kind="stable")
    rows = [[rank, int(code), int(counts[code]), 100 * counts[code] / counts.sum()] for rank, code in enumerate(order, start=1)]
    table = Table("Every code, the most used first.", ["Rank", "Code", "Times used", "Share (%)"], rows)
    said = usage_said(counts)
    alt = f"Share of each code over its rank, on logarithmic axes: {said}"
    pictures.save(Drawn(plots.plot_usage(counts, title), title, alt, [f"{said}."], [table]), output, overwrite)
    say(f"{output}: {said}")


def plot_training(runs: Runs, output: options.Output, overwrite: options.Overwrite = False) -> None:
    """Draw a run's learning curves and the use of its codes; with several runs, that use side by side."""
    check_target(output, overwrite)

    from melcodec import plots

    for run in runs:
        if not run.is_dir():
            raise MelcodecError(f"{run}: no such folder", "give the folder that melcodec train wrote")
    names = [title_of(run.resolve()) for run in runs]
    title = " \N{MIDDLE DOT} ".join(names)
    if len(runs) > 1:
        names = names if len(set(names)) == len(names) else list(map(str, runs))
        figure = plots.plot_usage_histories(
            {name: plots.read_history(run / "usage.npz") for name, run in zip(names, runs, strict=True)}
        )
        said = f"{len(runs)} trainings side by side"
        drawn = Drawn(figure, title, "Use of every code over training, one picture for each run", [f"{said}."])
    else:
        curves = plots.read_curves(runs[0] / "metrics.jsonl")
        usage = runs[0] / "usage.npz"
        figure = plots.plot_training(curves, plots.read_history(usage) if usage.exists() else None, title)
        last = max(int(columns["step"][-1]) for columns in curves.values())
        said = f"learning curves to step {last:,}"
        alt = "Learning curves: losses, validation error, codes in use, learning rate, gradient norm"
        drawn = Drawn(figure, title, alt, [f"{said.capitalize()}."], curve_tables(curves))
    pictures.save(drawn, output, overwrite)
    say(f"{output}: {said}")


def usage_said(counts: np.ndarray) -> str:
    """Counts (K,) in words."""
    from melcodec.metrics.codes import code_usage

    usage = code_usage(counts)
    return f"{usage.used:,} of {len(counts):,} codes used, perplexity {usage.perplexity:,.0f}, {usage.total:,} codes counted"


def codeword_table(embed: np.ndarray, counts: np.ndarray | None) -> Table:
    """Where each of embed (K, D) lies in the principal plane and, where counted, how often it is used."""
    from melcodec.pages import Table
    from melcodec.plots import principal_plane

    plane = principal_plane(embed)
    columns = ["Code", "Axis 1", "Axis 2"]
    rows = [[code, float(x), float(y)] for code, (x, y) in enumerate(plane.project(embed))]
    if counts is not None:
        columns, rows = [*columns, "Times used"], [[*row, int(count)] for row, count in zip(rows, counts, strict=True)]
    return Table("Every codeword.", columns, rows, digits=2)


def curve_tables(curves: Mapping[str, Mapping[str, np.ndarray]]) -> list[Table]:
    """The measurements at every validation; where there was none, those of training."""
    from melcodec.pages import Table

    kind = "valid" if "valid" in curves else next(iter(curves))
    names = [name for name in curves[kind] if name not in ("step", "time")]
    columns = [[_whole(value) for value in curves[kind][name].tolist()] for name in ("step", *names)]
    return [Table(f"Every line of kind '{kind}'.", ["Step", *names], list(zip(*columns, strict=True)), digits=4)]


def _whole(value: float) -> float:
    """An int where ``value`` is whole: counts have no decimals."""
    return int(value) if value == value // 1 else value


def find_speech(data: Sequence[Path]) -> list[Path]:
    """Audio files as they are, and those of folders."""
    from melcodec.audio.io import find_audio

    files: list[Path] = []
    for item in data:
        found = find_audio(item) if item.is_dir() else [item]
        if not found:
            raise MelcodecError(f"{item}: no audio in this folder", "wav, flac, mp3, ogg and opus are read")
        files += found
    return files


def find_codes_or_sound(inputs: Sequence[Path]) -> list[Path]:
    """Files as they are; of a folder its codes files or, where it has none, its audio: both would count twice."""
    from melcodec.audio.io import find_audio
    from melcodec.cli.decode import find_codes

    files: list[Path] = []
    for item in inputs:
        if not item.is_dir() or is_store(item):
            files.append(item)
        elif found := find_codes(item) or find_audio(item):
            files += found
        else:
            raise MelcodecError(f"{item}: neither codes nor audio in this folder")
    return files


def is_store(path: Path) -> bool:
    """Whether ``path`` is a folder that melcodec preprocess wrote."""
    return (path / "run.json").is_file() and (path / "parts").is_dir()


def count_codes(files: Sequence[Path], open_codec: Callable[[], Codec]) -> np.ndarray:
    """How often each code occurs in codes files, code stores and audio -> counts (Q K,), codebook after codebook.

    Args:
        open_codec: gives the codec that encodes audio, and that says K where no file does; called when it is needed.

    Raises:
        MelcodecError: a file that cannot be read, or codes of different checkpoints.
    """
    import numpy as np

    totals: dict[int, np.ndarray] = {}  # by codebook; as long as the largest code so far
    size, made_by = 0, ""
    with progress("counting") as update:
        for index, path in enumerate(files, start=1):
            for codes in read_codes(path, open_codec):
                made_by = made_by or codes.fingerprint or ""
                if codes.fingerprint not in (None, made_by):
                    raise MelcodecError(
                        f"{path}: made by checkpoint {codes.fingerprint}, files before it by {made_by}",
                        "their codes mean different things: draw them apart",
                    )
                size = max(size, codes.codebook_size or 0)
                for book, row in enumerate(codes.codes):
                    totals[book] = _added(totals.get(book, np.zeros(0, np.int64)), np.bincount(row))
            update(index, len(files))
    if not totals:
        raise MelcodecError(f"{files[0]}: holds no codes")
    size = size or open_codec().codebook_size
    if (largest := max(map(len, totals.values()))) > size:
        raise MelcodecError(f"code {largest - 1} is none of a codebook of {size}", "give the checkpoint with --checkpoint")
    return np.concatenate([_added(np.zeros(size, np.int64), totals[book]) for book in sorted(totals)])


def read_codes(path: Path, open_codec: Callable[[], Codec]) -> Iterator[Codes]:
    """The codes of one file, or of every utterance of a store."""
    from melcodec.formats.codes import Codes, load_codes

    if not is_store(path):
        yield load_codes(path) if pictures.is_array(path) else open_codec().encode_file(path)
        return
    import numpy as np

    from melcodec.formats.store import codes_of, parts, read_part, read_spec

    spec = read_spec(path)
    for part in parts(path):
        for codes in codes_of(read_part(part, ["codes", "num_codebooks"])):
            if codes is not None:
                yield Codes(codes.astype(np.int64), None, None, spec["fingerprint"], spec["codebook_size"])


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sum of two counts, the shorter one as if it went on with zeros."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def first_latents(codec: Codec, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, D) before quantisation of the first ten seconds of each file, and their codes (n,) of codebook 1."""
    import numpy as np
    import torch

    from melcodec.audio.io import open_blocks

    latents, codes = [], []
    for path in files:
        taken, needed = [], int(LATENT_SECONDS * codec.sample_rate)
        with open_blocks(path, codec.sample_rate) as (_, blocks):
            for block in blocks:
                taken.append(block[:needed])
                needed -= len(taken[-1])
                if not needed:
                    break
        with torch.inference_mode():
            found = codec.model.encode_latents(codec.frontend.normalize(codec.mel(np.concatenate(taken))))
            latents.append(found[0].T.cpu().numpy())
            codes.append(codec.model.codebook.encode(found)[0, 0].cpu().numpy())
    return np.concatenate(latents), np.concatenate(codes)
