"""``melcodec import-xtts`` and ``export-xtts``: weights from and for Coqui's XTTS."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say
from melcodec.cli._standard import input_file, output_file
from melcodec.errors import MelcodecError

XTTSFile = Annotated[
    Path,
    typer.Argument(
        metavar="DVAE.PTH", help="dvae.pth, or the best_model.pth of a GPT trainer; - is standard input.", show_default=False
    ),
]
Target = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Output folder, for dvae.pth and mel_stats.pth; with --into, the output file.",
        show_default=False,
    ),
]
Into = Annotated[
    Path | None,
    typer.Option(
        metavar="BEST_MODEL.PTH", help="A file of Coqui's GPT trainer: write a copy of it with this DVAE in place of its own."
    ),
]


def import_xtts(
    file: XTTSFile,
    mel_stats: options.MelStats = None,
    output: options.Output = Path("checkpoints/xtts.safetensors"),
    overwrite: options.Overwrite = False,
) -> None:
    """Turn the DVAE of XTTS or Tortoise into a melcodec checkpoint that gives the same codes.

    Norms come from --mel-stats, else from the file itself, else they are those of XTTS.
    """
    from melcodec.files import check_output

    file, output = input_file(file), output_file(output, ".safetensors")
    if output.is_file() and not overwrite:
        hint = f"melcodec import-xtts {shlex.quote(str(file))} -f replaces it; -o NAME.safetensors keeps both"
        raise MelcodecError(f"{output}: exists already: {_imported_before(output)}", hint, "exists")
    check_output(output, overwrite)

    from melcodec.formats.checkpoint import save_checkpoint
    from melcodec.formats.xtts import import_xtts as read

    report = read(file, mel_stats)
    save_checkpoint(output, report.checkpoint, overwrite=overwrite)
    model = report.checkpoint.config
    say(f"sha256 {report.sha256}: {report.known or 'not one of the official files'}")
    say(
        f"K {model.quantizer.sizes[0]}, D {model.dim}, hidden {model.backbone.hidden}, "
        f"{model.backbone.num_blocks} residual blocks"
    )
    for note in report.notes:
        say(f"note: {note}")
    say(f"licence: {report.checkpoint.provenance['licence']}")
    say(f"{output}: checkpoint {report.checkpoint.fingerprint}")


def _imported_before(output: Path) -> str:
    """What is there already, in words."""
    from melcodec.formats.container import read_header

    try:
        meta, _ = read_header(output)
        return f"checkpoint {meta['fingerprint']}, made from {meta['provenance']['source']}"
    except (MelcodecError, KeyError, TypeError):
        return "it is not an imported checkpoint"


def export_xtts(
    checkpoint: options.CheckpointArgument, output: Target, into: Into = None, overwrite: options.Overwrite = False
) -> None:
    """Write dvae.pth and mel_stats.pth that Coqui's XTTS loads strictly, or a GPT trainer's file with this DVAE in it."""
    from melcodec.formats.checkpoint import load_checkpoint
    from melcodec.formats.shipped import find_checkpoint
    from melcodec.formats.xtts import DVAE_FILE, MEL_STATS_FILE
    from melcodec.formats.xtts import export_xtts as write
    from melcodec.formats.xtts_trainer import export_into

    if into is None:
        options.folder_only(output)
        notes = write(load_checkpoint(find_checkpoint(checkpoint)), output, overwrite)
        written = f"{output / DVAE_FILE}\n{output / MEL_STATS_FILE}"
    else:
        into, output = input_file(into), output_file(output, ".pth")
        notes = export_into(load_checkpoint(find_checkpoint(checkpoint)), into, output, overwrite)
        written = f"{output}"
    for note in notes:
        say(f"note: {note}")
    say(written)
