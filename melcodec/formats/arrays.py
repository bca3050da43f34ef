"""One array and what is known about it, as .npy, .npz or .safetensors; pickle is never used.

``.npy`` carries the array alone. ``.npz`` has the array and one small array per known fact. ``.safetensors`` is melcodec's
container. The latter two carry a checksum of the array and of the facts, which is compared when they are read; files that
an older melcodec wrote have none. torch is not needed.
"""

from __future__ import annotations

import hashlib
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.container import read_container_array, read_header, write_container

NPY_MAGIC, ZIP_MAGIC = np.lib.format.MAGIC_PREFIX, b"PK"
# what numpy and zipfile raise on the way through damaged bytes: RuntimeError for members that claim to be encrypted,
# MemoryError for shapes that fit nowhere
DAMAGE = (ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)
SUFFIXES = (".npy", ".npz", ".safetensors")
CHECKSUM = "checksum"
ABOUT_THE_FILE = ("kind", "format", CHECKSUM)  # what is no fact about the array
MAX_FACT = 1024  # numbers; a larger array beside the first one is no fact
Facts = dict[str, "int | float | str | list[int] | None"]


@dataclass(frozen=True)
class ArrayHeader:
    """What a file's header says; ``facts`` are those beside the array."""

    shape: tuple[int, ...]
    dtype: str
    facts: Facts


def write_array(path: Path, name: str, array: np.ndarray, facts: Facts, overwrite: bool = True) -> None:
    """Write ``array`` under ``name`` with the known ``facts`` (None is left out); the suffix picks the format."""
    suffix = array_suffix(path)
    array = np.ascontiguousarray(array)
    known = {key: value for key, value in facts.items() if value is not None}
    known[CHECKSUM] = checksum(array, known)
    if suffix == ".safetensors":
        write_container(path, {name: array}, {"kind": name, **known}, overwrite)
        return
    with written_aside(path, overwrite) as aside, open(aside, "wb") as file:
        if suffix == ".npy":
            np.save(file, array, allow_pickle=False)
        else:
            members: dict[str, Any] = {name: array, **{key: np.array(value) for key, value in known.items()}}
            np.savez(file, **members)


def checksum(array: np.ndarray, facts: Mapping[str, Any]) -> str:
    """16 hex digits of SHA-256 over type, shape and content of ``array`` and over ``facts``."""
    head = json.dumps([array.dtype.name, array.shape, facts], sort_keys=True)
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return hashlib.sha256(head.encode() + little.tobytes()).hexdigest()[:16]


def read_array(path: Path, name: str) -> tuple[np.ndarray, Facts]:
    """The array ``name`` of ``path`` and the facts beside it.

    Raises:
        MelcodecError: missing, unreadable, damaged, needs pickle, or holds something else.
    """
    array, known = _read(path, name)
    facts = _facts(known)
    if known.get(CHECKSUM) not in (None, checksum(array, facts)):
        hint = "make it again, or put it back from a copy"
        raise MelcodecError(f"{path}: damaged: its content does not agree with its checksum", hint, "damaged")
    return array, facts


def _read(path: Path, name: str) -> tuple[np.ndarray, Facts]:
    if array_suffix(path) == ".safetensors":
        meta, array = read_container_array(path, name)
        return array, meta
    with _opened(path) as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, {}
        with loaded:
            if name not in loaded.files:
                held = ", ".join(key for key in loaded.files if key not in ABOUT_THE_FILE) or "nothing"
                raise MelcodecError(f"{path}: holds {held}, not {name}", code="unreadable")
            array = loaded[name]
            if not isinstance(array, np.ndarray):  # a member that is no array is given as its bytes
                raise ValueError(f"{name} is no array")
            others = {key: loaded[key] for key in loaded.files if key != name}
            return array, {key: value.tolist() for key, value in others.items() if _is_fact(np.shape(value))}


def read_array_header(path: Path) -> tuple[str | None, ArrayHeader]:
    """The array's name (None for .npy, which has none) and its header, without reading the array or importing torch."""
    if array_suffix(path) == ".safetensors":
        meta, entries = read_header(path)
        entry = entries.get(meta["kind"], {"shape": (), "dtype": ""})
        return meta["kind"], ArrayHeader(tuple(entry["shape"]), entry["dtype"], _facts(meta))
    with _opened(path) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return None, ArrayHeader(*_read_npy_header(file), {})
        facts: Facts = {}
        name, header = None, ArrayHeader((0,), "", facts)
        with zipfile.ZipFile(file) as members:
            for member in members.namelist():
                key = member.removesuffix(".npy")
                with members.open(member) as stream:
                    shape, dtype = _read_npy_header(stream)
                if shape and name is None:
                    name, header = key, ArrayHeader(shape, dtype, facts)
                elif _is_fact(shape) and key not in ABOUT_THE_FILE:
                    with members.open(member) as stream:
                        facts[key] = np.lib.format.read_array(stream, allow_pickle=False).tolist()
        return name, header


def _facts(meta: dict[str, Any]) -> Facts:
    return {key: value for key, value in meta.items() if key not in ABOUT_THE_FILE}


def _is_fact(shape: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` that stands beside another is something that is known about it."""
    return not shape or (len(shape) == 1 and shape[0] <= MAX_FACT)


def array_suffix(path: Path) -> str:
    """The suffix of ``path`` in lower case; MelcodecError when it is not one of ``SUFFIXES``."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MelcodecError(f"{path}: '{suffix or path.name}' is not a format for arrays", f"use one of {', '.join(SUFFIXES)}")
    return suffix


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of the array that begins here."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("object arrays")
    return shape, str(dtype)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A .npy or .npz file, open; whatever goes wrong while it is read becomes a MelcodecError."""
    if path.is_dir():
        raise MelcodecError(f"{path}: is a folder, not a file", code="unreadable")
    try:
        with path.open("rb") as file:
            if not file.read(len(NPY_MAGIC)).startswith((NPY_MAGIC, ZIP_MAGIC)):
                raise MelcodecError(f"{path}: not a numpy file", code="unreadable")
            file.seek(0)
            yield file
    except FileNotFoundError:
        raise MelcodecError(f"{path}: no such file", code="missing") from None
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}", code="unreadable") from None
    except DAMAGE as error:
        if "object arrays" in str(error).lower():
            hint = "save it as a plain integer or float array"
            raise MelcodecError(f"{path}: holds pickled objects, which melcodec does not load", hint, "unreadable") from None
        raise MelcodecError(f"{path}: damaged ({error})", code="damaged") from None
