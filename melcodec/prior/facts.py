"""What ``prior.json`` says of a prior, and which priors came with melcodec; no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from melcodec.errors import MelcodecError
from melcodec.formats.shipped import FOLDERS

FACTS = "prior.json"
FORMAT, VERSION = "melcodec prior", 1


def shipped_priors() -> dict[str, Path]:
    """Priors that came with melcodec, by name: folders beside the shipped checkpoints."""
    return {path.parent.name: path.parent for folder in FOLDERS for path in sorted(folder.glob(f"*/{FACTS}"))}


def read_facts(folder: Path) -> dict[str, Any]:
    """``prior.json`` of ``folder``; raises MelcodecError when there is none that this melcodec reads."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise KeyError
        if facts["version"] > VERSION:
            raise MelcodecError(f"{path}: written by a newer melcodec", "pip install --upgrade melcodec")
    except OSError:
        raise MelcodecError(f"{folder}: not a prior: it has no {FACTS}", "melcodec prior train makes one") from None
    except (ValueError, KeyError, TypeError):
        raise MelcodecError(f"{path}: not the description of a prior, or damaged") from None
    return facts
