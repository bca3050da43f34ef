"""What the trainer costs beside the arithmetic: its steps against a bare loop, and how soon the first one comes.

    python benchmarks/training.py --data CORPUS [--preset xtts] [--device auto]

The bare loop is forward, backward and AdamW step on one batch that is already in memory, in the same precision. Both run
in turns in one process, so that a busy machine slows both. Figures are medians over blocks of steps, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from melcodec.audio.mel import build_frontend
from melcodec.config import load_preset, with_overrides, xtts_mel_norms
from melcodec.manifests.build import find_utterances
from melcodec.objective.build import Objective
from melcodec.training.cache import cache_mels
from melcodec.training.engine import start_engine
from melcodec.training.loop import Callbacks, Corpus, Trainer
from melcodec.training.optimizer import build_optimizer
from melcodec.vqvae import build_vqvae


def timed(step, count: int, device: torch.device) -> float:
    """Seconds per call."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / count


def bare_step(config, engine, trainer: Trainer):
    """Forward, backward and step on a batch in memory."""
    torch.manual_seed(0)
    model = build_vqvae(config.model).to(engine.device).train()
    model.codebook.load_state_dict(trainer.state.model.codebook.state_dict())
    optimizer, objective = build_optimizer(model, config.optimizer), Objective(config.objective, trainer.frontend.norms)
    mel = trainer.frontend.normalize(trainer.crops.batch(trainer.crops.draw(0)).mel)

    def step() -> None:
        with engine.autocast():
            output = model(mel)
        objective.total(objective(output, mel)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def first_step(data: str, preset: str, device: str) -> float:
    """Seconds from the command to its first finished step, on a cached corpus."""
    with tempfile.TemporaryDirectory() as folder:
        rhythm = ["--set", "train.log_every=1", "--set", "train.steps=1", "--set", "train.valid_every=1000000"]
        command = [sys.executable, "-m", "melcodec", "train", data, "--preset", preset, "--device", device, *rhythm, "-o", folder]
        metrics, began = Path(folder) / "metrics.jsonl", time.perf_counter()
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while child.poll() is None and not (metrics.exists() and '"train"' in metrics.read_text()):
            time.sleep(0.02)
        took = time.perf_counter() - began
        child.kill()
        child.wait()
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset", default="xtts")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="per block")
    options = parser.parse_args()

    config = with_overrides(load_preset(options.preset), ["train.samples=0", "augment.speeds=[1.0]"])
    engine = start_engine(config, options.device)
    cache = cache_mels(find_utterances([options.data]), config.model.mel)
    with tempfile.TemporaryDirectory() as folder:
        frontend = build_frontend(config.model.mel, xtts_mel_norms())
        trainer = Trainer(config, Corpus(cache, cache), frontend, Path(folder), engine, Callbacks())
        trainer.start_codebook()
        bare = bare_step(config, engine, trainer)
        for step in (bare, trainer.stepper.step):
            timed(step, 2, engine.device)  # warm-up
        pairs = [
            (timed(bare, options.steps, engine.device), timed(trainer.stepper.step, options.steps, engine.device))
            for _ in range(options.blocks)
        ]
    data, mel = config.data, config.model.mel
    speech = data.batch_size * data.crop_frames * mel.hop_length / mel.sample_rate
    ours = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
    parameters = sum(parameter.numel() for parameter in trainer.state.model.parameters()) / 1e6
    precision = "bfloat16" if engine.bfloat16 else "float32"
    print(f"{parameters:.1f} M parameters, {data.batch_size} x {data.crop_frames} frames, {precision}, {engine.device}")
    print(f"trainer {ours:.3f} s a step, {speech / ours:.0f} s of speech a second; {ratio:.1%} of the bare loop's speed")
    print(f"first step {first_step(options.data, options.preset, options.device):.1f} s after the command")


if __name__ == "__main__":
    main()
