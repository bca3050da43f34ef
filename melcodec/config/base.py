"""What all settings share: frozen pydantic models, unions told apart by ``kind``, and errors that name the key."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from melcodec.errors import MelcodecError

# json_schema_extra of a setting of the model that the fingerprint leaves out: what only training uses, and sizes that the
# shapes of the tensors already tell (``formats.fingerprint``)
NOT_IN_CODES: dict[str, Any] = {"decides_codes": False}


class Settings(BaseModel):
    """A group of settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def kind_or(default: str) -> Callable[[Any], Any]:
    """For ``pydantic.Discriminator``: the ``kind`` of a group of settings, ``default`` where none is given."""

    def kind(value: Any) -> Any:
        return value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", None)

    return kind


def members(union: Any) -> dict[str, Any]:
    """The groups of settings that a union of them may be, by kind; none when it is no union."""
    while get_origin(union) is Annotated:
        union = get_args(union)[0]
    plain = [get_args(member)[0] if get_origin(member) is Annotated else member for member in get_args(union)]
    return {each.model_fields["kind"].default: each for each in plain if hasattr(each, "model_fields")}


def decides_codes(field: FieldInfo) -> bool:
    """Whether a setting of the model can change what a code means without changing the shape of a tensor."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("decides_codes") is False)


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings on one level, in order: ``{"data.crop_frames": 128}``."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return result


ConfigT = TypeVar("ConfigT", bound=Settings)


def parse(kind: type[ConfigT], data: dict[str, Any], where: str) -> ConfigT:
    """Validate ``data`` as ``kind``; a wrong key or value raises MelcodecError naming it and ``where`` it stood."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(_keys(first["loc"], data))
        if first["type"] == "value_error":  # a group's own validator: its message is complete
            raise MelcodecError(f"{where}: {key + ': ' if key else ''}{first['ctx']['error']}") from None
        if first["type"] == "union_tag_invalid":
            raise MelcodecError(
                f"{where}: {key}.kind: there is no '{first['ctx']['tag']}'",
                f"kinds: {first['ctx']['expected_tags'].replace(chr(39), '')}",
            ) from None
        if first["type"] == "extra_forbidden":
            name, known = str(first["loc"][-1]), known_keys(kind)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else None
            hint = "it belongs to another group, or to another kind of this one" if name in known else hint
            raise MelcodecError(f"{where}: unknown setting '{key}'", hint) from None
        raise MelcodecError(f"{where}: {key}: {first['msg']}, not {first['input']!r}") from None


def _keys(location: tuple[int | str, ...], data: Any) -> Iterator[str]:
    """The keys of pydantic's ``location``, without the kinds of unions, which are no keys of ``data``."""
    for part in location:
        if isinstance(data, dict) and part not in data:
            continue
        yield str(part)
        data = data[part] if isinstance(data, dict) else None


def known_keys(kind: Any) -> set[str]:
    """Every key of a group of settings and of the groups below it, whatever their kinds."""
    return {key for group in _groups(kind, set()) for key in group.model_fields}


def _groups(annotation: Any, seen: set[Any]) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return seen
        seen.add(annotation)
        for field in annotation.model_fields.values():
            _groups(field.annotation, seen)
    for argument in get_args(annotation):
        _groups(argument, seen)
    return seen
