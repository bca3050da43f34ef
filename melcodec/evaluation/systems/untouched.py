"""The mel as it is, which shows what the vocoder costs, and the original as it is."""

from __future__ import annotations

import numpy as np
import torch

from melcodec.evaluation.scores import Sound
from melcodec.evaluation.systems.base import System


class Mel(System):
    """The vocoder alone."""

    name = "mel"
    label = "the mel untouched, vocoder only"

    def output(self, original: Sound, codes: np.ndarray) -> Sound:
        """See ``base.System``."""
        return self.tools.from_mel(torch.from_numpy(original.mel)[None], original)


class Original(System):
    """Nothing at all."""

    name = "original"
    label = "the original"

    def output(self, original: Sound, codes: np.ndarray) -> Sound:
        """See ``base.System``."""
        return original
