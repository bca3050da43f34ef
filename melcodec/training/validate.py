"""Judging a model on held-out speech: errors and codebook usage over the whole set, never per batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from melcodec import distributed
from melcodec.audio.mel import MelFrontend
from melcodec.devices import exact_float32
from melcodec.metrics.codes import code_usage
from melcodec.metrics.spectral import log_mel_l1
from melcodec.training.cache import MelCache
from melcodec.vqvae import VQVAE

WINDOW_SECONDS = 30.0  # encoded at once: hours would not fit in memory
SAMPLE_SECONDS = 5.0  # of each clip that is drawn and sounded


@dataclass(frozen=True)
class Verdict:
    """One validation. errors (W,): log-mel L1 of each window; counts: of every codebook (K,), over all of them."""

    errors: np.ndarray
    counts: list[np.ndarray]
    agreement: float | None

    @property
    def error(self) -> float:
        """Mean log-mel L1, natural log power."""
        return float(self.errors.mean())

    def scalars(self) -> dict[str, float]:
        """What is logged."""
        books = [code_usage(counts) for counts in self.counts]
        values: dict[str, float] = {
            "log_mel_l1": self.error,
            "codes_used": sum(book.used for book in books),
            "codes_dead": sum(len(counts) - book.used for counts, book in zip(self.counts, books, strict=True)),
            # of several codebooks, what an evenly used one would have on average
            "perplexity": math.exp(sum(math.log(book.perplexity) for book in books) / len(books)),
            "entropy_bits": sum(book.entropy_bits for book in books),
        }
        if len(books) > 1:
            values |= {f"perplexity_{number}": book.perplexity for number, book in enumerate(books)}
        return values if self.agreement is None else {**values, "agreement": self.agreement}


class Validator:
    """Fixed windows of held-out speech, shared by all processes.

    Args:
        cache: held-out mels.
        frontend: for its norms, on the device.
        minutes: most speech to use; of more, an even selection is used.
        reference: a model whose codes are the ones to keep; ``Verdict.agreement`` is the share that is equal.
    """

    def __init__(self, cache: MelCache, frontend: MelFrontend, minutes: float, reference: VQVAE | None = None) -> None:
        self.cache, self.frontend = cache, frontend
        per_second = frontend.sample_rate / frontend.hop_length
        self.windows = _windows(cache.starts, round(WINDOW_SECONDS * per_second), round(minutes * 60 * per_second))
        self.reference = None if reference is None else [self._codes(reference, *window).cpu() for window in self._mine()]

    def _mine(self) -> list[tuple[int, int]]:
        return self.windows[distributed.rank() :: distributed.world_size()]

    def mel(self, first: int, last: int) -> Tensor:
        """Rows of the cache -> natural log-mel (1, M, T) on the device."""
        return torch.from_numpy(self.cache.mels[first:last].T.astype(np.float32))[None].to(self.frontend.norms.device)

    @torch.no_grad()
    def _codes(self, model: VQVAE, first: int, last: int) -> Tensor:
        with exact_float32(self.frontend.norms.device):
            return model.encode(self.frontend.normalize(self.mel(first, last)))

    @torch.no_grad()
    def reconstruct(self, model: VQVAE, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Natural mel (1, M, T) -> codes (1, Q, N) and natural mel (1, M, 4 N), in float32 as encoding does it."""
        model.eval()
        with exact_float32(mel.device):
            codes = model.encode(self.frontend.normalize(mel))
            return codes, self.frontend.denormalize(model.decode(codes))

    def judge(self, model: VQVAE) -> Verdict:
        """Reconstruct every window; each process takes its share, and all get the same verdict."""
        device = self.frontend.norms.device
        errors = torch.zeros(len(self.windows), dtype=torch.float64, device=device)
        counts = torch.zeros(len(model.sizes), max(model.sizes), dtype=torch.int64, device=device)
        same = torch.zeros(2, dtype=torch.int64, device=device)  # equal codes, codes
        for index, window in enumerate(self._mine()):
            mel = self.mel(*window)
            codes, output = self.reconstruct(model, mel)
            place = distributed.rank() + index * distributed.world_size()
            errors[place] = log_mel_l1(mel.cpu().numpy(), output[..., : mel.shape[-1]].cpu().numpy())
            found = codes[0]
            counts.scatter_add_(1, found, torch.ones_like(found))
            if self.reference is not None:
                same += torch.tensor([(codes.cpu() == self.reference[index]).sum(), codes.numel()], device=device)
        distributed.all_reduce_sum(errors, counts, same)
        agreement = None if self.reference is None else float(same[0] / same[1])
        books = [book[:size] for book, size in zip(counts.cpu().numpy(), model.sizes, strict=True)]
        return Verdict(errors.cpu().numpy(), books, agreement)

    def clips(self, count: int) -> list[Tensor]:
        """The first seconds of ``count`` utterances, spread over the set: natural log-mel (1, M, T) each."""
        entries = np.unique(np.linspace(0, len(self.cache.starts) - 2, count).round().astype(int))
        frames = round(SAMPLE_SECONDS * self.frontend.sample_rate / self.frontend.hop_length)
        bounds = [(int(self.cache.starts[i]), int(self.cache.starts[i + 1])) for i in entries]
        return [self.mel(first, min(last, first + frames)) for first, last in bounds]


def _windows(starts: np.ndarray, longest: int, most: int) -> list[tuple[int, int]]:
    """Every entry in windows of up to ``longest`` rows, thinned evenly to about ``most`` rows in all."""
    windows = [
        (first, min(int(stop), first + longest))
        for start, stop in pairwise(starts)
        for first in range(int(start), int(stop), longest)
    ]
    total = sum(last - first for first, last in windows)
    keep = max(1, round(len(windows) * min(1.0, most / max(1, total))))
    picked = np.linspace(0, len(windows) - 1, keep).round().astype(int)
    return [windows[index] for index in picked]
