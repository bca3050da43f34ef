"""What tuning does to the codes of a DVAE: the way of a common script for XTTS beside the three of ``melcodec train --tune``.

    python benchmarks/xtts_tuning.py SPEAKER_FOLDER [--checkpoint melcodec-base] [--picture docs/pictures/xtts-tuning.png]
    python benchmarks/xtts_tuning.py SPEAKER_FOLDER --learn-from OTHER_FOLDER      # a narrow model, learned first: minutes

The common script pads every clip of a batch with zeros to the longest, counts that padding in the losses and in the codebook,
and leaves the codebook's moving averages on, because ``train()`` switches them on whatever the learning rate is. All four ways
start from the same checkpoint, with the same learning rate, gradient clipping and number of clips per step. On held-out clips of
the same speaker, encoded alone, two things are measured: the share of codes that are still those of the start, and the log-mel
error. Prints a table and draws both as curves.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from melcodec.audio.io import find_audio, load, probe
from melcodec.audio.mel import MelFrontend, build_frontend
from melcodec.config import RunConfig, load_preset, with_overrides, xtts_mel_norms
from melcodec.formats.checkpoint import Checkpoint, from_model, load_checkpoint
from melcodec.formats.shipped import find_checkpoint
from melcodec.plots.base import BLACK, BLUE, ORANGE, SKY, calm, new_figure, save_figure
from melcodec.training.cache import MelCache
from melcodec.training.engine import start_engine
from melcodec.training.loop import Callbacks, Corpus, Trainer
from melcodec.training.validate import Validator
from melcodec.vqvae import VQVAE

COMMON = "the common script"
WAYS = {COMMON: (ORANGE, "-"), "full": (BLUE, "--"), "frozen-codebook": (SKY, "-."), "decoder": (BLACK, ":")}
GRAD_CLIP = 0.5
LEARNED_CLIPS = 100


class Point(NamedTuple):
    """Held-out speech after ``step`` steps: share of codes equal to the start's, log-mel L1 (natural log power)."""

    step: int
    agreement: float
    error: float


def choose(folder: Path, count: int, seconds: tuple[float, float]) -> list[Path]:
    """Up to ``count`` files of ``folder`` that last between two times, spread evenly over the sorted names."""
    fitting = [path for path in find_audio(folder) if seconds[0] <= (probe(path).seconds or 0) <= seconds[1]]
    return [fitting[index] for index in np.unique(np.linspace(0, len(fitting) - 1, count).round().astype(int))]


def mels_of(waves: Sequence[np.ndarray], frontend: MelFrontend) -> MelCache:
    """Their natural log-mels, as a corpus in memory."""
    mels = [frontend(torch.from_numpy(wave)[None])[0].T.numpy().astype(np.float16) for wave in waves]
    starts = np.cumsum([0, *map(len, mels)])
    return MelCache(np.concatenate(mels), starts, [str(index) for index in range(len(mels))], {})


