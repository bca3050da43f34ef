"""What a system is, and the tools that all of them share."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.scores import Sound
from melcodec.metrics.waves import find_delay

PROGRAM_SECONDS = 120


class Tools:
    """The codec that is evaluated, and what turns mels and waves into what is scored.

    Args:
        centres: (K, stride * M) k-means codebook of mel supervectors, or None.
        audible: whether sound is wanted, or the mel alone.
    """

    def __init__(self, codec: Codec, centres: np.ndarray | None = None, audible: bool = False) -> None:
        self.codec, self.centres, self.audible = codec, centres, audible

    def original(self, wav: np.ndarray) -> Sound:
        """(S,) float32 at the codec's rate -> Sound."""
        return Sound(wav, self.codec.sample_rate, self.codec.mel(wav)[0].cpu().numpy())

    def encode(self, original: Sound) -> np.ndarray:
        """-> codes (Q, N) int64."""
        return self.codec.encode_mel(torch.from_numpy(original.mel)[None])[0].cpu().numpy()

    @torch.inference_mode()
    def from_mel(self, made: Tensor, original: Sound) -> Sound:
        """Natural log-mel (1, M, T'), at least as long as the original's, as a Sound of its length."""
        made = made[..., : original.mel.shape[-1]]
        wav = None
        if self.audible:
            limited = torch.minimum(made.to(self.codec.device).contiguous(), self.codec.frontend.loudest[:, None])
            wav = self.codec.vocoder(limited, len(original.wave))[0].clamp(-1, 1).cpu().numpy()
        return Sound(wav, self.codec.sample_rate, made[0].cpu().numpy())

    def from_wave(self, wav: np.ndarray, original: Sound) -> Sound:
        """An external codec's wave without its delay and as long as the original, so that mel frames correspond."""
        delay = find_delay(original.wave, wav, self.codec.sample_rate)
        wav = np.pad(wav[max(0, delay) :], (max(0, -delay), 0))[: len(original.wave)]
        sound = self.original(np.pad(wav, (0, len(original.wave) - len(wav))))
        return replace(sound, moved=delay)


class System:
    """One way to turn a sound into a sound; created in every worker process from the same ``Tools``.

    Attributes:
        name: as in tables and in metrics.json.
        label: what it is, in a few words.
        bit_rate: bit/s; None where nothing is coded.
    """

    name: str
    label: str
    bit_rate: float | None = None

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    @classmethod
    def unavailable(cls, codec: Codec, train: bool) -> str:
        """Why it cannot be measured here, or empty; ``train``: there is speech to learn from."""
        return ""

    def output(self, original: Sound, codes: np.ndarray) -> Sound:
        """What the system makes of ``original``, whose codes (Q, N) are known.

        Raises:
            MelcodecError: it cannot be done with this sound; the system is left out for it.
        """
        raise NotImplementedError


def run_program(program: str, *arguments: str) -> None:
    """Run an external codec; raises MelcodecError with its last line when it fails."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=PROGRAM_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise MelcodecError(f"{program} took over {PROGRAM_SECONDS} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise MelcodecError(f"{program} failed: {words[-1] if words else f'status {done.returncode}'}")
