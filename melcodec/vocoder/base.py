"""What a vocoder is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from torch import Tensor

from melcodec.config import MelConfig
from melcodec.errors import MelcodecError


class Vocoder(Protocol):
    """Makes sound of natural log-mel at the mel's sample rate and level; the same input gives the same sound."""

    @property
    def mel(self) -> MelConfig:
        """The mel that it makes sound of."""

    def __call__(self, mel: Tensor, num_samples: int) -> Tensor:
        """mel (B, M, T) -> wav (B, S) float32, S = ``num_samples`` with S // hop + 1 = T. May overshoot [-1, 1].

        Raises:
            MelcodecError: T frames cannot hold ``num_samples``.
        """

    def stream(self, blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
        """As a call on the whole, but (M, t) arrays in, (n,) arrays out, in bounded memory however long the sound is."""


def check_mel(made_for: MelConfig, given: MelConfig, where: str) -> None:
    """Refuse a vocoder for another mel.

    Args:
        made_for: the vocoder's mel.
        given: the codec's.
        where: the vocoder's name, for the message.

    Raises:
        MelcodecError: they differ; each differing setting is named.
    """
    theirs, ours = made_for.model_dump(), given.model_dump()
    differing = [f"{key} {value}, not {ours[key]}" for key, value in theirs.items() if value != ours[key]]
    if differing:
        raise MelcodecError(
            f"{where}: made for another mel: {', '.join(differing)}", "--vocoder griffin-lim makes sound of every mel"
        )


def check_length(num_frames: int, num_samples: int, hop_length: int) -> None:
    """Raise MelcodecError unless ``num_samples`` // hop + 1 = ``num_frames``."""
    if num_samples < 1 or num_frames != num_samples // hop_length + 1:
        most = num_frames * hop_length - 1
        raise MelcodecError(f"{num_frames} mel frames hold {most - hop_length + 1} to {most} samples, not {num_samples}")
