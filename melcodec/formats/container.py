"""safetensors with ONE metadata key holding ONE JSON string.

safetensors keeps metadata in a hash map, so several keys would be written in random order; one key makes the same
content the same bytes. The header is JSON behind an 8-byte length and is read here without torch.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melcodec.errors import MelcodecError
from melcodec.files import written_aside

if TYPE_CHECKING:
    from torch import Tensor

METADATA_KEY = "melcodec"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 100 << 20  # safetensors' own limit


def write_container(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any], overwrite: bool = True) -> None:
    """Write ``tensors`` and ``meta`` (JSON values, among them ``kind``) to ``path``, aside and renamed."""
    from safetensors.torch import save

    text = json.dumps({"format": FORMAT_VERSION, **meta}, sort_keys=True, ensure_ascii=False)
    # views over larger storage or transposed layouts would be refused or written whole
    content = save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, {METADATA_KEY: text})
    with written_aside(path, overwrite) as aside:
        aside.write_bytes(content)


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The metadata and, per tensor, its dtype and shape, without reading a tensor or importing torch.

    Raises:
        MelcodecError: not a safetensors file, not one of melcodec's, or from a newer melcodec.
    """
    if not path.exists():
        raise MelcodecError(f"{path}: no such file")
    if path.is_dir():
        raise MelcodecError(f"{path}: is a folder, not a file")
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("no header")
            entries: dict[str, Any] = json.loads(file.read(length))
        metadata: dict[str, str] = entries.pop("__metadata__", None) or {}
        meta: dict[str, Any] = json.loads(metadata.get(METADATA_KEY, "{}"))
        version = int(meta.get("format", 0))
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None
    except (ValueError, AttributeError, TypeError, struct.error):
        raise MelcodecError(f"{path}: not a safetensors file") from None
    if not meta:
        raise MelcodecError(
            f"{path}: a safetensors file, but not one that melcodec wrote", "XTTS weights come in with melcodec import-xtts"
        )
    if not _is_whole(meta, entries):
        raise MelcodecError(f"{path}: damaged: its header is not one that melcodec wrote", code="damaged")
    if version > FORMAT_VERSION:
        raise MelcodecError(f"{path}: written by a newer melcodec (format {version})", "pip install --upgrade melcodec")
    return meta, entries


def read_container(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and tensors of ``path``; MelcodecError unless it is of this ``kind``, whole and readable."""
    meta, _ = read_header(path)
    if meta.get("kind") != kind:
        raise MelcodecError(f"{path}: holds {meta.get('kind', 'something else')}, not {kind}")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return meta, load_file(path)
    except SafetensorError as error:
        raise MelcodecError(f"{path}: damaged ({error})", "copy or download it again") from None


def _is_whole(meta: dict[str, Any], entries: dict[str, Any]) -> bool:
    """Whether a header has what readers of any kind rely on."""
    tensors = [entry for entry in entries.values() if isinstance(entry, dict)]
    sized = all(isinstance(entry.get("shape"), list) and isinstance(entry.get("dtype"), str) for entry in tensors)
    return isinstance(meta.get("kind"), str) and len(tensors) == len(entries) and sized
