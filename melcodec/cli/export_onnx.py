"""``melcodec export-onnx``: a checkpoint as graphs for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say
from melcodec.errors import MelcodecError
from melcodec.vocoder.choice import DEFAULT_VOCODER

Speech = Annotated[
    list[Path] | None,
    typer.Option(
        "--speech",
        metavar="FILE",
        help="Compare with torch on this audio file; may be repeated.",
        show_default="two clips that came with melcodec",
        callback=options.named,
    ),
]


def export_onnx(
    checkpoint: options.CheckpointArgument,
    output: options.FolderOutput,
    vocoder: options.Vocoder = DEFAULT_VOCODER,
    speech: Speech = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a checkpoint as ONNX graphs: sound to codes, codes to mel, and mel to sound or magnitudes.

    Before they are written, the graphs and torch are run on the same speech: the codes must be equal, except where two
    codewords are equally near. melcodec.json in the folder describes the graphs. encode and decode use them with
    --runtime onnx.
    """
    from melcodec.onnx.folder import OPSET, is_export

    if is_export(output) and not overwrite:
        raise MelcodecError(f"{output}: holds an export already", "add -f to replace it, or give another folder", "exists")
    if output.exists() and not output.is_dir():
        raise MelcodecError(f"{output}: is a file; a folder was expected", code="exists")

    from melcodec.formats.checkpoint import load_checkpoint
    from melcodec.formats.shipped import find_checkpoint
    from melcodec.onnx.export import check_packages
    from melcodec.onnx.export import export_onnx as write
    from melcodec.vocoder.choice import choose_vocoder

    check_packages()
    facts = write(load_checkpoint(find_checkpoint(checkpoint)), choose_vocoder(vocoder), output, speech)
    agreed = facts.agreement
    say(
        f"compared with torch on {agreed.seconds:.1f} s of speech: {agreed.codes} codes, {agreed.near_ties} near ties decided "
        f"otherwise; mels differ by at most {agreed.mel_error:.1g}"
    )
    say(f"{output}: checkpoint {facts.fingerprint}, opset {OPSET}, float32")
