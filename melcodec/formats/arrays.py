"""One array and what is known about it, as .npy, .npz or .safetensors; pickle is never used.

``.npy`` carries the array alone. ``.npz`` has the array and one 0-d array per known fact. ``.safetensors`` is
melcodec's container. torch is not needed to read the first two, nor the third one's header.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.container import read_container, read_header, write_container

SUFFIXES = (".npy", ".npz", ".safetensors")
Facts = dict[str, "int | float | str | None"]


@dataclass(frozen=True)
class ArrayHeader:
    """What a file says without its array being read."""

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
            np.savez(file, allow_pickle=False, **{name: array}, **{k: np.array(v) for k, v in known.items()})


def read_array(path: Path, name: str) -> tuple[np.ndarray, Facts]:
    """The array ``name`` of ``path`` and the facts beside it.

    Raises:
        MelcodecError: missing, unreadable, needs pickle, or holds something else.
    """
    if array_suffix(path) == ".safetensors":
        meta, tensors = read_container(path, name)
        return tensors[name].numpy(), meta
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        return loaded, {}
    with loaded:
        if name not in loaded.files:
            raise MelcodecError(f"{path}: holds {', '.join(loaded.files) or 'nothing'}, not {name}")
        try:
            return loaded[name], {key: loaded[key].item() for key in loaded.files if key != name and loaded[key].ndim == 0}
        except (ValueError, zipfile.BadZipFile) as error:
            raise _unreadable(path, error) from None


def read_array_header(path: Path) -> tuple[str | None, ArrayHeader]:
    """The array's name (None for .npy, which has none) and its header, without importing torch."""
    if array_suffix(path) == ".safetensors":
        meta, entries = read_header(path)
        entry = entries.get(meta["kind"], {"shape": (), "dtype": ""})
        return meta["kind"], ArrayHeader(tuple(entry["shape"]), entry["dtype"], meta)
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        return None, ArrayHeader(loaded.shape, str(loaded.dtype), {})
    with loaded:
        names = [key for key in loaded.files if loaded[key].ndim]
        name = names[0] if names else None
        array = loaded[name] if name else np.empty(0)
        facts = {key: loaded[key].item() for key in loaded.files if loaded[key].ndim == 0}
        return name, ArrayHeader(array.shape, str(array.dtype), facts)


def array_suffix(path: Path) -> str:
    """The suffix of ``path`` in lower case; MelcodecError when it is none of ``SUFFIXES``."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MelcodecError(f"{path}: '{suffix or path.name}' is no array format", f"use one of {', '.join(SUFFIXES)}")
    return suffix


def _load(path: Path) -> Any:
    if not path.exists():
        raise MelcodecError(f"{path}: no such file")
    if path.is_dir():
        raise MelcodecError(f"{path}: is a folder, not a file")
    try:
        # from memory: numpy leaves a file open when it turns out not to be a zip
        return np.load(BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None


def _unreadable(path: Path, error: Exception) -> MelcodecError:
    if "pickle" in str(error).lower() and path.suffix == ".npy" and path.read_bytes()[:6] != b"\x93NUMPY":
        return MelcodecError(f"{path}: not a numpy file")
    if "pickle" in str(error).lower() or "object" in str(error).lower():
        return MelcodecError(
            f"{path}: holds pickled objects, which melcodec does not load", "save it as a plain integer or float array"
        )
    return MelcodecError(f"{path}: damaged ({error})")
