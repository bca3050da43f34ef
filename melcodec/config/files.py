"""Settings as TOML: presets, recipes, assignments of the command line, and files with comments."""

from __future__ import annotations

import difflib
import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from melcodec.config.base import ConfigT, members, parse
from melcodec.config.run import RunConfig
from melcodec.errors import MelcodecError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPE_GROUPS = ("optimizer", "objective", "model.quantizer", "model.backbone")  # that recipes are shipped for
RECIPES_FOR = {"inner": "quantizer"}  # groups whose recipes are those of another group


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; MelcodecError when it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MelcodecError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MelcodecError(f"{path}: not readable as TOML: {error}") from None


def preset_texts(group: str = "") -> dict[str, str]:
    """The shipped presets by name, as TOML with comments; or the recipes for one group of settings: ``optimizer``."""
    folder = resources.files("melcodec.presets")
    folder = folder.joinpath(f"{group}s") if group else folder
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")] if folder.is_dir() else []
    return {entry.name[:-5]: entry.read_text(encoding="utf-8") for entry in sorted(found, key=lambda entry: entry.name)}


def preset_names() -> list[str]:
    """The shipped presets, sorted."""
    return list(preset_texts())


def load_preset(name: str) -> RunConfig:
    """The shipped preset ``name``; MelcodecError names the others when there is none."""
    return parse(RunConfig, _shipped(name, "preset", preset_texts()), f"preset {name}")


def _shipped(name: str, noun: str, texts: dict[str, str]) -> dict[str, Any]:
    if name not in texts:
        near = difflib.get_close_matches(name, texts, n=1)
        raise MelcodecError(f"no {noun} '{name}'", f"did you mean '{near[0]}'?" if near else f"{noun}s: {', '.join(texts)}")
    return tomllib.loads(texts[name])


def with_overrides(config: ConfigT, assignments: list[str]) -> ConfigT:
    """``config`` with ``a.b=value`` assignments applied, in order; values are read as TOML, bare words as strings.

    A word where a group of settings stands is the name of a shipped recipe that replaces the group: ``optimizer=finetune``.
    """
    data = config.model_dump()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise MelcodecError(f"--set {assignment}: not of the form key=value")
        *parents, leaf = key.strip().split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise MelcodecError(f"--set {assignment}: '{parent}' is a value, not a group of settings")
        value = _toml_value(text)
        if isinstance(node.get(leaf), dict) and isinstance(value, str):
            value = _recipe(value, leaf, node[leaf], assignment)
            node[leaf] = _filled(type(config), key.strip(), value)
        elif leaf == "kind" and node.get("kind", value) != value and _kinds(_annotation(".".join(parents), type(config))):
            node.clear()  # the settings of one kind mean nothing to another
            node.update(_filled(type(config), ".".join(parents), {"kind": value}))
        else:
            node[leaf] = value
    return parse(type(config), data, "--set")


def _filled(root: type[BaseModel], group: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """``chosen`` settings of a group, with the defaults of its kind for the others."""
    kind = _kinds(_annotation(group, root)).get(chosen.get("kind", ""))
    return {**kind.model_dump(), **chosen} if kind else chosen


def _recipe(name: str, group: str, now: dict[str, Any], assignment: str) -> dict[str, Any]:
    """The settings of the recipe ``name`` for a group, or a kind of group by its name alone."""
    recipes = preset_texts(RECIPES_FOR.get(group, group))
    if recipes:
        return _shipped(name, f"{RECIPES_FOR.get(group, group)} recipe", recipes)
    if "kind" in now:
        return {"kind": name}
    key = assignment.partition("=")[0].strip()
    raise MelcodecError(f"--set {assignment}: '{group}' is a group of settings", f"set one of them: {key}.NAME=VALUE")


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(config: BaseModel, comments: bool = False, name: str = "") -> str:
    """``config`` as TOML, one table per group, in declaration order.

    Args:
        comments: say what each key means.
        name: of the group that ``config`` is, when it is not a whole run.
    """
    lines: list[str] = []
    root = RunConfig if name else type(config)

    def table(name: str, model: BaseModel) -> None:
        values = {key: getattr(model, key) for key in type(model).model_fields}
        plain = {key: value for key, value in values.items() if not isinstance(value, BaseModel)}
        if name and plain:
            lines.append(f"[{name}]")
        # JSON's scalars and arrays are TOML's too
        words = {key: f"{key} = {json.dumps(value)}" for key, value in plain.items()}
        said = {key: _explained(type(model).model_fields[key]) if comments else "" for key in plain}
        if comments and name and "kind" in plain:
            said["kind"] = " | ".join(_kinds(_annotation(name, root)) or [said["kind"]])
        lines.extend(f"{line:<24}  # {said[key]}" if said[key] else line for key, line in words.items())
        if plain:
            lines.append("")
        for key, value in values.items():
            if isinstance(value, BaseModel):
                table(f"{name}.{key}" if name else key, value)

    table(name, config)
    return "\n".join(lines)


def kinds_of(group: str) -> dict[str, BaseModel]:
    """The kinds that ``model.backbone``, ``model.quantizer`` or another group may be, each with its default settings.

    Raises:
        MelcodecError: no such group, or one that has a single kind.
    """
    kinds = _kinds(_annotation(group))
    if not kinds:
        raise MelcodecError(f"'{group}' has a single kind", "melcodec config show base explains its settings")
    return kinds


def _annotation(group: str, root: type[BaseModel] = RunConfig) -> Any:
    """The type of a group of settings; a quantizer inside a quantizer may be any quantizer."""
    node: Any = root
    for key in group.split("."):
        if key in RECIPES_FOR:
            continue
        fields: dict[str, FieldInfo] = getattr(node, "model_fields", {})
        if key not in fields:
            raise MelcodecError(f"there is no group of settings '{group}'", "melcodec config show base lists them")
        node = fields[key].annotation
    return node


def _kinds(annotation: Any) -> dict[str, BaseModel]:
    """The members of a union of groups by kind, with their default settings; none when it is no union."""
    kinds = {}
    for kind, member in members(annotation).items():
        required = {key: "" for key, field in member.model_fields.items() if field.is_required()}  # to be given
        kinds[kind] = member.model_construct(**required)
    return kinds


def _explained(field: FieldInfo) -> str:
    """What a field means, and the words it may hold."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return "; ".join(filter(None, [" | ".join(choices), field.description]))
