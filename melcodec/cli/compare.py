"""``melcodec compare``: how two tokenizers differ, and what that means for a model trained on their codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say
from melcodec.cli.evaluate import command_line

if TYPE_CHECKING:
    from melcodec.evaluation.compare import Comparison

A = Annotated[
    str,
    typer.Argument(metavar="A", help="Before: a checkpoint, or a folder of codes.", show_default=False, callback=options.named),
]
B = Annotated[
    str, typer.Argument(metavar="B", help="After: another of the same kind.", show_default=False, callback=options.named)
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Folder for a page with sounds and pictures, and comparison.json.",
        show_default=False,
        callback=options.folder_only,
    ),
]
BAND_GROUP = 8  # bands to a line


def compare(
    a: A,
    b: B,
    data: options.OptionalData = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    output: Report = None,
    as_json: options.AsJSON = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Say how many codes changed, what was gained or lost, and whether a GPT must be trained again.

    A and B are two checkpoints, compared on DATA, or two folders of codes that melcodec preprocess or encode wrote.
    """
    from melcodec.evaluation.compare import compare as run
    from melcodec.evaluation.compare_page import check_report_folder, write_comparison

    if output is not None:
        check_report_folder(output, overwrite)
    with progress("comparing") as update:
        found = run(a, b, data or [], limit, seed, update, say, device)
    if output is not None:
        write_comparison(output, found, data or [], command_line())
        say(f"{output}: index.html and comparison.json")
    print(json.dumps(found.to_json(), ensure_ascii=False) if as_json else in_words(found))
    if found.left_out:
        say(f"{len(found.left_out)} left out:")
        for name, reason in found.left_out.items():
            say(f"  {name}: {reason}")
        raise typer.Exit(1)


def in_words(found: Comparison) -> str:
    """The verdict, then the tables behind it."""
    from melcodec.evaluation.compare import verdict

    lines = [*verdict(found), "", f"{found.files} files, {found.codes} codes: {found.exact:.1%} the same"]
    lines[-1] += f", {found.matched:.1%} after the best renumbering, which is known for {found.covered:.1%} of them"
    if found.moved:
        lines += ["", "most moved codes (codebook: before > after, times, share of before)"]
        lines += [f"  {m.codebook}: {m.before:>5} > {m.after:<5} {m.count:>7} {m.share:>7.1%}" for m in found.moved]
    if found.a.bands and found.b.bands and len(found.a.bands) == len(found.b.bands):
        lines += ["", "log-mel L1 by mel band, before and after"]
        for start in range(0, len(found.a.bands), BAND_GROUP):
            before, after = (side[start : start + BAND_GROUP] for side in (found.a.bands, found.b.bands))
            means = [sum(values) / len(values) for values in (before, after)]
            lines.append(f"  bands {start:>3} to {start + len(before) - 1:<3} {means[0]:.3f}  {means[1]:.3f}")
    if found.languages:
        lines += ["", "by language: files, codes that are the same, log-mel L1 before and after"]
        for name, item in found.languages.items():
            errors = [f"{error.mean:.3f}" if error else "-" for error in (item.before, item.after)]
            lines.append(f"  {name:<6} {item.files:>5} {item.exact:>7.1%}  {'  '.join(errors)}")
    return "\n".join(lines)
