"""The export that a checkpoint stands for: made once, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from melcodec.config import LearnedVocoderConfig
from melcodec.files import cache_root
from melcodec.formats.shipped import find_checkpoint
from melcodec.onnx.folder import FORMAT_VERSION, OPSET, is_export
from melcodec.vocoder.choice import choose_vocoder, find_vocoder


def find_export(checkpoint: str | Path, vocoder: str | Path, say: Callable[[str], None]) -> Path:
    """The exported folder that ``checkpoint`` is, or the one that is kept for it; the first time it is made, with torch.

    Args:
        checkpoint: a folder of ``melcodec export-onnx``, whose vocoder is used, or what ``find_checkpoint`` takes.
        vocoder: what ``choose_vocoder`` takes.
        say: is told that an export is made.

    Raises:
        MelcodecError: no such checkpoint or vocoder, or one that cannot be exported.
    """
    if is_export(checkpoint):
        return Path(checkpoint)
    path, settings = find_checkpoint(checkpoint), choose_vocoder(vocoder)
    digest = hashlib.sha256(path.read_bytes())
    if isinstance(settings, LearnedVocoderConfig):
        digest.update(find_vocoder(settings.weights).read_bytes())
    digest.update(json.dumps([settings.model_dump(mode="json"), FORMAT_VERSION, OPSET]).encode())
    folder = cache_root() / "onnx" / digest.hexdigest()[:16]
    if not is_export(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # a second process waits for the first one's export
            if not is_export(folder):
                say(f"exporting {checkpoint} to ONNX, once: {folder}")
                from melcodec.formats.checkpoint import load_checkpoint
                from melcodec.onnx.export import export_onnx

                export_onnx(load_checkpoint(path), settings, folder)
    return folder
