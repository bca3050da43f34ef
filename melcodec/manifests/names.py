"""What utterances are called, and which set a folder or a list says they belong to.

Paths are strings in this package: a list may hold millions, and making a Path takes longer than the rest of its row.
"""

# ruff: noqa: PTH100, PTH118, PTH120, PTH122

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
FIRST_WORD = re.compile(r"[a-z]+")


def split_called(name: str) -> str:
    """The set that ``name`` stands for: ``dev``, ``dev-clean`` and ``Validation`` are ``valid``; empty for other names."""
    first = FIRST_WORD.match(name.lower())
    return SPLITS.get(first[0], "") if first else ""


def stem(name: str) -> str:
    """``name`` without its last suffix; dots in folders stay."""
    return os.path.splitext(name)[0]


def joined(folder: str, path: str) -> str:
    """``path`` as seen from ``folder``; empty is where the user stands."""
    return os.path.join(folder, path)


def folder_of(path: str) -> str:
    """The folder part of ``path``, empty for a bare name."""
    return os.path.dirname(path)


def absolute(path: str) -> str:
    """``path`` from the root on, links as they are."""
    return os.path.abspath(path)


def ids_of(names: Sequence[str]) -> list[str]:
    """Ids of files by their relative names: without suffix, unless two differ by nothing else.

    Bytes that are no UTF-8 become ``\\xNN``: such a name cannot be written to Parquet or JSON.
    """
    stems = [stem(name) for name in names]
    seen = Counter(stems)
    return [_writable(short if seen[short] == 1 else name) for short, name in zip(stems, names, strict=True)]


def _writable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def relative_names(paths: Iterable[str | os.PathLike[str]], folder: str) -> list[str]:
    """``paths``, all below ``folder``, as seen from there, with ``/`` between folders."""
    start = len(joined(folder, ""))
    return [os.fspath(path)[start:].replace(os.sep, "/") for path in paths]


def common_folder(paths: Iterable[str]) -> str:
    """The deepest folder, absolute, that holds all of ``paths``."""
    return os.path.commonpath({folder_of(absolute(path)) for path in paths})
