"""What the name of a vocoder means; no torch."""

from __future__ import annotations

from pathlib import Path

from melcodec.config import LearnedVocoderConfig, VocoderConfig, members, parse, read_toml
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import FOLDERS

DEFAULT_VOCODER = "griffin-lim"
BEST = "best.safetensors"
KINDS = members(VocoderConfig)


def choose_vocoder(name: str | Path) -> VocoderConfig:
    """The settings that ``name`` stands for.

    Args:
        name: ``griffin-lim``; a TOML file with the settings of one vocoder, such as ``kind = "griffin-lim"`` and
            ``iterations = 64``; or what ``find_vocoder`` takes.

    Raises:
        MelcodecError: none of these, or wrong settings.
    """
    if str(name) in KINDS and str(name) != "learned":  # which needs its weights
        return parse(KINDS[str(name)], {}, str(name))
    if Path(name).suffix == ".toml":
        data = read_toml(Path(name))
        kind = data.get("kind")
        if kind not in KINDS:
            raise MelcodecError(f"{name}: kind {kind!r} is no vocoder", f"use one of {', '.join(KINDS)}")
        config: VocoderConfig = parse(KINDS[kind], data, str(name))
        return config
    find_vocoder(name)
    return LearnedVocoderConfig(weights=str(name))


def shipped_vocoders() -> list[str]:
    """Vocoders that came with melcodec."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("vocoder-*.safetensors")})


def find_vocoder(name: str | Path) -> Path:
    """The file that ``name`` means: a path, the folder of a run, or a shipped name.

    Raises:
        MelcodecError: none of these.
    """
    for path in (Path(name), Path(name) / BEST, *(folder / f"{name}.safetensors" for folder in FOLDERS)):
        if path.is_file():
            return path
    names = ", ".join([DEFAULT_VOCODER, *shipped_vocoders()])
    raise MelcodecError(f"{name}: no such vocoder", f"give {names}, a vocoder file, a run folder, or settings in a .toml file")
