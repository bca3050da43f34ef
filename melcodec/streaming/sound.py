"""Mel frames to sound, as they come."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from melcodec.streaming.overlap import Overlap, State, Window
from melcodec.vocoder.base import Vocoder
from melcodec.vocoder.griffin_lim import GriffinLim
from melcodec.vocoder.learned import LearnedVocoder
from melcodec.vocoder.seams import HALO

GRIFFIN_LIM_FRAMES = 32  # of a chunk: 372 ms; fewer would leave nothing between two cross-fades


class StreamingVocoder(Protocol):
    """Natural log-mels (B, M, t) -> sound (B, n), in order and without gaps."""

    @property
    def lookahead(self) -> int:
        """The most frames that a sample waits for after its own."""

    def push(self, mel: Tensor) -> Tensor:
        """The next frames -> the samples that are finished by now."""

    def finish(self, num_samples: int) -> Tensor:
        """The end -> the last samples; ``num_samples``: S of the whole, the frames pushed being at least S // hop + 1."""

    def state_dict(self, prefix: str) -> State:
        """See ``Overlap.state_dict``."""

    def load_state_dict(self, state: State, prefix: str) -> None:
        """See ``Overlap.load_state_dict``."""


def stream_vocoder(vocoder: Vocoder, empty: Tensor) -> StreamingVocoder:
    """``vocoder`` for streams; ``empty``: (B, M, 0) frames."""
    if isinstance(vocoder, GriffinLim):
        return StreamingGriffinLim(vocoder, empty)
    if isinstance(vocoder, LearnedVocoder):
        return WindowedVocoder(vocoder, empty, vocoder.halo)
    return WindowedVocoder(vocoder, empty, None)


class WindowedVocoder:
    """A vocoder whose samples depend on ``halo`` frames on each side: the sound of one pass, up to rounding.

    Args:
        halo: None when a sample depends on all frames; the sound then comes with the end of the stream.
    """

    def __init__(self, vocoder: Vocoder, empty: Tensor, halo: int | None) -> None:
        self.vocoder, self.halo, self.hop = vocoder, halo, vocoder.mel.hop_length
        self.overlap = Overlap(halo or 0, halo or 0, 1, empty)

    @property
    def lookahead(self) -> int:
        """See ``StreamingVocoder``."""
        return (1 << 30) if self.halo is None else self.halo

    def push(self, mel: Tensor) -> Tensor:
        """See ``StreamingVocoder``."""
        self.overlap.push(mel)
        count = 0 if self.halo is None else self.overlap.ready()
        if not count:
            return mel.new_zeros(len(mel), 0)
        window = self.overlap.take(count)
        wav = self.vocoder(window.inputs, (window.inputs.shape[-1] - 1) * self.hop)
        return wav[:, window.kept.start * self.hop : window.kept.stop * self.hop]

    def finish(self, num_samples: int) -> Tensor:
        """See ``StreamingVocoder``."""
        window = last_window(self.overlap, num_samples // self.hop + 1)
        wav = self.vocoder(window.inputs, num_samples - window.first * self.hop)
        return wav[:, window.kept.start * self.hop :]

    def state_dict(self, prefix: str) -> State:
        """See ``Overlap.state_dict``."""
        return self.overlap.state_dict(prefix)

    def load_state_dict(self, state: State, prefix: str) -> None:
        """See ``Overlap.load_state_dict``."""
        self.overlap.load_state_dict(state, prefix)


class StreamingGriffinLim:
    """Griffin-Lim in short chunks, joined as ``vocoder.griffin_lim`` joins its long ones; any blocks give the same sound."""

    def __init__(self, vocoder: GriffinLim, empty: Tensor, chunk_frames: int = GRIFFIN_LIM_FRAMES) -> None:
        self.vocoder, self.chunk_frames, self.hop = vocoder, chunk_frames, vocoder.mel.hop_length
        self.overlap = Overlap(HALO, HALO, 1, empty)
        self.tail = empty.new_zeros(len(empty), 0)  # sound of the last chunk, where the next one begins
        self.generator = torch.Generator().manual_seed(vocoder.seed)

    @property
    def lookahead(self) -> int:
        """See ``StreamingVocoder``."""
        return self.chunk_frames + 2 * HALO

    def push(self, mel: Tensor) -> Tensor:
        """See ``StreamingVocoder``."""
        self.overlap.push(mel)
        pieces = [mel.new_zeros(len(mel), 0)]
        while self.overlap.ready() >= self.chunk_frames:
            window = self.overlap.take(self.chunk_frames)
            wav = self._joined(window.inputs, (window.inputs.shape[-1] - 1) * self.hop)
            finished = (self.overlap.done - HALO - window.first) * self.hop
            pieces.append(wav[:, :finished])
            self.tail = wav[:, finished:].clone()
        return torch.cat(pieces, dim=-1)

    def finish(self, num_samples: int) -> Tensor:
        """See ``StreamingVocoder``."""
        window = last_window(self.overlap, num_samples // self.hop + 1)
        return self._joined(window.inputs, num_samples - window.first * self.hop)

    def _joined(self, mel: Tensor, num_samples: int) -> Tensor:
        return self.vocoder.continued(mel, num_samples, self.generator, self.tail)

    def state_dict(self, prefix: str) -> State:
        """See ``Overlap.state_dict``."""
        own = {f"{prefix}tail": self.tail.clone(), f"{prefix}generator": self.generator.get_state()}
        return own | self.overlap.state_dict(prefix)

    def load_state_dict(self, state: State, prefix: str) -> None:
        """See ``Overlap.load_state_dict``."""
        self.overlap.load_state_dict(state, prefix)
        self.tail = state[f"{prefix}tail"].to(self.tail).clone()
        self.generator.set_state(state[f"{prefix}generator"].cpu())


def last_window(overlap: Overlap, num_frames: int) -> Window:
    """All that is left of a stream that ends with ``num_frames`` frames; more than that were at most a code's worth."""
    overlap.buffer = overlap.buffer[..., : num_frames - overlap.first]
    return overlap.take(overlap.ready(final=True), final=True)
