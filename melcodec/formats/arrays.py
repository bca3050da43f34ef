"""One array and what is known about it, as .npy, .npz or .safetensors; pickle is never used.

``.npy`` carries the array alone. ``.npz`` has the array and one 0-d array per known fact. ``.safetensors`` is
melcodec's container. torch is not needed to read the first two, nor the third one's header.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.container import read_container, read_header, write_container

NPY_MAGIC, ZIP_MAGIC = np.lib.format.MAGIC_PREFIX, b"PK"
# what numpy and zipfile raise on the way through damaged bytes: RuntimeError for members that claim to be encrypted,
# MemoryError for shapes that fit nowhere
DAMAGE = (ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)
SUFFIXES = (".npy", ".npz", ".safetensors")
Facts = dict[str, "int | float | str | None"]


@dataclass(frozen=True)
class ArrayHeader:
    """What a file's header says; ``facts`` are those beside the array."""

    shape: tuple[int, ...]
    dtype: str
    facts: Facts


def write_array(path: Path, name: str, array: np.ndarray, facts: Facts, overwrite: bool = True) -> None:
    """Write ``array`` under ``name`` with the known ``facts`` (None is left out); the suffix picks the format."""
    suffix = array_suffix(path)
    known = {key: value for key, value in facts.items() if value is not None}
    if suffix == ".safetensors":
        import torch

        write_container(path, {name: torch.from_numpy(np.ascontiguousarray(array))}, {"kind": name, **known}, overwrite)
        return
    with written_aside(path, overwrite) as aside, open(aside, "wb") as file:
        if suffix == ".npy":
            np.save(file, array, allow_pickle=False)
        else:
            members: dict[str, Any] = {name: array, **{key: np.array(value) for key, value in known.items()}}
            np.savez(file, **members)


def read_array(path: Path, name: str) -> tuple[np.ndarray, Facts]:
    """The array ``name`` of ``path`` and the facts beside it.

    Raises:
        MelcodecError: missing, unreadable, needs pickle, or holds something else.
    """
    if array_suffix(path) == ".safetensors":
        meta, tensors = read_container(path, name)
        if name not in tensors:
            raise MelcodecError(f"{path}: holds {', '.join(tensors) or 'nothing'}, not {name}", code="damaged")
        return tensors[name].numpy(), meta
    with _opened(path) as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, {}
        with loaded:
            if name not in loaded.files:
                raise MelcodecError(f"{path}: holds {', '.join(loaded.files) or 'nothing'}, not {name}")
            array = loaded[name]
            if not isinstance(array, np.ndarray):  # a member that is no array is given as its bytes
                raise ValueError(f"{name} is no array")
            return array, {key: loaded[key].item() for key in loaded.files if key != name and np.ndim(loaded[key]) == 0}


def read_array_header(path: Path) -> tuple[str | None, ArrayHeader]:
    """The array's name (None for .npy, which has none) and its header, without reading the array or importing torch."""
    if array_suffix(path) == ".safetensors":
        meta, entries = read_header(path)
        entry = entries.get(meta["kind"], {"shape": (), "dtype": ""})
        return meta["kind"], ArrayHeader(tuple(entry["shape"]), entry["dtype"], meta)
    with _opened(path) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return None, ArrayHeader(*_read_npy_header(file), {})
        facts: Facts = {}
        name, header = None, ArrayHeader((0,), "", facts)
        with zipfile.ZipFile(file) as members:
            for member in members.namelist():
                with members.open(member) as stream:
                    shape, dtype = _read_npy_header(stream)
                    if shape and name is None:
                        name, header = member.removesuffix(".npy"), ArrayHeader(shape, dtype, facts)
                if not shape:
                    with members.open(member) as stream:
                        facts[member.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False).item()
        return name, header


def array_suffix(path: Path) -> str:
    """The suffix of ``path`` in lower case; MelcodecError when it is none of ``SUFFIXES``."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MelcodecError(f"{path}: '{suffix or path.name}' is no array format", f"use one of {', '.join(SUFFIXES)}")
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
        raise MelcodecError(f"{path}: is a folder, not a file")
    try:
        with path.open("rb") as file:
            if not file.read(len(NPY_MAGIC)).startswith((NPY_MAGIC, ZIP_MAGIC)):
                raise MelcodecError(f"{path}: not a numpy file")
            file.seek(0)
            yield file
    except FileNotFoundError:
        raise MelcodecError(f"{path}: no such file") from None
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None
    except DAMAGE as error:
        if "object arrays" in str(error).lower():
            raise MelcodecError(
                f"{path}: holds pickled objects, which melcodec does not load", "save it as a plain integer or float array"
            ) from None
        raise MelcodecError(f"{path}: damaged ({error})") from None
