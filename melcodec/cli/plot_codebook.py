"""``melcodec plot codebook``, ``usage`` and ``training``: pictures of a codebook, of its use and of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli import _pictures as pictures
from melcodec.cli._batch import say_unknown
from melcodec.cli._console import progress, say
from melcodec.cli._pictures import Drawn, check_target, title_of
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    import numpy as np

    from melcodec.pages import Table

Counted = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN", help="Codes: files or folders. Or speech to encode: " + options.SOURCES + ".", show_default=False
    ),
]
Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Folders that melcodec train wrote.", show_default=False, callback=options.named),
]
Umap = Annotated[
    bool, typer.Option("--umap", help="Arrange the codewords by UMAP (pip install umap-learn) instead of principal components.")
]


def plot_codebook(
    checkpoint: options.CheckpointArgument,
    output: options.Output,
    data: options.OptionalData = None,
    umap: Umap = False,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Draw the codewords in a plane. With DATA, their size shows how often they are used, and latents are drawn beside them."""
    output = check_target(output, overwrite)

    from melcodec import plots
    from melcodec.codec import Codec
    from melcodec.evaluation.code_counts import count_codes, first_latents, name_of
    from melcodec.manifests.build import find_speech

    codec = Codec.from_pretrained(checkpoint, device)
    tables = codec.model.quantizer.tables()
    if not tables:
        raise MelcodecError(f"{checkpoint}: its quantizer stores no codewords that could be drawn")
    embed = tables[0].cpu().numpy()
    title, counts, left_out = title_of(checkpoint), None, dict[str, MelcodecError]()
    if data:
        files = find_speech(data, say)
        with progress("counting") as update:
            counted = count_codes(files, lambda: codec, update)
        counts, left_out = counted.books[0], counted.left_out
        latents = first_latents(codec, [item for item in files if name_of(item) not in left_out])
        figure = plots.plot_codebook_use(embed, counts, *latents, title, umap)
    else:
        figure = plots.plot_codebook(embed, title=title, umap=umap)
    said = usage_said([counts]) if counts is not None else f"{len(embed):,} codewords of width {embed.shape[1]}"
    alt = "Codewords as points in a plane" + (", as large as they are used, beside latents that become codewords" if data else "")
    pictures.save(Drawn(figure, title, alt, [f"{said}."], [codeword_table(embed, counts)]), output, overwrite)
    say(f"{output}: {said}")
    name_left_out(left_out)


def plot_usage(
    inputs: Counted,
    output: options.Output,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Draw how often each code occurs, over all of IN. Speech is encoded with --checkpoint.

    If a folder holds codes and audio, the codes are counted if every audio file has codes of the same name; otherwise the audio
    is encoded.
    """
    output = check_target(output, overwrite)

    from functools import cache

    import numpy as np

    from melcodec import plots
    from melcodec.codec import Codec
    from melcodec.evaluation.code_counts import count_codes, find_codes_or_sound
    from melcodec.pages import Table

    files = find_codes_or_sound(inputs, say)
    with progress("counting") as update:
        counted = count_codes(files, cache(lambda: Codec.from_pretrained(checkpoint, device)), update)
    title = title_of(inputs[0]) if len(inputs) == 1 else f"{len(files):,} files"
    tables = []
    for book, counts in enumerate(counted.books, start=1):
        ranked = enumerate(np.argsort(-counts, kind="stable"), start=1)
        rows = [[rank, int(code), int(counts[code]), 100 * counts[code] / counts.sum()] for rank, code in ranked]
        which = f" of codebook {book}" if len(counted.books) > 1 else ""
        tables.append(Table(f"Every code{which}, the most used first.", ["Rank", "Code", "Times used", "Share (%)"], rows))
    said = usage_said(counted.books)
    alt = f"Share of each code over its rank, on logarithmic axes: {said}"
    pictures.save(Drawn(plots.plot_usage(counted.books, title), title, alt, [f"{said}."], tables), output, overwrite)
    say(f"{output}: {said}")
    if counted.unknown:
        say_unknown(counted.unknown, "whether one checkpoint made all of the codes")
    name_left_out(counted.left_out)


def plot_training(runs: Runs, output: options.Output, overwrite: options.Overwrite = False) -> None:
    """Draw a run's learning curves and the use of its codes; with several runs, that use side by side."""
    output = check_target(output, overwrite)

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


def name_left_out(left_out: Mapping[str, MelcodecError]) -> None:
    """Say which files the picture is without; the exit status is then 1."""
    if left_out:
        say(f"{len(left_out)} left out:")
        for reason in left_out.values():
            say(f"  {reason.message}")
        raise typer.Exit(1)


def usage_said(books: Sequence[np.ndarray]) -> str:
    """Counts (K,) of each codebook in words."""
    from melcodec.metrics.codes import code_usage

    found = []
    for book, counts in enumerate(books, start=1):
        usage = code_usage(counts)
        which = f"codebook {book}: " if len(books) > 1 else ""
        found.append(f"{which}{usage.used:,} of {len(counts):,} codes used, perplexity {usage.perplexity:,.0f}")
    return f"{'; '.join(found)}{';' if len(books) > 1 else ','} {usage.total:,} codes counted"


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
