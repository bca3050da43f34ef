"""``melcodec config``: settings listed, shown and checked; a file of one's own begins with ``show base > run.toml``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli._console import say

Name = Annotated[str, typer.Argument(metavar="NAME", help="A preset, as melcodec config list names them.", show_default=False)]
File = Annotated[Path, typer.Argument(metavar="FILE", help="Settings in TOML, as --config takes them.", show_default=False)]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, or a recipe: optimizer=finetune.")
]
AsJSON = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]

config_app = typer.Typer(no_args_is_help=True, help="Settings of a training run: presets, all keys, and what is wrong in a file.")


@config_app.command("list")
def config_list(as_json: AsJSON = False) -> None:
    """Name the presets and the optimizer recipes, a line each."""
    from melcodec.config import preset_texts

    kinds = {"preset": preset_texts(), "optimizer": preset_texts("optimizer")}
    found = {kind: {name: first_comment(text) for name, text in texts.items()} for kind, texts in kinds.items()}
    if as_json:
        print(json.dumps(found))
        return
    for kind, comments in found.items():
        for name, comment in comments.items():
            print(f"{kind:<9}  {name:<8}  {comment}")
    say("hint: melcodec config show base > run.toml; a recipe is taken with --set optimizer=NAME")


@config_app.command("show")
def config_show(name: Name, assignments: Assignments = None) -> None:
    """Print a preset as TOML: every key, its value and what it means."""
    from melcodec.config import load_preset, to_toml, with_overrides

    print(to_toml(with_overrides(load_preset(name), assignments or []), comments=True), end="")


@config_app.command("check")
def config_check(file: File) -> None:
    """Read a file of settings as melcodec train --config does, and print what differs from the defaults."""
    from melcodec.config import RunConfig, flat, parse, read_toml

    settings = parse(RunConfig, read_toml(file), str(file))
    defaults = flat(RunConfig().model_dump())
    different = [(key, value) for key, value in flat(settings.model_dump()).items() if value != defaults.get(key)]
    for key, value in different:
        print(f"{key} = {json.dumps(value)}  # default: {json.dumps(defaults.get(key))}")
    say(f"{file}: fine, {len(different)} settings differ from the defaults")


def first_comment(text: str) -> str:
    """The first line of a TOML file, which says what it is for."""
    return text.partition("\n")[0].removeprefix("#").strip()
