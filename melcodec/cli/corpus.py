"""``melcodec corpus``: describe, verify and export a folder of codes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import progress, say
from melcodec.errors import MelcodecError

if TYPE_CHECKING:
    from melcodec.store.info import CorpusInfo

Folder = Annotated[
    Path, typer.Argument(metavar="CODES", help="Folder that preprocess wrote.", show_default=False, callback=options.named)
]
Form = Annotated[
    str, typer.Option("--to", help="Format: npy, bin, tokens, webdataset, huggingface or lhotse.", show_default=False)
]
ShardSize = Annotated[int, typer.Option(min=1, help="Utterances per file, for webdataset and huggingface.")]
Offset = Annotated[
    int, typer.Option(min=0, help="For --to tokens: number of the first code, such as the size of a text vocabulary.")
]
PatternOption = Annotated[str, typer.Option("--pattern", help="For --to tokens with several codebooks: flat or delay.")]
Runs = Annotated[
    bool, typer.Option("--runs", help="For --to tokens: one token for a run of equal codes, with its duration beside it.")
]
corpus_app = typer.Typer(no_args_is_help=True, help="Folders of codes: describe, verify and export them.")


@corpus_app.command("info")
def corpus_info(folder: Folder, as_json: options.AsJSON = False) -> None:
    """Say what a folder of codes holds: hours, codes, how the codebook is used, failures by reason, fingerprint."""
    from melcodec.store.info import corpus_info as count

    found = count(folder)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    facts = in_words(found)
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key:<{width}}  {value}")


def in_words(found: CorpusInfo) -> dict[str, str]:
    """The facts to show, in order."""
    from melcodec.corpus.progress import in_words as length

    failures = ", ".join(f"{count} {reason}" for reason, count in found.failures.items())
    truncated = f", {found.truncated} of truncated files" if found.truncated else ""
    languages = ", ".join(f"{name or 'unknown'} {count}" for name, count in found.languages.items())
    return {
        "folder": found.folder,
        "checkpoint": str(found.checkpoint),
        "fingerprint": found.fingerprint,
        "planned": f"{found.planned} utterances" + (f", {found.pending} of them not done yet" if found.pending else ""),
        "with codes": f"{found.utterances} utterances, {length(3600 * found.hours)}" + truncated,
        "failed": failures or "none",
        "codes": f"{found.codes} in {found.parts} parts, {found.stored_bytes} bytes",
        **{
            (
                f"codebook {number}" if len(found.sizes) > 1 else "codebook"
            ): f"{book.used} of {size} used, perplexity {book.perplexity:.1f}"
            for number, (book, size) in enumerate(zip(found.usage, found.sizes, strict=True))
        },
        "bit rate": f"{found.bits_per_second:.1f} bit/s; {found.entropy_bits_per_second:.1f} with an ideal entropy coder",
        "languages": languages or "none",
        "speakers": str(found.speakers),
    }


@corpus_app.command("verify")
def corpus_verify(folder: Folder, as_json: options.AsJSON = False) -> None:
    """Check a folder of codes: every planned id once, checksums, columns, range of codes. All problems are listed.

    Exit status 1 when there is any.
    """
    from melcodec.store.verify import verify

    verdict = verify(folder)
    if as_json:
        print(json.dumps(asdict(verdict), ensure_ascii=False))
    width = max((len(problem.where) for problem in verdict.problems), default=0)
    for problem in verdict.problems if not as_json else ():
        print(f"{problem.where:<{width}}  {problem.what}")
    for name in verdict.leftovers:
        say(f"not part of the corpus, ignored: {name}")
    say(f"{verdict.planned} planned utterances, {verdict.parts} parts, {len(verdict.problems)} problems")
    for cure in verdict.cures:
        say(f"hint: {cure}")
    if verdict.problems:
        raise typer.Exit(1)


@corpus_app.command("export")
def corpus_export(
    folder: Folder,
    to: Form,
    output: options.FolderOutput,
    shard_size: ShardSize = 10_000,
    offset: Offset = 0,
    pattern: PatternOption = "flat",
    runs: Runs = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write the codes in another form.

    .npy files, one flat file of codes or of language-model tokens, tar shards, a Hugging Face data set or lhotse cuts.
    """
    from melcodec.store.export import export
    from melcodec.store.numbering import TokenForm

    if (offset or runs or pattern != "flat") and to != "tokens":
        raise MelcodecError("--offset, --pattern and --runs are for --to tokens")
    match pattern:
        case "flat" | "delay":
            numbering = TokenForm(offset, pattern, runs)
        case _:
            raise MelcodecError(f"--pattern {pattern}: no such pattern", "use flat or delay")
    with progress("exporting") as update:
        done = export(folder, output, to, overwrite, shard_size, update, numbering)
    left_out = f"; {done.left_out} without codes left out" if done.left_out else ""
    say(f"{output}: {done.utterances} utterances{left_out}")
