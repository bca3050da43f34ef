"""A prior's training and sampling beside the least that they could take, as ratios: python benchmarks/prior.py [--preset small]

Training: tokens per second of ``prior.train`` against the same network, optimizer and batch without data, mask, log and checks.
Sampling: times real time, one sequence and four together, and the same by transformers' own ``generate`` with its cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from melcodec.config import with_overrides
from melcodec.metrics.ngram import fit
from melcodec.prior.config import load_prior_preset
from melcodec.prior.data import Sequences
from melcodec.prior.models import Prior
from melcodec.prior.network import build_network
from melcodec.prior.reading import CodeSpace
from melcodec.prior.run import engine_settings
from melcodec.prior.sample import sample
from melcodec.prior.train import Hooks, Lesson, Trainer
from melcodec.tokens import Tokens
from melcodec.training.engine import start_engine

SPACE = CodeSpace("0" * 12, (1024,), 22_050, 1024)
STEPS = 6  # of each loop, after one that warms up


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="small")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = with_overrides(load_prior_preset(arguments.preset), ["train.valid_every=1000000", "train.log_every=1000000"])
    random = np.random.default_rng(0)
    data = [random.integers(0, 1024, (1, int(random.integers(40, 260)))) for _ in range(400)]
    print(f"training: {throughput(config, data):.0%} of the bare loop's tokens per second")
    network = build_network(config.model, Tokens(SPACE.sizes)).eval()
    prior = Prior(SPACE, "flat", fit(data[:9], [], SPACE.sizes, 1), network)
    for count in (1, 4):
        began = Clocks()
        drawn = sample(prior, 172, [None] * count)
        print(f"sampling {count} at once: {began.speeds(sum(codes.shape[1] for codes in drawn))}")
    began = Clocks()
    with torch.inference_mode():
        begin = torch.full((1, 1), prior.tokens.begin)
        out = network.generate(begin, max_new_tokens=172, min_new_tokens=172, do_sample=True, pad_token_id=prior.tokens.pad)
    print(f"transformers' generate: {began.speeds(out.shape[1] - 1)}")


class Clocks:
    """Time since it was made, on the wall and of the processor, which a busy machine tells apart."""

    def __init__(self) -> None:
        self.wall, self.busy = time.perf_counter(), time.process_time()

    def speeds(self, codes: int) -> str:
        """What drawing ``codes`` in that time comes to."""
        seconds = codes / SPACE.code_rate
        wall, busy = time.perf_counter() - self.wall, time.process_time() - self.busy
        return f"{seconds / wall:.1f} times real time, {seconds / busy:.1f} by processor time"


def throughput(config, data) -> float:
    """Steps per second of the trainer over those of the bare loop, in turns."""
    tokens = Tokens(SPACE.sizes)
    sequences = Sequences(data, tokens, config.model.context, True)
    table = fit(data[:9], [], SPACE.sizes, 1)
    lesson = Lesson(SPACE, sequences, sequences, "key", table, (), {})
    engine = start_engine(engine_settings(config), "cpu")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, lesson, Path(folder), engine, Hooks())
        network = build_network(config.model, tokens)
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)
        rows = torch.randint(0, 1024, (config.data.batch_size, config.model.context))

        def bare() -> None:
            network.train()
            with engine.autocast():
                logits = network(rows, use_cache=False).logits
            torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows.flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()

        times = {trainer.step: 0.0, bare: 0.0}
        for turn in range(STEPS + 1):
            for work in times:
                began = time.process_time()
                work()
                times[work] += (time.process_time() - began) if turn else 0.0
    return times[bare] / times[trainer.step]


if __name__ == "__main__":
    main()
