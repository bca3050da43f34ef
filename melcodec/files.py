"""Writing files so that a reader never sees half of one: aside first, then renamed into place."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melcodec.errors import MelcodecError


def cache_root() -> Path:
    """``$MELCODEC_CACHE``, or ``melcodec`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MELCODEC_CACHE") or Path(base) / "melcodec")


def check_output(path: Path, overwrite: bool) -> None:
    """Raise MelcodecError when ``path`` is a folder or a device, or exists and must stay. Ask before long work."""
    if path.is_dir():
        raise MelcodecError(f"{path}: is a folder; an output file was expected", code="exists")
    if path.exists() and not path.is_file():  # renaming over a device such as /dev/null would replace it
        raise MelcodecError(f"{path}: is not a regular file", "write to a file, then copy it there", "exists")
    if path.exists() and not overwrite:
        raise MelcodecError(f"{path}: exists already", "add -f to overwrite it", "exists")


@contextmanager
def written_aside(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path``, with its suffix, that becomes ``path`` when the block ends well.

    Missing parent folders are made. When the block raises, nothing is left behind.

    Raises:
        MelcodecError: ``path`` exists and ``overwrite`` is False, it cannot be written, or the disk is full.
    """
    try:
        check_output(path, overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:32]}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _explained(path, error) from None
    aside = Path(name)
    try:
        aside.chmod(0o666 & ~_umask())  # mkstemp makes private files; the result should look like any other
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _explained(path, error) from None
    finally:
        aside.unlink(missing_ok=True)


def _explained(path: Path, error: OSError) -> MelcodecError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space; what was there before is unchanged"
        return MelcodecError(f"{path}: the disk is full", hint, "unwritable")
    return MelcodecError(f"{path}: cannot be written: {error.strerror or error}", code="unwritable")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut (POSIX; other systems do not open folders)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
