"""Where bytes of audio come from: a path, standard input, a pipe, a URL, an open file, or a member of a tar archive."""

from __future__ import annotations

import errno
import gzip
import lzma
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import IO

from melcodec.errors import MelcodecError

STDIN = "-"
Source = str | Path | IO[bytes]


def named(source: Source, member: str = "") -> str:
    """What messages call it: ``shard.tar: a/b.flac``."""
    if isinstance(source, (str, Path)):
        name = "standard input" if str(source) == STDIN else str(source)
    else:
        name = source.name if isinstance(getattr(source, "name", None), str) else "the file object"
    return f"{name}: {member}" if member else name


@contextmanager
def opened(source: Source, member: str = "") -> Iterator[Path | IO[bytes]]:
    """The path of a plain file, or a copy of anything else on disk: decoders must seek, and the input may be hours long.

    Args:
        source: a path, ``-`` for standard input, a URL, which fsspec opens, or a file that is open in binary mode and is read
            from where it stands.
        member: name of a file inside the tar archive ``source``.

    Raises:
        MelcodecError: no such file or member, an empty one, not an archive, a URL or open file that cannot be read.
        OSError: the folder for temporary files is full.
    """
    if not isinstance(source, (str, Path)) and not hasattr(source, "read"):
        message = f"{type(source).__name__} given where a file name is expected"
        raise MelcodecError(message, "a path, a URL, or a file opened for reading in binary mode; bytes: io.BytesIO(data)")
    streamed = _streamed(source, member)
    if streamed is None:
        assert isinstance(source, (str, Path))
        yield _existing(source)
        return
    with tempfile.TemporaryFile() as spool:
        with streamed as stream:
            shutil.copyfileobj(stream, spool)
        if spool.tell() == 0:
            raise MelcodecError(f"{named(source, member)}: is empty", code="unreadable")
        spool.seek(0)
        yield spool


def _streamed(source: Source, member: str) -> AbstractContextManager[IO[bytes]] | None:
    """What must be copied before it is decoded; None for a plain file."""
    if not isinstance(source, (str, Path)):
        return _open_file(source)
    if str(source) == STDIN:
        return nullcontext(sys.stdin.buffer)
    if member:
        return _member(str(source), member)
    if is_url(source):
        return _remote(str(source))
    if Path(source).is_fifo():  # what a shell's <(command) is
        return open(source, "rb")
    return None


def is_url(source: Source) -> bool:
    """Whether fsspec is asked for it: ``s3://bucket/a.flac``."""
    return isinstance(source, str) and "://" in source


def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.exists():
        raise MelcodecError(f"{path}: no such file", code="missing")
    if path.is_dir():
        raise MelcodecError(f"{path}: is a folder, not a file", code="unreadable")
    if path.stat().st_size == 0:
        raise MelcodecError(f"{path}: the file is empty", code="unreadable")
    return path


@contextmanager
def _open_file(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """``file``, which a caller opened and will close."""
    try:
        yield file
    except (ValueError, TypeError) as error:  # closed by now, only for writing, or in text mode
        hint = "open it for reading in binary mode: open(path, 'rb')"
        raise MelcodecError(f"{named(file)}: cannot be read ({error})", hint, "unreadable") from None


@contextmanager
def _remote(url: str) -> Iterator[IO[bytes]]:
    try:
        fsspec = import_module("fsspec")  # it brings no types
    except ImportError:
        hint = "pip install 'melcodec[remote]'"
        raise MelcodecError(f"{url}: reading a URL needs an optional package", hint, "needs-package") from None
    try:
        with fsspec.open(url, "rb") as stream:
            yield stream
    except MelcodecError:
        raise
    except Exception as error:  # every storage has exceptions of its own
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # there is no room here for the copy
        error = _connection(error) or error
        message = f"{url}: cannot be read ({type(error).__name__}: {error})".replace("\n", " ")
        raise MelcodecError(message, code="unreadable") from None


def _connection(error: BaseException | None) -> OSError | None:
    """The reason why a host was not reached, which fsspec hides behind a FileNotFoundError that only repeats the URL."""
    while isinstance(error, FileNotFoundError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, OSError) else None


@contextmanager
def _archive(name: str) -> Iterator[tarfile.TarFile]:
    try:
        with _remote(name) if is_url(name) else _existing(name).open("rb") as raw, tarfile.open(fileobj=raw) as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        message = f"{name}: not readable as a tar archive ({error})".replace("\n", " ")
        raise MelcodecError(message, code="unreadable") from None


@contextmanager
def _member(name: str, member: str) -> Iterator[IO[bytes]]:
    stat = None if is_url(name) else _existing(name).stat()
    entry = _members(name, stat and (stat.st_size, stat.st_mtime_ns)).get(member)
    if entry is None:
        raise MelcodecError(f"{name}: holds no file '{member}'", code="missing")
    with _archive(name) as archive:
        stream = archive.extractfile(entry)
        assert stream is not None  # only folders and the like have none, and _members leaves those out
        yield stream


@lru_cache(maxsize=4)  # finding a member means walking over the whole archive: once per archive, not once per member
def _members(name: str, stamp: tuple[int, int] | None) -> dict[str, tarfile.TarInfo]:
    """The files of an archive by name; ``stamp`` is its size and time, which a changed archive does not share."""
    with _archive(name) as archive:
        return {entry.name: entry for entry in archive if entry.isreg()}
