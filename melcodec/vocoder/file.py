"""Vocoder files: a network's weights with its own settings and the mel it was made for, in one safetensors file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from melcodec.config import MelConfig, VocosConfig, parse
from melcodec.errors import MelcodecError
from melcodec.formats.container import read_container, write_container
from melcodec.vocoder.network import VocosNetwork

KIND = "vocoder"


@dataclass(frozen=True)
class VocoderCheckpoint:
    """A vocoder at rest.

    Args:
        mel: the mel that it makes sound of.
        network: how to build it.
        tensors: float32, by name.
        provenance: where the weights come from, JSON values.
    """

    mel: MelConfig
    network: VocosConfig
    tensors: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)

    def build(self) -> VocosNetwork:
        """The network in eval mode with these weights, loaded strictly."""
        network = VocosNetwork(self.network, self.mel)
        network.load_state_dict(self.tensors, strict=True)
        return network.eval()


def save_vocoder(path: Path, checkpoint: VocoderCheckpoint, dtype: Literal["float32", "float16"] = "float16") -> None:
    """Write ``checkpoint`` to ``path``; the same content gives the same bytes."""
    stored = {key: value.detach().cpu().to(getattr(torch, dtype)) for key, value in checkpoint.tensors.items()}
    meta = {
        "kind": KIND,
        "mel": checkpoint.mel.model_dump(),
        "network": checkpoint.network.model_dump(),
        "provenance": checkpoint.provenance,
    }
    write_container(path, stored, meta)


def load_vocoder(path: Path) -> VocoderCheckpoint:
    """Read a vocoder file; tensors become float32.

    Raises:
        MelcodecError: not a vocoder, damaged, from a newer melcodec, or tensors that do not fit its settings.
    """
    meta, tensors = read_container(path, KIND)
    if not all(isinstance(meta.get(key), dict) for key in ("mel", "network", "provenance")):
        raise MelcodecError(f"{path}: damaged: its header is not that of a vocoder", code="damaged")
    mel, network = parse(MelConfig, meta["mel"], f"{path}"), parse(VocosConfig, meta["network"], f"{path}")
    checkpoint = VocoderCheckpoint(mel, network, {key: value.float() for key, value in tensors.items()}, meta["provenance"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchaudio, about a mel that damage made strange
            checkpoint.build()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise MelcodecError(f"{path}: its tensors do not fit its settings: {reason}", code="damaged") from None
    return checkpoint
