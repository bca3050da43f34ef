"""What ``melcodec preprocess`` reaches on this machine, as ratios measured in one run.

    python benchmarks/preprocess.py --minutes 60 --checkpoint xtts-size

A corpus of flac files is written from the example clips, cut into utterances of 2 to 12 s. Then, all on the CPU:

* one core: decoding; decoding and mels; the bare encoder on mels in memory, in the job's own batches;
* the job with one worker on one core, and with two workers on two cores, from its first task to its last part;
* with ``tiny-size``, whose encoder costs nearly nothing, as beside a GPU: what is reached of decoding and mels on two cores;
* memory: the largest worker for this corpus, and for one ten times as long (--memory).

``xtts-size`` and ``tiny-size`` are untrained; weights do not change the speed. Rates are seconds of sound per second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch

from melcodec.audio.io import find_audio, load
from melcodec.chunking import group_by_length
from melcodec.codec import BATCH_FRAMES, Codec
from melcodec.inputs import padded

RATE = 22_050
CLIPS = sorted((Path(__file__).parents[1] / "examples").glob("*.flac"))

JOB = """
import json, os, resource, sys
from pathlib import Path
from melcodec.corpus.driver import PreprocessSettings, Callbacks, preprocess
from melcodec.manifests.build import find_utterances

if __name__ == "__main__":
    sources, folder, checkpoint, workers, cores = sys.argv[1:]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    last = []
    job = PreprocessSettings(checkpoint, device="cpu", workers=int(workers))
    summary = preprocess(find_utterances([sources]), Path(folder), job, Callbacks(progress=lambda now: last.append(now)))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"rate": summary.seconds / last[-1].elapsed, "peak": peak, "ok": summary.ok}))
"""


def write_corpus(folder: Path, minutes: float) -> None:
    """Utterances of 2 to 12 s, 16-bit flac at the codec's rate."""
    speech = np.concatenate([load(clip, RATE) for clip in CLIPS])
    chance = np.random.default_rng(0)
    left, index = minutes * 60, 0
    while left > 0:
        seconds = chance.uniform(2, 12)
        start = chance.integers(len(speech))
        path = folder / f"{index % 10}" / f"{index:06d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = np.resize(np.roll(speech, -start), int(seconds * RATE))
        soundfile.write(path, wave, RATE, subtype="PCM_16")
        left, index = left - seconds, index + 1


def untrained(path: Path, tiny: bool) -> Path:
    """An untrained checkpoint of XTTS's size, or one that is as good as nothing."""
    from melcodec.config import ConvConfig, EMAConfig, ModelConfig, load_preset, xtts_mel_norms
    from melcodec.formats.checkpoint import from_model, save_checkpoint
    from melcodec.vqvae import build_vqvae

    config = load_preset("xtts").model
    if tiny:
        config = ModelConfig(backbone=ConvConfig(hidden=16), quantizer=EMAConfig(codebook_size=32), dim=8)
    torch.manual_seed(0)
    save_checkpoint(path, from_model(build_vqvae(config), config, xtts_mel_norms(), {"source": "benchmark"}))
    return path


def rate(seconds: float, work: Callable[[], object]) -> float:
    """Seconds of sound per second, the best of two."""
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return seconds / min(taken)


def bare_encoder(codec: Codec, mels: list[torch.Tensor]) -> None:
    for group in group_by_length([mel.shape[-1] for mel in mels], BATCH_FRAMES):
        batch, lengths = padded([mels[index] for index in group])
        codec.encode_mel(batch, lengths)


def job(folder: Path, out: Path, checkpoint: str, workers: int, cores: int) -> dict[str, float]:
    command = [sys.executable, "-c", JOB, str(folder), str(out), checkpoint, str(workers), str(cores)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def one_core(folder: Path, checkpoint: str) -> tuple[float, float, float]:
    """Rates of decoding, of decoding and mels, and of the bare encoder."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:1])
    torch.set_num_threads(1)
    codec = Codec.from_pretrained(checkpoint, "cpu")
    paths = find_audio(folder)[:200]
    waves = [load(path, RATE) for path in paths]
    seconds = sum(map(len, waves)) / RATE
    mels = [codec.mel(wave)[0] for wave in waves]
    decoding = rate(seconds, lambda: [load(path, RATE) for path in paths])
    both = rate(seconds, lambda: [codec.mel(load(path, RATE)) for path in paths])
    bare = rate(seconds, lambda: bare_encoder(codec, mels))
    os.sched_setaffinity(0, cores)
    return decoding, both, bare


def on_two_cores(folder: Path, checkpoint: str) -> float:
    """Rate of decoding and mels by two threads."""
    codec = Codec.from_pretrained(checkpoint, "cpu")
    paths = find_audio(folder)
    seconds = sum(soundfile.info(str(path)).duration for path in paths)
    with ThreadPoolExecutor(2) as pool:
        return rate(seconds, lambda: list(pool.map(lambda path: codec.mel(load(path, RATE)), paths)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--checkpoint", default="melcodec-base")
    parser.add_argument("--memory", action="store_true", help="also a corpus ten times as long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        checkpoint = options.checkpoint
        tiny = checkpoint == "tiny-size"
        if checkpoint in ("xtts-size", "tiny-size"):
            checkpoint = str(untrained(root / "untrained.safetensors", tiny))
        write_corpus(root / "corpus", options.minutes)
        decoding, both, bare = one_core(root / "corpus", checkpoint)
        one, two = (job(root / "corpus", root / f"codes{workers}", checkpoint, workers, workers) for workers in (1, 2))
        same = all(
            path.read_bytes() == (root / "codes2/parts" / path.name).read_bytes() for path in (root / "codes1/parts").iterdir()
        )
        print(f"one core, decoding            {decoding:8.0f}x real time")
        print(f"one core, decoding and mels   {both:8.0f}x")
        print(f"one core, bare encoder        {bare:8.0f}x")
        in_a_row = 1 / (1 / both + 1 / bare)  # all that one core can do: nothing is hidden behind anything
        words = (
            f"{one['rate'] / bare:.0%} of the bare encoder, {one['rate'] / in_a_row:.0%} of decoding, mels and encoder in a row"
        )
        print(f"job, one worker on one core   {one['rate']:8.0f}x   {words}")
        print(f"job, two workers on two cores {two['rate']:8.0f}x   {two['rate'] / one['rate']:.2f} times one worker")
        if tiny:
            ceiling = on_two_cores(root / "corpus", checkpoint)
            shared = job(root / "corpus", root / "codes1on2", checkpoint, 1, 2)
            print(f"two cores, decoding and mels  {ceiling:8.0f}x")
            print(f"job, one worker on two cores  {shared['rate']:8.0f}x   {shared['rate'] / ceiling:.0%} of that")
            print(f"job, two workers on two cores {two['rate']:8.0f}x   {two['rate'] / ceiling:.0%} of that")
        print(f"the same bytes: {same}; load average before: {LOAD:.1f}")
        if options.memory:
            write_corpus(root / "long", 10 * options.minutes)
            long = job(root / "long", root / "codes10", checkpoint, 2, 2)
            print(f"largest process: {two['peak']:.0f} MiB, {long['peak']:.0f} MiB for ten times as much")


LOAD = os.getloadavg()[0]

if __name__ == "__main__":
    main()
