"""``-`` in place of a file: standard input and output as files of a temporary folder, where readers seek and writers rename."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from melcodec.errors import MelcodecError

STANDARD = "-"
_folders: list[Path] = []  # at most one; it goes when the command ends
_outputs: list[Path] = []


class Closed(io.TextIOBase):
    """Standard output that was closed before the program began: writing to it fails as it does in other programs."""

    def write(self, text: str) -> int:
        """Fail, unless there is nothing to write."""
        if text:
            raise OSError(errno.EBADF, "standard output is closed")
        return 0


def mend_streams() -> None:
    """Open the null device for closed standard streams, so that no file that is opened later takes their numbers."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")


def is_standard(path: str | Path | None) -> bool:
    """Whether ``path`` stands for standard input or output."""
    return str(path) == STANDARD


def output_file(output: Path, suffix: str) -> Path:
    """``output``; for ``-`` a file with ``suffix`` whose content goes to standard output when the command has ended.

    Raises:
        MelcodecError: standard output is a terminal.
    """
    if not is_standard(output):
        return output
    refuse_terminal()
    path = _folder() / f"standard output{suffix}"
    _outputs.append(path)
    return path


def refuse_terminal() -> None:
    """Raise MelcodecError when standard output is a terminal, where bytes would be shown as text."""
    if sys.stdout.isatty():
        raise MelcodecError(
            "-o -: standard output is a terminal, and the output is not text",
            "give a file, or pipe the output into another program",
        )


def input_file(source: Path) -> Path:
    """``source``; for ``-`` a copy of standard input on disk, with the suffix that its first bytes tell."""
    if not is_standard(source):
        return source
    path = _folder() / "standard input"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    named = path.with_suffix(_suffix(path))
    path.rename(named)
    return named


def _suffix(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"\x93NUMPY"):
        return ".npy"
    if start.startswith(b"PK"):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            return ".pth" if any(name.endswith("data.pkl") for name in archive.namelist()) else ".npz"
    return ".safetensors" if start[8:9] == b"{" else ""


def send_outputs() -> None:
    """Copy what was written for standard output to it."""
    for path in _outputs:
        if path.exists():
            with path.open("rb") as file:
                shutil.copyfileobj(file, getattr(sys.stdout, "buffer", _NoBytes()))
    _outputs.clear()


class _NoBytes(io.RawIOBase):
    def write(self, content: object) -> int:
        raise OSError(errno.EBADF, "standard output is closed")


def clean_up() -> None:
    """Remove the temporary folder."""
    _outputs.clear()
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def plain(text: str) -> str:
    """``text`` with ``standard input`` and ``standard output`` in place of their temporary files."""
    for folder in _folders:
        for name in ("standard input", "standard output"):
            for suffix in (".npy", ".npz", ".safetensors", ".pth", ".json", ".png", ".wav", ".flac", ".ogg", ".mp3", ".svg", ""):
                text = text.replace(f"{folder / name}{suffix}", name)
    return text


def _folder() -> Path:
    if not _folders:
        _folders.append(Path(tempfile.mkdtemp(prefix="melcodec-")))
    return _folders[0]
