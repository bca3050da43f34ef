"""What a run looks and sounds like: the same few held-out clips at every validation, and the codebook itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from melcodec.audio.io import save
from melcodec.config import RunConfig
from melcodec.plots import Scale, plot_codebook, plot_roundtrip, save_figure
from melcodec.training.logs import RunLog
from melcodec.training.validate import Validator
from melcodec.vocoder.build import build_vocoder
from melcodec.vqvae import VQVAE

FOLDER = "samples"


@dataclass(frozen=True)
class Snapshot:
    """A model's clips: codes (1, Q, N) and natural mel (1, M, stride N) each.

    books: of every codebook, its codewords (K, d) and how often each was used (K,).
    """

    step: int
    outputs: list[tuple[Tensor, Tensor]]
    books: list[tuple[np.ndarray, np.ndarray]]


class Samples:
    """Pictures and sounds in ``samples/`` of the run's folder and in its trackers.

    Args:
        config: ``train.samples`` clips are shown; none draws and sounds nothing.
        folder: of the run.
        validator: has the clips.
    """

    def __init__(self, config: RunConfig, folder: Path, validator: Validator) -> None:
        self.mel_config, self.folder, self.validator = config.model.mel, folder / FOLDER, validator
        self.clips = validator.clips(config.train.samples)
        self.vocoder = build_vocoder(config.vocoder, validator.frontend)
        self.loudest = validator.frontend.loudest[:, None]

    def take(self, step: int, model: VQVAE, counts: list[np.ndarray]) -> Snapshot:
        """What ``model`` makes of the clips after ``step``; ``counts`` (K,) of every codebook is its use."""
        outputs = [self.validator.reconstruct(model, mel) for mel in self.clips]
        tables = [table.cpu().numpy().copy() for table in model.quantizer.tables()]
        # codebooks that share one table are used together
        share = len(counts) // max(1, len(tables))
        used = [np.sum(counts[index :: len(tables)], axis=0) for index in range(len(tables))] if share else []
        return Snapshot(step, outputs, list(zip(tables, used, strict=True)))

    def show(self, log: RunLog, taken: Snapshot) -> None:
        """Draw and sound it, which takes a few seconds."""
        step = taken.step
        for index, (mel, (codes, output)) in enumerate(zip(self.clips, taken.outputs, strict=True)):
            name, title = f"clip{index}", f"validation clip {index}, step {step}"
            figure = plot_roundtrip(
                mel[0].cpu().numpy(), output[0].cpu().numpy(), codes[0].cpu().numpy(), Scale.of(self.mel_config), title
            )
            save_figure(figure, clip_path(self.folder, index, step, ".png"))
            log.picture(f"{name}/mel", step, clip_path(self.folder, index, step, ".png"))
            untouched, decoded = clip_path(self.folder, index, None, ".wav"), clip_path(self.folder, index, step, ".wav")
            if not untouched.exists():
                self._sound(log, f"{name}/original", untouched, step, mel)
            self._sound(log, f"{name}/reconstruction", decoded, step, output[..., : mel.shape[-1]])
        for number, (table, counts) in enumerate(taken.books if self.clips else []):
            name = "codebook" if len(taken.books) == 1 else f"codebook {number}"
            path = codebook_path(self.folder, step, number)
            save_figure(plot_codebook(table, counts, f"{name}, step {step}"), path)
            log.picture(name, step, path)

    def _sound(self, log: RunLog, name: str, path: Path, step: int, mel: Tensor) -> None:
        mel = torch.minimum(mel, self.loudest)  # as Codec.decode: an untrained model may give more than a float wave can hold
        wav = self.vocoder(mel, (mel.shape[-1] - 1) * self.mel_config.hop_length)[0].clamp(-1, 1).cpu().numpy()
        save(path, wav, self.mel_config.sample_rate)
        log.sound(name, step, wav, self.mel_config.sample_rate)


def clip_path(folder: Path, index: int, step: int | None, suffix: str) -> Path:
    """Where clip ``index`` of ``step`` lies in ``folder``; None is the original."""
    return folder / (f"clip{index}-original{suffix}" if step is None else f"clip{index}-step-{step:08}{suffix}")


def codebook_path(folder: Path, step: int, number: int = 0) -> Path:
    """Where the picture of codebook ``number`` at ``step`` lies in ``folder``."""
    return folder / f"codebook{number or ''}-step-{step:08}.png"
