"""The Griffin-Lim of ``vocoder.griffin_lim`` in NumPy: the same first phases, steps and seams, and so the same sound.

Sums in another order let two sounds drift apart by rounding, which no ear tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from melcodec.chunking import windows
from melcodec.config import GriffinLimConfig, MelConfig
from melcodec.vocoder.seams import CHUNK_FRAMES, FADE, HALO, HELD

TINY = 1e-11  # torch's istft divides by no smaller envelope
Magnitude = Callable[[np.ndarray], np.ndarray]  # natural log-mel (M, T) -> linear magnitude (F, T)


class NumpyGriffinLim:
    """Natural log-mel to sound.

    Args:
        config: iterations, momentum and seed.
        mel: of the mel; window and hop are used.
        magnitude: the inverted mel.
    """

    def __init__(self, config: GriffinLimConfig, mel: MelConfig, magnitude: Magnitude) -> None:
        self.config, self.hop, self.n_fft, self.magnitude = config, mel.hop_length, mel.n_fft, magnitude
        turns = np.arange(self.n_fft) / self.n_fft
        self.window = (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)  # periodic Hann

    def stream(self, blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
        """(M, t) arrays that continue each other -> (n,) arrays, ``num_samples`` in total."""
        num_frames = num_samples // self.hop + 1
        random = np.random.RandomState(self.config.seed)  # the generator of torch's, with the same numbers for a seed
        tail: np.ndarray | None = None
        for chunk, mel in windows(blocks, CHUNK_FRAMES, HALO):
            end = num_samples if chunk.read_stop >= num_frames else (chunk.read_stop - 1) * self.hop
            wav = self._continued(mel, end - chunk.read_start * self.hop, random, tail)
            if chunk.keep_stop >= num_frames:
                yield wav
                return
            finished = (chunk.keep_stop - HALO - chunk.read_start) * self.hop
            yield wav[:finished]
            tail = wav[finished:]

    def _continued(self, mel: np.ndarray, num_samples: int, random: np.random.RandomState, tail: np.ndarray | None) -> np.ndarray:
        """mel (M, T) -> wav (num_samples,) that continues from ``tail`` (n,), the previous chunk's sound where it begins."""
        magnitude = self.magnitude(mel)
        turns = (random.randint(0, 1 << 32, size=magnitude.shape[::-1], dtype=np.uint32) & 0xFFFFFF).astype(np.float32)
        phases = np.exp(np.complex64(2j * np.pi) * (turns.T * np.float32(2**-24)))
        tail = None if tail is None or not len(tail) else tail[:num_samples]
        held = 0
        if tail is not None:
            known = _sign(self.stft(tail))
            phases[:, : known.shape[1]] = known
            held = int(HELD * known.shape[1])
        first, previous = phases[:, :held].copy(), np.zeros_like(phases)
        for _ in range(self.config.iterations):
            consistent = self.stft(self.istft(magnitude * phases, num_samples))
            phases = _sign(consistent + np.float32(self.config.momentum) * (consistent - previous))
            phases[:, :held] = first
            previous = consistent
        wav = self.istft(magnitude * phases, num_samples)
        if tail is not None:
            ramp = np.linspace(0, 1, len(tail), dtype=np.float32)
            fade = ((ramp - FADE.start) / (FADE.stop - FADE.start)).clip(0, 1)
            wav[: len(tail)] = tail + fade * (wav[: len(tail)] - tail)
        return wav

    def stft(self, wav: np.ndarray) -> np.ndarray:
        """wav (S,) -> (F, S // hop + 1), centred and zero-padded."""
        frames = sliding_window_view(np.pad(wav, self.n_fft // 2), self.n_fft)[:: self.hop]
        return np.fft.rfft(frames * self.window).astype(np.complex64, copy=False).T

    def istft(self, spectrum: np.ndarray, num_samples: int) -> np.ndarray:
        """(F, T) -> wav (num_samples,)."""
        frames = np.fft.irfft(spectrum.T, self.n_fft).astype(np.float32, copy=False) * self.window
        envelope = np.broadcast_to(np.square(self.window), frames.shape)
        half = self.n_fft // 2
        summed, weight = (self._overlapped(each)[half : half + num_samples] for each in (frames, envelope))
        return summed / np.maximum(weight, TINY)

    def _overlapped(self, frames: np.ndarray) -> np.ndarray:
        """Frames (T, n_fft), each ``hop`` after the one before, summed: hop by hop, whole columns at once."""
        parts = -(-self.n_fft // self.hop)
        padded = np.pad(frames, ((0, 0), (0, parts * self.hop - self.n_fft))).reshape(len(frames), parts, self.hop)
        total = np.zeros((len(frames) + parts - 1, self.hop), np.float32)
        for part in range(parts):
            total[part : part + len(frames)] += padded[:, part]
        return total.reshape(-1)


def _sign(spectrum: np.ndarray) -> np.ndarray:
    """Complex numbers of length 1, 0 where the spectrum is 0."""
    length = np.abs(spectrum)
    return np.divide(spectrum, length, out=np.zeros_like(spectrum), where=length > 0)
