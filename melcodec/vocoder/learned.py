"""A vocoder whose phases and magnitudes a network predicts, with an optional Griffin-Lim end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from melcodec.audio.mel import MelFrontend
from melcodec.chunking import windows
from melcodec.config import LearnedVocoderConfig, MelConfig
from melcodec.devices import exact_float32
from melcodec.vocoder.base import check_length, check_mel
from melcodec.vocoder.choice import find_vocoder
from melcodec.vocoder.file import load_vocoder
from melcodec.vocoder.griffin_lim import fast_griffin_lim, istft
from melcodec.vocoder.network import VocosNetwork, iteration_reach

MOMENTUM = 0.99  # of the Griffin-Lim iterations; docs/sound.md


class LearnedVocoder:
    """A Vocoder.

    A sample depends on ``halo`` frames on each side and on nothing else, so a long sound is made in windows that overlap
    by as much, and equals one pass up to rounding.

    Args:
        network: in eval mode, on the device that is used.
        refine: Griffin-Lim iterations that start from the network's phases and keep its magnitudes. Each sees 3 frames more.
        chunk_frames: frames of a window that are kept; any number gives the same sound.
    """

    def __init__(self, network: VocosNetwork, refine: int = 0, chunk_frames: int = 4096) -> None:
        self.network, self.refine, self.chunk_frames = network.eval().requires_grad_(False), refine, chunk_frames

    @classmethod
    def load(cls, config: LearnedVocoderConfig, frontend: MelFrontend) -> LearnedVocoder:
        """The vocoder that ``config`` names, on the device of ``frontend``.

        Raises:
            MelcodecError: no such file, a damaged one, or one for another mel than that of ``frontend``.
        """
        checkpoint = load_vocoder(find_vocoder(config.weights))
        check_mel(checkpoint.mel, frontend.config, config.weights)
        return cls(checkpoint.build().to(frontend.window.device), config.refine)

    @property
    def mel(self) -> MelConfig:
        """The mel that the network was trained on."""
        return self.network.frontend.config

    @property
    def halo(self) -> int:
        """Frames on each side that a sample depends on; times the hop, the look-ahead of a stream."""
        frontend = self.network.frontend
        overlap = iteration_reach(frontend.n_fft, frontend.hop_length)
        return self.network.reach + (self.refine + 1) * overlap

    def __call__(self, mel: Tensor, num_samples: int) -> Tensor:
        """mel (B, M, T) natural -> wav (B, S) float32; see ``Vocoder``."""
        check_length(mel.shape[-1], num_samples, self.mel.hop_length)
        return torch.cat(list(self._pieces([mel.cpu().numpy()], num_samples)), dim=-1)

    def stream(self, blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
        """(M, t) arrays that continue each other -> (n,) arrays; see ``Vocoder``."""
        num_frames = 0

        def batch_of_one() -> Iterator[np.ndarray]:
            nonlocal num_frames
            for block in blocks:
                num_frames += block.shape[-1]
                yield block[None]
            check_length(num_frames, num_samples, self.mel.hop_length)

        for piece in self._pieces(batch_of_one(), num_samples):
            yield piece[0].cpu().numpy()

    @torch.no_grad()
    def _pieces(self, blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[Tensor]:
        """(B, M, t) arrays -> (B, n) tensors, in order."""
        hop = self.mel.hop_length
        num_frames = num_samples // hop + 1
        for chunk, frames in windows(blocks, self.chunk_frames, self.halo):
            mel = torch.from_numpy(np.ascontiguousarray(frames)).to(self.network.frontend.window)
            end = num_samples if chunk.read_stop >= num_frames else (chunk.read_stop - 1) * hop
            with exact_float32(mel.device):
                wav = self._synthesize(mel, end - chunk.read_start * hop)
            first = (chunk.keep_start - chunk.read_start) * hop
            last = (chunk.keep_stop - chunk.read_start) * hop if chunk.keep_stop < num_frames else None
            yield wav[:, first:last]

    def _synthesize(self, mel: Tensor, num_samples: int) -> Tensor:
        """mel (B, M, T) -> wav (B, num_samples)."""
        log_magnitude, phases = self.network(mel)
        magnitude, frontend = log_magnitude.exp(), self.network.frontend
        if not self.refine:
            return istft(magnitude * phases, frontend, num_samples)
        return fast_griffin_lim(magnitude, phases, frontend, num_samples, self.refine, MOMENTUM)
