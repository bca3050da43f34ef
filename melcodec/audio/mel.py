"""The XTTS mel front end: wav (B, S) -> natural log-mel power (B, M, T).

Source: ``TorchMelSpectrogram`` of Tortoise and XTTS; bit-equal on the same torch. Two domains exist: the *natural* one,
ln(max(mel power, floor)), which files hold, and the *normalised* one, natural / norms per band, which the model sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.config import MelConfig
from melcodec.devices import exact_float32, float32_by_default


class MelFrontend(nn.Module):
    """Log-mel spectrogram with per-band norms.

    Args:
        norms: M per-band mean log-mel values, all non-zero.
        sample_rate: Hz.
        n_fft: window and FFT length, samples.
        hop_length: samples per frame.
        f_min, f_max: band edges in Hz; HTK scale, Slaney area norm.
        floor: mel power below this is clamped before the logarithm.
    """

    window: Tensor
    filters: Tensor
    norms: Tensor

    @float32_by_default()
    def __init__(
        self,
        norms: Sequence[float],
        sample_rate: int = 22_050,
        n_fft: int = 1024,
        hop_length: int = 256,
        f_min: float = 0.0,
        f_max: float = 8_000.0,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.sample_rate, self.n_fft, self.hop_length, self.floor = sample_rate, n_fft, hop_length, floor
        self.n_mels, self.f_min, self.f_max = len(norms), f_min, f_max
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        # (n_fft // 2 + 1, M)
        filters = melscale_fbanks(n_fft // 2 + 1, f_min, f_max, self.n_mels, sample_rate, norm="slaney", mel_scale="htk")
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("norms", torch.tensor(norms, dtype=torch.float32), persistent=False)

    @property
    def config(self) -> MelConfig:
        """Everything that decides the natural mel; the norms do not."""
        names = [name for name in MelConfig.model_fields if name != "n_mels"]
        return MelConfig(n_mels=self.n_mels, **{name: getattr(self, name) for name in names})

    @property
    def min_samples(self) -> int:
        """Reflection needs more samples than half a window: 513 for XTTS."""
        return self.n_fft // 2 + 1

    @property
    def loudest(self) -> Tensor:
        """(M,) natural log-mel that no wave in [-1, 1] exceeds: every sample in phase at full scale."""
        return torch.log(self.filters.sum(0) * self.window.sum() ** 2)

    def num_frames(self, num_samples: int) -> int:
        """T = S // hop + 1."""
        return num_samples // self.hop_length + 1

    def forward(self, wav: Tensor) -> Tensor:
        """wav (B, S) float32, S >= n_fft // 2 + 1 -> natural log-mel (B, M, S // hop + 1)."""
        half = self.n_fft // 2
        return self.from_padded(F.pad(wav[:, None], (half, half), mode="reflect")[:, 0])

    def reflected(self, wav: Tensor, lengths: Tensor) -> Tensor:
        """wav (B, S), lengths (B,) samples of each item -> (B, S + n_fft), reflected at each item's own end, for ``from_padded``.

        An item shorter than ``min_samples`` is followed by zeros up to that. Frames behind an item's own mean nothing.
        """
        half, least = self.n_fft // 2, self.min_samples
        last = lengths.clamp(min=least)[:, None] - 1
        place = (torch.arange(wav.shape[1] + 2 * half, device=wav.device) - half).abs()
        place = (last - (last - place).abs()).clamp(min=0)
        inside = torch.arange(wav.shape[1], device=wav.device) < lengths[:, None]
        return F.pad(wav * inside, (0, least)).gather(1, place)

    def from_padded(self, wav: Tensor) -> Tensor:
        """wav (B, S') that already has half a window of context at both ends -> (B, M, (S' - n_fft) // hop + 1)."""
        with exact_float32(wav.device):
            spectrum = torch.stft(wav, self.n_fft, self.hop_length, window=self.window, center=False, return_complex=True)
            power = spectrum.abs().pow(2.0)
            mel = torch.matmul(power.transpose(-1, -2), self.filters).transpose(-1, -2)
            return torch.log(torch.clamp(mel, min=self.floor))

    def normalize(self, mel: Tensor) -> Tensor:
        """Natural (..., M, T) -> the model's domain: divided per band, nothing subtracted."""
        return mel / self.norms[:, None]

    def denormalize(self, mel: Tensor) -> Tensor:
        """The model's domain (..., M, T) -> natural log-mel."""
        return mel * self.norms[:, None]

    def stream(self, blocks: Iterable[np.ndarray], frames: int = 4096) -> Iterator[np.ndarray]:
        """Natural log-mel of a stream, equal to one pass over the whole and in bounded memory.

        Args:
            blocks: float32 (n,) arrays that continue each other.
            frames: the fewest frames to compute at once, except at the end.

        Yields:
            float32 (M, t) arrays on the CPU, S // hop + 1 frames in total. Fewer than ``min_samples`` samples in
            total are padded with zeros up to that; no sample at all gives no frame.
        """
        half, hop = self.n_fft // 2, self.hop_length
        buffer: np.ndarray | None = None
        total, seen, started = 0, [np.empty(0, np.float32)], False

        for block in blocks:
            total += len(block)
            seen.append(block)
            if sum(map(len, seen)) < frames * hop + 2 * self.n_fft:
                continue
            buffer = np.concatenate(seen)
            if not started:
                buffer, started = np.concatenate([buffer[half:0:-1], buffer]), True
            whole = (len(buffer) - self.n_fft) // hop + 1
            yield self._numpy(buffer[: (whole - 1) * hop + self.n_fft])
            seen = [buffer[whole * hop :]]
        if total == 0:
            return
        buffer = np.concatenate(seen)
        if not started:
            buffer = np.pad(buffer, (0, max(0, self.min_samples - len(buffer))))
            buffer = np.concatenate([buffer[half:0:-1], buffer])
            left = self.num_frames(total)
        else:
            left = None
        tail = buffer[-2 : -half - 2 : -1]
        mel = self._numpy(np.concatenate([buffer, tail]))
        # a clip shorter than half a window keeps the frames of its real length
        yield mel[:, :left]

    @torch.inference_mode()
    def _numpy(self, padded: np.ndarray) -> np.ndarray:
        wav = torch.from_numpy(np.ascontiguousarray(padded))[None].to(self.window.device)
        return self.from_padded(wav)[0].cpu().numpy()


def build_frontend(config: MelConfig, norms: Sequence[float]) -> MelFrontend:
    """The front end that ``config`` describes, with ``norms`` (M,)."""
    settings = config.model_dump(exclude={"n_mels"})
    return MelFrontend(norms, **settings)
