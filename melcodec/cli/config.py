"""``melcodec config``: settings listed, shown and checked; a file of one's own begins with ``show base > run.toml``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say
from melcodec.cli._standard import input_file, plain

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A preset, or a group of settings that has several kinds, such as model.quantizer.",
        show_default=False,
    ),
]
File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Settings in TOML, as --config takes them; - is standard input.", show_default=False),
]

config_app = typer.Typer(no_args_is_help=True, help="Settings of a training run: list presets, explain every key, check a file.")


@config_app.command("list")
def config_list(as_json: options.AsJSON = False) -> None:
    """Name the presets, and the recipes for groups of settings, a line each."""
    from melcodec.config import RECIPE_GROUPS, preset_texts

    kinds = {"preset": preset_texts()} | {
        group.rpartition(".")[2]: preset_texts(group.rpartition(".")[2]) for group in RECIPE_GROUPS
    }
    found = {kind: {name: first_comment(text) for name, text in texts.items()} for kind, texts in kinds.items()}
    if as_json:
        print(json.dumps(found))
        return
    for kind, comments in found.items():
        for name, comment in comments.items():
            print(f"{kind:<9}  {name:<13}  {comment}")
    say("hint: melcodec config show base > run.toml writes a file that you can edit")
    say(f"hint: --set GROUP=NAME takes a recipe; the groups are {', '.join(RECIPE_GROUPS)}")


@config_app.command("show")
def config_show(name: Name, assignments: options.Assignments = None) -> None:
    """Print a preset as TOML with the meaning of every key, or all kinds of a group such as model.quantizer."""
    from melcodec.config import kinds_of, load_preset, preset_names, to_toml, with_overrides

    if name not in preset_names() and (name == "vocoder" or name.startswith("model.")):
        for settings in kinds_of(name).values():
            print(f"# {(type(settings).__doc__ or '').splitlines()[0]}")
            print(to_toml(settings, comments=True, name=name))
        return
    print(to_toml(with_overrides(load_preset(name), assignments or []), comments=True), end="")


@config_app.command("check")
def config_check(file: File) -> None:
    """Read a file of settings as melcodec train --config does, and print what differs from the defaults."""
    from melcodec.config import RunConfig, flat, parse, read_toml

    file = input_file(file)
    settings = parse(RunConfig, read_toml(file), plain(str(file)))
    defaults = flat(RunConfig().model_dump())
    different = [(key, value) for key, value in flat(settings.model_dump()).items() if value != defaults.get(key)]
    for key, value in different:
        print(f"{key} = {json.dumps(value)}  # default: {json.dumps(defaults.get(key))}")
    say(f"{file}: fine, {len(different)} settings differ from the defaults")


def first_comment(text: str) -> str:
    """The first line of a TOML file, which says what it is for."""
    return text.partition("\n")[0].removeprefix("#").strip()
