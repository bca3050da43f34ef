"""The fingerprint: 12 hexadecimal digits that name a *code space*, everything that decides what a code means.

Two checkpoints with the same fingerprint give the same codes to the same sound, and their codes stand for the same
latents. It covers the mel settings, the mel norms, the settings of backbone and quantizer that decide codes, and every
tensor except those of the decoder and those that only training uses.

Fingerprints are stored beside codes, so their values must never change. Three rules keep them:

* a setting that equals its default is left out, so that a new setting with its default changes nothing (and the default
  of a setting that decides codes must never change);
* a setting whose field is marked ``json_schema_extra=NOT_IN_CODES`` is left out: what only training uses, and sizes,
  which the shapes of the tensors already say;
* the first kinds, conv and ema, are the defaults of ``ModelConfig`` and add nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from melcodec.config import ModelConfig, decides_codes

if TYPE_CHECKING:
    from torch import Tensor

DECODER = "decoder."  # what its tensors are called in a checkpoint
# hashed with their values from the first release on, defaults or not
FIRST_MEL_SETTINGS = frozenset({"sample_rate", "n_fft", "hop_length", "n_mels", "f_min", "f_max", "floor"})


def fingerprint(
    config: ModelConfig, mel_norms: Sequence[float], tensors: Mapping[str, Tensor], training_only: Collection[str] = ()
) -> str:
    """The fingerprint of a model.

    Args:
        config: mel settings, backbone and quantizer, of any kinds.
        mel_norms: (M,) per-band norms.
        tensors: the model's state by full name; those that begin with ``decoder.`` do not count.
        training_only: full names of further tensors that do not count, as the quantizer declares them.

    Returns:
        12 hexadecimal digits of a SHA-256.
    """
    digest = hashlib.sha256(_json(code_settings(config.mel, FIRST_MEL_SETTINGS)))
    digest.update(np.asarray(mel_norms, np.float32).tobytes())  # equal however many digits they were written with
    beside_mel = {name: value for name, value in code_settings(config).items() if name != "mel"}
    if beside_mel:
        digest.update(_json(beside_mel))
    for key in sorted(tensors):
        if key.startswith(DECODER) or key in training_only:
            continue
        array = tensors[key].detach().cpu().contiguous().numpy()
        digest.update(key.encode())
        if beside_mel:  # the first kinds, conv and ema, hash the bytes alone
            digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def code_settings(settings: BaseModel, always: Collection[str] = ("kind",)) -> dict[str, Any]:
    """The settings, at every depth, that decide codes and differ from their defaults, and those named in ``always``."""
    found = {}
    for name, field in type(settings).model_fields.items():
        value, default = (_plain(item) for item in (getattr(settings, name), field.get_default(call_default_factory=True)))
        if name in always or (decides_codes(field) and value != default):
            found[name] = value
    return found


def _plain(value: Any) -> Any:
    """JSON values; of settings inside settings only what decides codes."""
    if isinstance(value, BaseModel):
        return code_settings(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _json(settings: dict[str, Any]) -> bytes:
    return json.dumps(settings, sort_keys=True).encode()
