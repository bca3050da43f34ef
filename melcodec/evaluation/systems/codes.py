"""The tokenizer itself: decoded codes, through the vocoder."""

from __future__ import annotations

import numpy as np

from melcodec.evaluation.scores import Sound
from melcodec.evaluation.systems.base import System, Tools


class Codes(System):
    """Codes, decoded."""

    name = "codes"

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.bit_rate = tools.codec.bitrate
        self.label = f"codes, {self.bit_rate:.0f} bit/s"

    def output(self, original: Sound, codes: np.ndarray) -> Sound:
        """See ``base.System``."""
        return self.tools.from_mel(self.tools.codec.decode_to_mel(codes), original)
