"""Walking through folders: which files are taken, what else lies there, and which folders cannot be entered."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from melcodec.errors import MelcodecError, from_os

SYSTEM_FOLDERS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})  # at the top of a disk; not the user's
SHOWN_KINDS = 6  # of what was not taken
# what melcodec itself writes beside outputs: what each was made from, and what failed
OUTPUTS, FAILURES = ".melcodec.jsonl", "failures.jsonl"
OWN = frozenset({OUTPUTS, FAILURES})  # neither taken nor counted


@dataclass
class Found:
    """What lies in one or several folders.

    Args:
        files: those that were asked for, sorted by path.
        others: how many entries of each other kind there are: by suffix, or by a word such as ``hidden``.
        closed: the folders that could not be entered, and why.
    """

    files: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    closed: dict[Path, MelcodecError] = field(default_factory=dict)

    def checked(self) -> list[Path]:
        """The files; MelcodecError when a folder could not be entered, so that nothing in it is lost in silence."""
        if self.closed:
            first = next(iter(self.closed.values()))
            more = f" (and {len(self.closed) - 1} more folders)" if len(self.closed) > 1 else ""
            raise MelcodecError(first.message + more, first.hint, first.code)
        return self.files

    def add(self, other: Found) -> None:
        """Take in what another folder holds."""
        self.files += other.files
        self.others += other.others
        self.closed |= other.closed

    def not_taken(self, wanted: str) -> str:
        """``not taken for audio: 12 .txt, 3 .pdf, 1 hidden``; empty when everything was taken.

        Args:
            wanted: what the files were looked through for: ``audio`` or ``codes``.
        """
        if not self.others:
            return ""
        kinds = self.others.most_common()
        words = [f"{count} {kind}" for kind, count in kinds[:SHOWN_KINDS]]
        if rest := sum(count for _, count in kinds[SHOWN_KINDS:]):
            words.append(f"{rest} of other kinds")
        return f"not taken for {wanted}: {', '.join(words)}"


def walk(folder: Path, wanted: Callable[[Path], bool]) -> Found:
    """Every regular file below ``folder`` that ``wanted`` says yes to.

    Links are followed, though never in circles. Hidden files and folders, pipes and devices are counted and passed over.
    The folders that systems keep at the top of a disk, and the lists that melcodec writes, are passed over without being counted.
    """
    found = Found()

    def closed(error: OSError) -> None:
        reason = from_os(error)
        hint = "change the folder's permissions, or name only the folders to read"
        found.closed[Path(error.filename)] = MelcodecError(reason.message, hint, reason.code)

    for root, folders, names in os.walk(folder, onerror=closed, followlinks=True):
        kept = []
        for name in folders:
            kind = _kind_of_folder(Path(root), name)
            if kind:
                found.others[kind] += 1
            elif name not in SYSTEM_FOLDERS:
                kept.append(name)
        folders[:] = sorted(kept)
        for name in names:
            if name in OWN:
                continue
            path = Path(root, name)
            if kind := _kind(path, wanted):
                found.others[kind] += 1
            else:
                found.files.append(path)
    found.files.sort()
    return found


def _kind_of_folder(root: Path, name: str) -> str:
    """Why a folder is not entered; empty when it is."""
    if name.startswith("."):
        return "hidden"
    return "links back to a folder above" if _is_loop(root, name) else ""


def _kind(path: Path, wanted: Callable[[Path], bool]) -> str:
    """What a file that is not taken is counted as; empty for one that is taken."""
    if path.name.startswith("."):
        return "hidden"
    if not wanted(path):
        return path.suffix.lower() or "without a suffix"
    try:
        return "" if stat.S_ISREG(path.stat().st_mode) else "pipes or devices"
    except OSError:  # a broken link, or a folder that only lists its files: reading the file gives the error
        return ""


def _is_loop(root: Path, name: str) -> bool:
    child = root / name
    if not os.path.islink(child):  # noqa: PTH114  pathlib raises where a folder does not let its entries be looked at
        return False
    target = child.resolve()
    # the second: folders that link to each other
    return root.resolve().is_relative_to(target) or any(parent.resolve() == target for parent in root.parents)
