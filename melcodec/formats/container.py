"""safetensors with ONE metadata key holding ONE JSON string.

safetensors keeps metadata in a hash map, so several keys would be written in random order; one key makes the same
content the same bytes. Headers and arrays are read without torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melcodec.errors import MelcodecError
from melcodec.files import written_aside

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

METADATA_KEY = "melcodec"
FORMAT_VERSION = 1


def write_container(path: Path, tensors: Mapping[str, Any], meta: dict[str, Any], overwrite: bool = True) -> None:
    """Write ``tensors``, all of torch or all of numpy, and ``meta`` (JSON values, among them ``kind``) to ``path``."""
    import numpy as np

    text = {METADATA_KEY: json.dumps({"format": FORMAT_VERSION, **meta}, sort_keys=True, ensure_ascii=False)}
    if all(isinstance(value, np.ndarray) for value in tensors.values()):
        from safetensors.numpy import save as save_arrays

        content = save_arrays({key: np.ascontiguousarray(value) for key, value in tensors.items()}, text)
    else:
        from safetensors.torch import save

        # views over larger storage or transposed layouts would be refused or written whole
        content = save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, text)
    with written_aside(path, overwrite) as aside:
        aside.write_bytes(content)


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The metadata and, per tensor, its dtype and shape, without reading a tensor or importing torch.

    Raises:
        MelcodecError: not a safetensors file, cut short, not one of melcodec's, or from a newer melcodec.
    """
    with _opened(path) as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
        entries = {key: {"dtype": part.get_dtype(), "shape": part.get_shape()} for key, part in slices.items()}
        return _meta(path, file.metadata() or {}), entries


def read_container(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and torch tensors of ``path``; MelcodecError unless it is of this ``kind``, whole and readable."""
    meta, _ = read_header(path)
    check_kind(path, meta, kind)
    with _opened(path, "pt") as file:
        return meta, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def read_container_array(path: Path, kind: str) -> tuple[dict[str, Any], np.ndarray]:
    """Metadata and the array called ``kind`` of a file of that kind; raises as ``read_container`` does. No torch."""
    meta, entries = read_header(path)
    check_kind(path, meta, kind)
    if kind not in entries:
        names = ", ".join(sorted(entries)) or "nothing"
        raise MelcodecError(f"{path}: damaged: holds the tensors {names}, not {kind}", code="damaged")
    with _opened(path) as file:
        return meta, file.get_tensor(kind)


def check_kind(path: Path, meta: dict[str, Any], kind: str) -> None:
    """Raise MelcodecError unless ``meta`` of ``path`` says that it holds ``kind``."""
    if meta.get("kind") != kind:
        raise MelcodecError(f"{path}: holds {meta.get('kind', 'something else')}, not {kind}", code="unreadable")


@contextmanager
def _opened(path: Path, framework: str = "np") -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise MelcodecError(f"{path}: no such file", code="missing")
    if path.is_dir():
        raise MelcodecError(f"{path}: is a folder, not a file", code="unreadable")
    try:
        with safe_open(path, framework) as file:
            yield file
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}", code="unreadable") from None
    except (SafetensorError, ValueError, TypeError) as error:  # the latter two: a dtype that numpy does not have
        message = f"{path}: not a safetensors file, or damaged ({error})"
        raise MelcodecError(message, "copy or download it again", "damaged") from None


def _meta(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """What melcodec wrote about the file."""
    if METADATA_KEY not in metadata:
        hint = "XTTS weights come in with melcodec import-xtts"
        raise MelcodecError(f"{path}: a safetensors file, but not one that melcodec wrote", hint, "unreadable")
    try:
        meta = json.loads(metadata[METADATA_KEY])
        version = int(meta["format"])
        if not isinstance(meta["kind"], str):
            raise TypeError("kind")
    except (ValueError, TypeError, KeyError):
        raise MelcodecError(f"{path}: damaged: its metadata is not what melcodec writes", code="damaged") from None
    if version > FORMAT_VERSION:
        raise MelcodecError(f"{path}: written by a newer melcodec (format {version})", "pip install --upgrade melcodec")
    return meta
