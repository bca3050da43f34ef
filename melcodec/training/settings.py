"""Settings as one level of dotted keys, to compare and to list them."""

from __future__ import annotations

from pydantic import BaseModel


def flat(settings: BaseModel) -> dict[str, object]:
    """``settings`` as ``{"data.crop_frames": 128}``, values as JSON has them."""
    return _flat(settings.model_dump(mode="json"), "")


def _flat(settings: dict[str, object], prefix: str) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in settings.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result
