"""Which checkpoint a name means; no torch."""

from __future__ import annotations

import re
from pathlib import Path

from melcodec.errors import MelcodecError
from melcodec.formats.torchfile import is_torch_file, not_a_checkpoint

DEFAULT_CHECKPOINT = "melcodec-base"
ONNX_FACTS = "melcodec.json"  # in a folder of melcodec export-onnx
HUB_WEIGHTS = "model.safetensors"  # in a folder that transformers reads, and in a repository of the hub
BEST = "best.safetensors"  # in a run folder
# a wheel carries the folder inside the package, a checkout beside it
FOLDERS = (Path(__file__).parents[1] / "checkpoints", Path(__file__).parents[2] / "checkpoints")


def shipped_names() -> list[str]:
    """Checkpoints that came with melcodec."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("melcodec-*.safetensors")})


def is_run(folder: str | Path) -> bool:
    """Whether ``folder`` is one in which melcodec train has saved a checkpoint."""
    return Path(folder).is_dir() and (Path(folder) / BEST).is_file()


def is_hub_id(name: str | Path) -> bool:
    """Whether ``name`` may be a repository of the hub, ``user/name``, and is no path into a folder that is there."""
    found = re.fullmatch(r"([\w-]+)/([\w.-]+)", str(name))
    return found is not None and not Path(found[1]).exists() and Path(found[2]).suffix not in (".safetensors", ".pth", ".pt")


def download(repository: str) -> Path:
    """The weights in a repository of the hub, from the local cache of huggingface_hub once they are there.

    Raises:
        MelcodecError: huggingface_hub is not installed, no such repository, no weights in it, or no network.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        hint = 'pip install "melcodec[hf]" loads checkpoints from the hub'
        raise MelcodecError(f"{repository}: no such checkpoint", hint, "missing") from None
    try:
        return Path(huggingface_hub.hf_hub_download(repository, HUB_WEIGHTS))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MelcodecError(f"{repository}: no such checkpoint, here or on the hub: {reason}", code="missing") from None


def find_checkpoint(name: str | Path) -> Path:
    """The file that ``name`` means.

    A path, a run folder (its best checkpoint), a folder that transformers reads, a shipped name such as ``melcodec-base``, or
    ``user/name`` of the hub.

    Raises:
        MelcodecError: none of these; for a PyTorch file, the hint has the command that imports it.
    """
    path = Path(name)
    if path.is_file():
        if is_torch_file(path):
            raise not_a_checkpoint(path)
        return path
    if is_run(path):
        return path / BEST
    for folder in FOLDERS:
        if (shipped := folder / f"{name}.safetensors").is_file():
            return shipped
    names = ", ".join(shipped_names()) or "none"
    if (path / HUB_WEIGHTS).is_file():
        return path / HUB_WEIGHTS
    if (path / ONNX_FACTS).is_file():
        raise MelcodecError(f"{name}: an export to ONNX", "encode and decode use it with --runtime onnx", "mismatch")
    if path.is_dir():
        raise MelcodecError(
            f"{name}: a folder without {BEST}", f"give a run folder, a file, or a shipped name: {names}", "missing"
        )
    if is_hub_id(name):
        return download(str(name))
    raise MelcodecError(f"{name}: no such checkpoint", f"give a file, a run folder, or a shipped name: {names}", "missing")