class CommonScript:
    """Whole clips, zero-padded to the longest of the batch; Adam; the plain sum of squared error and commitment; no mask."""

    def __init__(self, model: VQVAE, waves: Sequence[np.ndarray], frontend: MelFrontend, config: RunConfig) -> None:
        self.model, self.waves, self.frontend, self.batch_size = model, waves, frontend, config.data.batch_size
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.optimizer.lr)
        self.rng = np.random.default_rng(config.train.seed)
        self.frames, self.padding = 0, 0

    def batch(self) -> Tensor:
        """Normalised mels (B, M, T) of zero-padded waves, cut to whole codes."""
        waves = [self.waves[index] for index in self.rng.integers(len(self.waves), size=self.batch_size)]
        longest = max(map(len, waves))
        mel = self.frontend.normalize(self.frontend(torch.stack([torch.from_numpy(_padded(wave, longest)) for wave in waves])))
        mel = mel[..., : mel.shape[-1] // self.model.reach.stride * self.model.reach.stride]
        self.frames += mel.shape[0] * mel.shape[-1]
        self.padding += sum((longest - len(wave)) // self.frontend.hop_length for wave in waves)
        return mel

    def step(self) -> None:
        """One step; the codebook follows its averages, as it does in training mode."""
        mel = self.batch()
        self.model.train()
        output = self.model(mel)
        (mse_loss(output.reconstruction, mel) + output.quantized.losses["commitment"]).backward()
        clip_grad_norm_(self.model.parameters(), GRAD_CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.quantizer.update([output.quantized.moments], 0, torch.Generator())


def _padded(wave: np.ndarray, length: int) -> np.ndarray:
    return np.pad(wave, (0, length - len(wave)))


def curve(model: VQVAE, step: Callable[[], object], validator: Validator, config: RunConfig) -> list[Point]:
    """Steps, and what they do to held-out speech."""
    points = []
    for done in range(config.train.steps + 1):
        if done % config.train.valid_every == 0:
            verdict = validator.judge(model.eval())
            points.append(Point(done, verdict.agreement or 0.0, verdict.error))
        if done < config.train.steps:
            step()
    return points


def trainer_for(config: RunConfig, corpus: Corpus, frontend: MelFrontend, start: Checkpoint | None = None) -> Trainer:
    """As ``melcodec train`` makes one, without a run folder: nothing is saved."""
    return Trainer(config, corpus, frontend, Path(tempfile.gettempdir()), start_engine(config, "cpu"), Callbacks(), start)


def learned_start(waves: Sequence[np.ndarray], frontend: MelFrontend, hidden: int, steps: int) -> Checkpoint:
    """A narrow model, trained from scratch on other speakers."""
    words = [f"model.backbone.hidden={hidden}", "model.dim=64", "model.quantizer.codebook_size=256", f"train.steps={steps}"]
    config = with_overrides(load_preset("tiny"), words)
    corpus = mels_of(waves, frontend)
    trainer = trainer_for(config, Corpus(corpus, corpus), frontend)
    trainer.start_codebook()
    for _ in range(steps):
        trainer.stepper.step()
    return from_model(trainer.state.model, config.model, xtts_mel_norms(), {})


def tuned(way: str, start: Checkpoint, clips: tuple[list[np.ndarray], list[np.ndarray]], config: RunConfig) -> list[Point]:
    """The curve of one way to tune ``start`` on clips[0], judged on clips[1]."""
    frontend = build_frontend(config.model.mel, start.mel_norms)
    held_out = mels_of(clips[1], frontend)
    validator = Validator(held_out, frontend, 60, start.build())
    if way == COMMON:
        script = CommonScript(start.build(), clips[0], frontend, config)
        points = curve(script.model, script.step, validator, config)
        print(f"{COMMON}: {script.padding / max(1, script.frames):.0%} of the frames it learned from were padding")
        return points
    config = with_overrides(config, [f"train.tune={way}"])
    trainer = trainer_for(config, Corpus(mels_of(clips[0], frontend), held_out), frontend, start)
    return curve(trainer.state.model, trainer.stepper.step, validator, config)


def draw(curves: dict[str, list[Point]], path: Path) -> None:
    """Both measures over the steps."""
    figure = new_figure(9, 3.6)
    kept, error = figure.subplots(1, 2)
    for way, points in curves.items():
        colour, style = WAYS[way]
        steps, shares, errors = zip(*points, strict=True)
        label = way if way == COMMON else f"melcodec --tune {way}"
        kept.plot(steps, [100 * share for share in shares], color=colour, linestyle=style, label=label)
        error.plot(steps, errors, color=colour, linestyle=style)
    kept.set(xlabel="steps", ylabel="codes as before, %", ylim=(0, 103))
    error.set(xlabel="steps", ylabel="log-mel L1 of held-out clips")
    kept.legend(fontsize=8, frameon=False, loc="lower left")
    for axes in (kept, error):
        calm(axes)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speaker", type=Path, help="folder with recordings to tune on")
    parser.add_argument("--checkpoint", default="melcodec-base", help="to start from")
    parser.add_argument("--learn-from", type=Path, help="folder; start instead from a narrow model that learns from it first")
    parser.add_argument("--hidden", type=int, default=32, help="width of that model")
    parser.add_argument("--start-steps", type=int, default=600, help="of that model")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--held-out", type=int, default=12)
    parser.add_argument("--seconds", type=float, nargs=2, default=(0.5, 11.6), help="shortest and longest clip")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=25, help="steps between measurements")
    parser.add_argument("--lr", type=float, default=5e-6, help="of all four ways; what common scripts take is the default")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()

    torch.set_num_threads(1)
    began, seconds = time.monotonic(), tuple(options.seconds)
    if options.learn_from:
        frontend = build_frontend(load_preset("tiny").model.mel, xtts_mel_norms())
        waves = [load(path, frontend.sample_rate) for path in choose(options.learn_from, LEARNED_CLIPS, (0.5, 11.6))]
        start = learned_start(waves, frontend, options.hidden, options.start_steps)
    else:
        start = load_checkpoint(find_checkpoint(options.checkpoint))
    rate = start.config.mel.sample_rate
    waves = [load(path, rate) for path in choose(options.speaker, options.clips + options.held_out, seconds)]
    apart = np.linspace(0, len(waves) - 1, options.held_out).round().astype(int)
    clips = [wave for index, wave in enumerate(waves) if index not in apart], [waves[index] for index in apart]
    settings = ["data.crop_frames=64", "data.batch_size=8", "optimizer.warmup_steps=0", f"optimizer.lr={options.lr}"]
    settings += [f"train.steps={options.steps}", f"train.valid_every={options.every}", "train.precision=float32"]
    preset = load_preset("finetune").model_copy(update={"model": start.config})
    config = with_overrides(preset, settings)
    lengths = [sum(map(len, part)) / rate for part in clips]
    print(f"start: hidden {start.config.backbone.hidden}, K {start.config.quantizer.sizes[0]}, D {start.config.dim}")
    print(
        f"{len(clips[0])} clips, {lengths[0]:.0f} s, to tune on; {len(clips[1])}, {lengths[1]:.0f} s, held out; lr {options.lr:g}"
    )
    curves = {}
    for way in WAYS:
        curves[way] = tuned(way, start, clips, config)
        first, last = curves[way][0], curves[way][-1]
        print(
            f"{way:<18} step {last.step}: {last.agreement:6.1%} of the codes as before, "
            f"log-mel L1 {first.error:.3f} -> {last.error:.3f}",
            flush=True,
        )
    print(f"{time.monotonic() - began:.0f} s")
    if options.picture:
        draw(curves, options.picture)


if __name__ == "__main__":
    main()
