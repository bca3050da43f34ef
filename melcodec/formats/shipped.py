"""Which checkpoint a name means; no torch."""

from __future__ import annotations

from pathlib import Path

from melcodec.errors import MelcodecError
from melcodec.formats.torchfile import is_torch_file, not_a_checkpoint

DEFAULT_CHECKPOINT = "melcodec-base"
ONNX_FACTS = "melcodec.json"  # in a folder of melcodec export-onnx
BEST = "best.safetensors"  # in a run folder
# a wheel carries the folder inside the package, a checkout beside it
FOLDERS = (Path(__file__).parents[1] / "checkpoints", Path(__file__).parents[2] / "checkpoints")


def shipped_names() -> list[str]:
    """Checkpoints that came with melcodec."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("melcodec-*.safetensors")})


def is_run(folder: str | Path) -> bool:
    """Whether ``folder`` is one in which melcodec train has saved a checkpoint."""
    return Path(folder).is_dir() and (Path(folder) / BEST).is_file()


def find_checkpoint(name: str | Path) -> Path:
    """The file that ``name`` means: a path, a run folder (its best checkpoint), or a shipped name such as ``melcodec-base``.

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
    if (path / ONNX_FACTS).is_file():
        raise MelcodecError(f"{name}: an export to ONNX", "encode and decode use it with --runtime onnx", "mismatch")
    if path.is_dir():
        raise MelcodecError(
            f"{name}: a folder without {BEST}", f"give a run folder, a file, or a shipped name: {names}", "missing"
        )
    raise MelcodecError(f"{name}: no such checkpoint", f"give a file, a run folder, or a shipped name: {names}", "missing")
