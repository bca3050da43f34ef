"""Patterns as a shell would read them, quoted so that it does not: ``data/**/*.flac``, ``shard-{000..099}.tar``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path

from melcodec.audio.io import find_audio
from melcodec.errors import MelcodecError, from_os
from melcodec.manifests.names import folder_of, joined, relative_names

WILD = re.compile(r"[*?\[{]")
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_pattern(source: str) -> bool:
    """Whether ``source`` holds a ``*``, ``?``, ``[`` or ``{``."""
    return WILD.search(source) is not None


def fixed_folder(pattern: str) -> str:
    """The folder before the first wild part: ``data`` of ``data/**/*.flac``, empty for ``*.wav``."""
    wild = WILD.search(pattern)
    return folder_of(pattern[: wild.start()] if wild else pattern)


def matching(pattern: str) -> list[str]:
    """Files that ``pattern`` stands for, sorted; braces are opened first, and a name that they spell out must be there.

    Hidden files are passed over. ``**`` goes into folders as melcodec does everywhere: not in circles, and to audio only.

    Raises:
        MelcodecError: nothing is there, or a folder on the way cannot be entered (``glob.glob`` would pass it over).
    """
    found: dict[str, None] = {}
    for each in open_braces(pattern):
        if not is_pattern(each):
            if not Path(each).is_file():
                raise MelcodecError(f"{each}: no such file", f"it is one of {pattern}")
            found[each] = None
        elif "**" in Path(each).parts:
            found |= dict.fromkeys(_deep(each))
        else:
            start = os.sep if each.startswith("/") else ""
            found |= dict.fromkeys(_shallow(start, [part for part in each.split("/") if part]))
    if not found:
        raise MelcodecError(f"no file matches '{pattern}'", "'**' goes into folders: 'data/**/*.flac'")
    return sorted(found)


def open_braces(pattern: str) -> list[str]:
    """``a{1,2}`` -> ``a1``, ``a2``; ``a{08..11}`` -> ``a08`` ... ``a11``, as wide as the wider end when that has zeros."""
    braces = BRACES.search(pattern)
    if braces is None:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [one for word in _words(braces[1]) for one in open_braces(f"{before}{word}{after}")]


def _words(inside: str) -> list[str]:
    limits = RANGE.fullmatch(inside)
    if limits is None:
        return inside.split(",")
    first, last = limits.groups()
    padded = any(limit.startswith("0") and len(limit) > 1 for limit in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]


def _shallow(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Files below ``folder`` (empty: where the user stands) whose path fits ``parts``, none of which is ``**``."""
    name, *rest = parts
    if not is_pattern(name):
        paths = [joined(folder, name)]
    else:
        try:
            names = sorted(os.listdir(folder or "."))  # noqa: PTH208  names, not paths
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise from_os(error) from None
        paths = [joined(folder, each) for each in names if fnmatch(each, name) and not each.startswith(".")]
    for path in paths:
        if rest:
            yield from _shallow(path, rest)
        else:
            try:
                there = Path(path).is_file()
            except OSError as error:
                raise from_os(error) from None
            if there:
                yield path


def _deep(pattern: str) -> list[str]:
    folder = fixed_folder(pattern)
    rest = pattern[len(joined(folder, "")) :].split("/")
    paths = [str(path) for path in find_audio(Path(folder))] if Path(folder).is_dir() else []
    names = relative_names(paths, str(Path(folder)) if folder else "")
    return [path for path, name in zip(paths, names, strict=True) if _fits(name.split("/"), rest)]


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_fits(names[skipped:], patterns[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])
