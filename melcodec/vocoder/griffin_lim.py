"""Fast Griffin-Lim: phases for a magnitude spectrogram, without learning anything.

Source: Perraudin, Balazs & Sondergaard 2013, "A fast Griffin-Lim algorithm". torchaudio has the same iteration, but it
draws from the global random state and cannot start from given phases, which long sounds need at their seams.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from melcodec.audio.inverse import invert_mel
from melcodec.audio.mel import MelFrontend
from melcodec.chunking import windows
from melcodec.config import MelConfig
from melcodec.vocoder.base import check_length
from melcodec.vocoder.framing import Framing
from melcodec.vocoder.seams import CHUNK_FRAMES, FADE, HALO, HELD

TINY = 1e-37  # the square of a number so small has no phase, and stays zero


class GriffinLim:
    """A Vocoder. Sounds of up to ``chunk_frames`` are made whole.

    A sample depends on 3 more frames to each side with every iteration, and on phases that are drawn in order, so chunks
    are not exact: a longer sound is made of chunks that start from their predecessor's phases where they overlap and are
    cross-faded there. That is another solution, not a worse one.

    Args:
        frontend: what made the mel; its window, hop, filters and floor are used, and its device.
        iterations: projections between magnitudes and consistent spectrograms.
        momentum: 0 is the classic algorithm, above 1 it may not converge.
        nmf_iterations: updates of the mel inversion.
        seed: of the random phases that it starts from; every item of a batch starts from the same.
        chunk_frames: T above which a sound is made in chunks, at least 2 ``HALO``.
    """

    def __init__(
        self,
        frontend: MelFrontend,
        iterations: int = 32,
        momentum: float = 0.99,
        nmf_iterations: int = 20,
        seed: int = 0,
        chunk_frames: int = CHUNK_FRAMES,
    ) -> None:
        self.frontend, self.iterations, self.momentum = frontend, iterations, momentum
        self.nmf_iterations, self.seed, self.chunk_frames = nmf_iterations, seed, chunk_frames

    @property
    def mel(self) -> MelConfig:
        """That of the front end, whichever it is."""
        return self.frontend.config

    def __call__(self, mel: Tensor, num_samples: int) -> Tensor:
        """mel (B, M, T) natural -> wav (B, S) float32; see ``Vocoder``."""
        check_length(mel.shape[-1], num_samples, self.frontend.hop_length)
        return torch.cat(list(self._pieces([mel.cpu().numpy()], num_samples)), dim=-1)

    def stream(self, blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
        """(M, t) arrays that continue each other -> (n,) arrays; see ``Vocoder``."""
        num_frames = 0

        def batch_of_one() -> Iterator[np.ndarray]:
            nonlocal num_frames
            for block in blocks:
                num_frames += block.shape[-1]
                yield block[None]
            check_length(num_frames, num_samples, self.frontend.hop_length)

        for piece in self._pieces(batch_of_one(), num_samples):
            yield piece[0].cpu().numpy()

    def magnitude(self, mel: Tensor) -> Tensor:
        """mel (B, M, T) natural -> linear magnitude (B, F, T)."""
        return invert_mel(mel, self.frontend.filters, self.frontend.floor, self.nmf_iterations).sqrt()

    @torch.no_grad()
    def _pieces(self, blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[Tensor]:
        """(B, M, t) arrays -> (B, n) tensors, finished and in order."""
        hop = self.frontend.hop_length
        num_frames = self.frontend.num_frames(num_samples)
        generator = torch.Generator().manual_seed(self.seed)
        tail: Tensor | None = None
        for chunk, frames in windows(blocks, self.chunk_frames, HALO):
            mel = torch.from_numpy(np.ascontiguousarray(frames)).to(self.frontend.window)
            end = num_samples if chunk.read_stop >= num_frames else (chunk.read_stop - 1) * hop
            wav = self.continued(mel, end - chunk.read_start * hop, generator, tail)
            if chunk.keep_stop >= num_frames:
                yield wav
                return
            finished = (chunk.keep_stop - HALO - chunk.read_start) * hop
            yield wav[:, :finished]
            tail = wav[:, finished:]

    @torch.no_grad()
    def continued(self, mel: Tensor, num_samples: int, generator: torch.Generator, tail: Tensor | None) -> Tensor:
        """A chunk of a longer sound: mel (B, M, T) -> wav (B, ``num_samples``), with S // hop + 1 = T.

        Args:
            generator: of the phases to start from, one for all chunks.
            tail: (B, n) the previous chunk's sound where this one begins, which is continued; None for the first one.
        """
        tail = None if tail is None or not tail.shape[-1] else tail[:, :num_samples]
        wav = self._synthesize(mel, num_samples, generator, tail)
        if tail is not None:
            shared = tail.shape[-1]
            wav[:, :shared] = torch.lerp(tail, wav[:, :shared], self._fade(shared))
        return wav

    def _fade(self, num_samples: int) -> Tensor:
        ramp = torch.linspace(0, 1, num_samples, dtype=torch.float32, device=self.frontend.window.device)
        return ((ramp - FADE.start) / (FADE.stop - FADE.start)).clamp(0, 1)

    def _synthesize(self, mel: Tensor, num_samples: int, generator: torch.Generator, head: Tensor | None) -> Tensor:
        """mel (B, M, T) -> wav (B, num_samples) that continues from ``head`` (B, n)."""
        magnitude = self.magnitude(mel)
        # frames first, on the CPU: the same phases for every length, batch and device
        turns = torch.rand(mel.shape[-1], magnitude.shape[1], generator=generator, dtype=torch.float32)
        angles = 2 * math.pi * turns.T.to(magnitude)
        phases = torch.polar(torch.ones_like(angles), angles).expand_as(magnitude)
        held = phases[..., :0]
        if head is not None:
            known = torch.sgn(stft(head, self.frontend))
            phases = torch.cat([known, phases[..., known.shape[-1] :]], dim=-1)
            held = known[..., : int(HELD * known.shape[-1])]
        return fast_griffin_lim(magnitude, phases, self.frontend, num_samples, self.iterations, self.momentum, held)


def fast_griffin_lim(
    magnitude: Tensor,
    phases: Tensor,
    frontend: MelFrontend,
    num_samples: int,
    iterations: int,
    momentum: float,
    held: Tensor | None = None,
) -> Tensor:
    """Phases that fit ``magnitude`` better than those given, as a wave.

    Its transforms are those of ``framing``, which a test compares with torch's.

    An iteration moves what a frame knows by 3 frames when n_fft = 4 hop: see ``network.iteration_reach``.

    Args:
        magnitude: (B, F, T).
        phases: (B, F, T) complex numbers of length 1, to start from.
        num_samples: S, with S // hop + 1 = T.
        iterations: projections between magnitudes and consistent spectrograms.
        momentum: 0 is the classic algorithm.
        held: (B, F, n) phases of the first n frames, which stay as they are.

    Returns:
        wav (B, S).
    """
    framing = Framing(frontend, num_samples)
    magnitude = magnitude.transpose(1, 2).contiguous()
    spectrum = magnitude * phases.transpose(1, 2)
    real, imag = spectrum.real.contiguous(), spectrum.imag.contiguous()
    fixed = 0 if held is None else held.shape[-1]
    start = real[:, :fixed], imag[:, :fixed]
    before = torch.zeros_like(real), torch.zeros_like(imag)
    for _ in range(iterations):
        now = framing.spectrum(framing.wave(real, imag))
        # c + m (c - b), but for a factor that the next line removes: only the phases are kept
        real, imag = (torch.sub(c, b, alpha=momentum / (1 + momentum)) for c, b in zip(now, before, strict=True))
        scale = real.square().addcmul_(imag, imag).clamp_min_(TINY).rsqrt_().mul_(magnitude)
        real.mul_(scale)
        imag.mul_(scale)
        real[:, :fixed], imag[:, :fixed] = start
        before = now
    return framing.wave(real, imag)[:, framing.inside]


def stft(wav: Tensor, frontend: MelFrontend) -> Tensor:
    """wav (B, S) -> (B, F, S // hop + 1), centred as the front end but zero-padded: reflection needs 513 samples."""
    n_fft, hop, window = frontend.n_fft, frontend.hop_length, frontend.window
    return torch.stft(wav, n_fft, hop, window=window, pad_mode="constant", return_complex=True)


def istft(spectrum: Tensor, frontend: MelFrontend, num_samples: int) -> Tensor:
    """(B, F, T) -> wav (B, S) of ``num_samples``."""
    n_fft, hop, window = frontend.n_fft, frontend.hop_length, frontend.window
    return torch.istft(spectrum, n_fft, hop, window=window, length=num_samples)
