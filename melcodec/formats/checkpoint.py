"""Checkpoints: weights that carry their own recipe.

One safetensors file with the tensors under their ``dvae.pth`` names and, in its metadata, the model configuration, the
mel norms, where the weights come from, and a fingerprint.

The fingerprint names the *code space* (``formats.fingerprint``). Two checkpoints that differ in the decoder alone share
it, and their codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from melcodec.audio.stats import checked_norms
from melcodec.config import ModelConfig, parse
from melcodec.errors import MelcodecError
from melcodec.formats.container import read_container, write_container
from melcodec.formats.fingerprint import fingerprint
from melcodec.quantize.build import build_quantizer
from melcodec.vqvae import VQVAE, build_vqvae

KIND = "checkpoint"
QUANTIZER = "codebook."  # how the names of its tensors begin, as in ``dvae.pth``


@dataclass(frozen=True)
class Checkpoint:
    """A model at rest.

    Args:
        config: how to build it.
        mel_norms: (M,) per-band norms of the mel front end.
        tensors: float32, by their ``dvae.pth`` names; those that only training needs may be missing.
        provenance: where the weights come from, JSON values.
    """

    config: ModelConfig
    mel_norms: tuple[float, ...]
    tensors: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits; see ``formats.fingerprint``."""
        return fingerprint(self.config, self.mel_norms, self.tensors, training_only(self.config))

    def build(self) -> VQVAE:
        """The model in eval mode with these weights, loaded strictly."""
        model = build_vqvae(self.config)
        load_weights(model, self.tensors)
        return model.eval()


@lru_cache(maxsize=16)
def training_only(config: ModelConfig) -> frozenset[str]:
    """Full names of the tensors that only training needs, such as the moving averages of an EMA codebook."""
    with torch.random.fork_rng(
        devices=[]
    ):  # its first codewords are drawn at random, and the caller's random state must not change
        names = build_quantizer(config.quantizer, config.dim).training_only
    return frozenset(QUANTIZER + name for name in names)


def load_weights(model: VQVAE, tensors: dict[str, Tensor]) -> None:
    """Load ``tensors`` strictly; where some are missing that only training needs, they are made from the codewords."""
    optional = {QUANTIZER + name for name in model.quantizer.training_only}
    model.load_state_dict({key: value for key, value in model.state_dict().items() if key in optional} | tensors, strict=True)
    if not optional <= tensors.keys():
        model.quantizer.forget_training()


def from_model(model: VQVAE, config: ModelConfig, mel_norms: tuple[float, ...], provenance: dict[str, Any]) -> Checkpoint:
    """A copy of ``model``'s weights as a Checkpoint."""
    tensors = {key: value.detach().cpu().float().clone() for key, value in model.state_dict().items()}
    return Checkpoint(config, mel_norms, tensors, provenance)


def for_inference(checkpoint: Checkpoint, dtype: torch.dtype) -> Checkpoint:
    """Without what only training needs, rounded to ``dtype``; values stay float32 in memory, so the fingerprint is final."""
    left_out = training_only(checkpoint.config)
    kept = {k: v.to(dtype).float() for k, v in checkpoint.tensors.items() if k not in left_out}
    return replace(checkpoint, tensors=kept)


def save_checkpoint(
    path: Path, checkpoint: Checkpoint, dtype: Literal["float32", "float16"] = "float32", overwrite: bool = True
) -> None:
    """Write ``checkpoint`` to ``path``; the same content gives the same bytes.

    Args:
        dtype: on disk. float16 halves the file and drops what only training needs, such as moving averages.
    """
    if dtype == "float16":
        checkpoint = for_inference(checkpoint, torch.float16)
    stored = {key: value.to(getattr(torch, dtype)) for key, value in checkpoint.tensors.items()}
    meta = {
        "kind": KIND,
        "model": checkpoint.config.model_dump(),
        "mel_norms": checkpoint.mel_norms,
        "provenance": checkpoint.provenance,
        "fingerprint": checkpoint.fingerprint,
    }
    write_container(path, stored, meta, overwrite)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; tensors become float32.

    Raises:
        MelcodecError: not a checkpoint, damaged, from a newer melcodec, or tensors that do not fit its configuration.
    """
    meta, tensors = read_container(path, KIND)
    settings, provenance = meta.get("model"), meta.get("provenance")
    if not isinstance(settings, dict) or not isinstance(provenance, dict):
        raise MelcodecError(f"{path}: damaged: its header is not that of a checkpoint", code="damaged")
    config = parse(ModelConfig, settings, f"{path}")
    mel_norms = _norms(path, meta.get("mel_norms"), config)
    # a real model, for its shapes: the meta device would import sympy, which takes six times as long
    expected = build_vqvae(config).state_dict()
    for key, value in expected.items():
        if key not in tensors and key not in training_only(config):
            raise MelcodecError(f"{path}: tensor '{key}' is missing")
        if key in tensors and tensors[key].shape != value.shape:
            raise MelcodecError(f"{path}: tensor '{key}' is {tuple(tensors[key].shape)}, not {tuple(value.shape)}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise MelcodecError(f"{path}: tensor '{unknown[0]}' does not belong to its model")
    floats = {key: value.float() for key, value in tensors.items()}
    return Checkpoint(config, mel_norms, floats, provenance)


def _norms(path: Path, norms: Any, config: ModelConfig) -> tuple[float, ...]:
    """The norms of a checkpoint's header, as they stand there."""
    try:
        checked_norms(norms, f"{path}", config.mel.n_mels)
        return tuple(norms)
    except (TypeError, ValueError):  # words, or nothing
        raise MelcodecError(f"{path}: damaged: its header holds no mel norms", code="damaged") from None
