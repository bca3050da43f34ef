"""The mel of a stream: as ``MelFrontend.stream``, but pushed, several streams at once, and with a state."""

from __future__ import annotations

import torch
from torch import Tensor

from melcodec.audio.mel import MelFrontend
from melcodec.audio.resample import resample_blocks, resample_period
from melcodec.streaming.overlap import Overlap, State


class StreamingResampler:
    """Waves (B, n) at one rate -> (B, m) at another, equal to ``audio.resample`` over the whole.

    Outputs come in periods of source_rate / gcd samples (20 ms from 16 kHz, 0.05 ms from 44.1 kHz, to 22.05 kHz), and each
    needs ``right`` samples after its period.

    Args:
        source_rate, target_rate: Hz.
        empty: (B, 0) samples: their number of streams and type.
    """

    def __init__(self, source_rate: int, target_rate: int, empty: Tensor) -> None:
        self.rates, (orig, self.new, width) = (source_rate, target_rate), resample_period(source_rate, target_rate)
        self.overlap = Overlap(left=width, right=orig - 1 + width, stride=orig, empty=empty.cpu())

    def push(self, wav: Tensor, final: bool = False) -> Tensor:
        """(B, n) -> (B, m), what is certain by now; ``final``: all."""
        self.overlap.push(wav.cpu())
        count = self.overlap.ready(final)
        if not count:
            return self.overlap.buffer[..., :0]
        window = self.overlap.take(count, final)
        rows = [list(resample_blocks([row], *self.rates)) for row in window.inputs.numpy()]
        made = torch.stack([torch.cat([torch.from_numpy(part) for part in parts]) for parts in rows])
        return made[:, window.kept.start * self.new : None if final else window.kept.stop * self.new]


class StreamingFrontend:
    """Waves (B, n) in [-1, 1] at the codec's rate -> natural log-mel (B, M, t), equal to ``MelFrontend`` over the whole.

    Frame k needs the samples up to hop k + n_fft / 2. The wave is reflected at its real ends alone.

    Args:
        frontend: what computes the frames.
        empty: (B, 0) samples.
    """

    def __init__(self, frontend: MelFrontend, empty: Tensor) -> None:
        self.frontend = frontend
        self.buffer = empty.to(frontend.window)  # samples that later frames see; reflected ones before the first
        self.total = self.given = 0  # samples pushed, frames given

    def push(self, wav: Tensor, final: bool = False) -> Tensor:
        """(B, n) -> (B, M, t); ``final``: the stream ends with ``wav``."""
        frontend, half = self.frontend, self.frontend.n_fft // 2
        self.buffer, self.total = torch.cat([self.buffer, wav.to(self.buffer)], dim=-1), self.total + wav.shape[-1]
        if final and self.total < frontend.min_samples:
            self.buffer = torch.nn.functional.pad(self.buffer, (0, (frontend.min_samples - self.total) * (self.total > 0)))
        if self.given == 0 and self.buffer.shape[-1] < frontend.min_samples:
            return self.buffer.new_empty(len(self.buffer), frontend.n_mels, 0)
        padded = self.buffer
        if self.given == 0:
            padded = torch.cat([padded[:, 1 : half + 1].flip(-1), padded], dim=-1)
        if final:
            padded = torch.cat([padded, padded[:, -half - 1 : -1].flip(-1)], dim=-1)
        count = (padded.shape[-1] - frontend.n_fft) // frontend.hop_length + 1
        if final:  # a clip shorter than half a window keeps the frames of its real length
            count = frontend.num_frames(self.total) - self.given
        if count <= 0:
            return self.buffer.new_empty(len(self.buffer), frontend.n_mels, 0)
        mel = frontend.from_padded(padded[:, : (count - 1) * frontend.hop_length + frontend.n_fft])
        self.buffer, self.given = padded[:, count * frontend.hop_length :].clone(), self.given + count
        return mel

    def state_dict(self, prefix: str) -> State:
        """See ``Overlap.state_dict``."""
        return {f"{prefix}buffer": self.buffer.clone(), f"{prefix}position": torch.tensor([self.total, self.given])}

    def load_state_dict(self, state: State, prefix: str) -> None:
        """See ``Overlap.load_state_dict``."""
        self.buffer = state[f"{prefix}buffer"].to(self.buffer).clone()
        self.total, self.given = state[f"{prefix}position"].tolist()
