"""Which checkpoint a name means; no torch."""

from __future__ import annotations

from pathlib import Path

from melcodec.errors import MelcodecError

DEFAULT_CHECKPOINT = "melcodec-base"
# a wheel carries the folder inside the package, a checkout beside it
FOLDERS = (Path(__file__).parents[1] / "checkpoints", Path(__file__).parents[2] / "checkpoints")


def shipped_names() -> list[str]:
    """Checkpoints that came with melcodec."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("melcodec-*.safetensors")})


def find_checkpoint(name: str | Path) -> Path:
    """The file that ``name`` means: a path, or a shipped name such as ``melcodec-base``.

    Raises:
        MelcodecError: neither.
    """
    if Path(name).is_file():
        return Path(name)
    for folder in FOLDERS:
        if (path := folder / f"{name}.safetensors").is_file():
            return path
    raise MelcodecError(f"{name}: no such checkpoint", f"give a path, or a shipped name: {', '.join(shipped_names()) or 'none'}")
