"""melcodec: speech to discrete codes and back.

    codec = melcodec.load()                      # the shipped checkpoint
    codes = codec.encode(wav, sample_rate=16_000)  # (B, Q, N) int64; without a rate, wav is at the codec's
    wav2 = codec.decode(codes)                   # (B, S) at the codec's rate

Importing melcodec is free: torch is imported when one of these names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from melcodec.version import __version__ as __version__

if TYPE_CHECKING:
    from melcodec.codec import Codec
    from melcodec.errors import MelcodecError
    from melcodec.store.dataset import CodesDataset
    from melcodec.streaming.decoder import StreamingDecoder
    from melcodec.streaming.encoder import StreamingEncoder
    from melcodec.training.run import train

_HOMES = {
    "Codec": "melcodec.codec",
    "CodesDataset": "melcodec.store.dataset",
    "MelcodecError": "melcodec.errors",
    "StreamingDecoder": "melcodec.streaming.decoder",
    "StreamingEncoder": "melcodec.streaming.encoder",
    "train": "melcodec.training.run",
}
__all__ = ["Codec", "CodesDataset", "MelcodecError", "StreamingDecoder", "StreamingEncoder", "load", "train"]


def load(checkpoint: Any = None, device: str = "auto", vocoder: Any = "griffin-lim") -> Codec:
    """The codec of a checkpoint path or shipped name (default: melcodec-base); see ``Codec.from_pretrained``."""
    from melcodec.codec import Codec
    from melcodec.formats.shipped import DEFAULT_CHECKPOINT

    return Codec.from_pretrained(DEFAULT_CHECKPOINT if checkpoint is None else checkpoint, device, vocoder)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'melcodec' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
