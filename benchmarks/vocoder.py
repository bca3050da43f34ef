"""How much of speech survives mel -> wave: the mel of originals, inverted and scored against them.

    python benchmarks/vocoder.py [FILE...] [--seconds 6] [--vocoder FILE] [--checkpoint NAME] [--distillmos]

Without files it takes examples/*.flac. With --vocoder, that learned vocoder is set beside Griffin-Lim, instead of
Griffin-Lim's own settings beside each other; with --checkpoint, the mels are those that its codes decode to. Times are CPU
time of one thread per second of audio. Needs melcodec[eval].
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from melcodec.audio.io import load
from melcodec.audio.mel import MelFrontend
from melcodec.codec import Codec
from melcodec.config import xtts_mel_norms
from melcodec.metrics.naturalness import distillmos
from melcodec.metrics.spectral import log_mel_l1
from melcodec.metrics.speech import pesq_wb, stoi
from melcodec.vocoder.choice import find_vocoder
from melcodec.vocoder.file import load_vocoder
from melcodec.vocoder.griffin_lim import GriffinLim
from melcodec.vocoder.learned import LearnedVocoder


class PseudoInverse(GriffinLim):
    """What a mel inversion by least squares, clipped to what is positive, would give."""

    def magnitude(self, mel):
        return (torch.linalg.pinv(self.frontend.filters.T) @ mel.exp()).clamp(min=0).sqrt()


def variants(frontend):
    yield "pseudo-inverse + Griffin-Lim", PseudoInverse(frontend)
    yield "NMF + Griffin-Lim (the default)", GriffinLim(frontend)
    for seed in (1, 2):
        yield f"  seed {seed}", GriffinLim(frontend, seed=seed)
    for nmf_iterations in (0, 5, 10, 50, 200):
        yield f"  {nmf_iterations} NMF iterations", GriffinLim(frontend, nmf_iterations=nmf_iterations)
    for iterations in (8, 16, 64, 128):
        yield f"  {iterations} Griffin-Lim iterations", GriffinLim(frontend, iterations=iterations)
    for momentum in (0.0, 0.5, 1.1):
        yield f"  momentum {momentum}", GriffinLim(frontend, momentum=momentum)
    yield "  in chunks of 128 frames (1.5 s)", GriffinLim(frontend, chunk_frames=128)


def learned(frontend, weights):
    for iterations in (8, 16, 32):
        yield f"Griffin-Lim {iterations}", GriffinLim(frontend, iterations=iterations)
    network = load_vocoder(find_vocoder(weights)).build()
    for refine in (0, 4, 8, 16, 32):
        yield f"learned, {refine} iterations", LearnedVocoder(network, refine)
    yield "  Griffin-Lim 32 on its magnitudes", Magnitudes(frontend, network)


class Magnitudes(GriffinLim):
    """Random phases, but the network's magnitudes."""

    def __init__(self, frontend, network):
        super().__init__(frontend)
        self.network = network

    def magnitude(self, mel):
        return self.network(mel)[0].exp()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("files", nargs="*", type=Path, help="speech; examples/*.flac when none is given")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each file, from its start")
    parser.add_argument("--vocoder", help="a vocoder file, run folder or shipped name")
    parser.add_argument("--checkpoint", help="decode the mels of this checkpoint's codes instead of taking the true ones")
    parser.add_argument("--distillmos", action="store_true", help="also score with DistillMOS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = options.files or sorted((Path(__file__).parent.parent / "examples").glob("*.flac"))
    frontend = MelFrontend(xtts_mel_norms())
    rate = frontend.sample_rate
    waves = [load(path, rate)[: int(options.seconds * rate)] for path in files]
    seconds = sum(map(len, waves)) / rate
    print(f"{len(waves)} files, {seconds:.0f} s")
    print(f"{'':34} {'PESQ-WB':>8} {'median':>8} {'STOI':>8} {'mel L1':>8} {'level dB':>9} {'DistillMOS':>10} {'ms/s':>6}")
    codec = Codec.from_pretrained(options.checkpoint, "cpu") if options.checkpoint else None
    for name, vocoder in learned(frontend, options.vocoder) if options.vocoder else variants(frontend):
        scores, spent = [], 0.0
        for wav in waves:
            mel = frontend(torch.from_numpy(wav)[None])
            if codec:
                mel = codec.decode_to_mel(codec.encode(wav), len(wav))
            start = time.process_time()
            output = vocoder(mel, len(wav))
            spent += time.process_time() - start
            level = 10 * np.log10(output.square().mean().item() / np.square(wav).mean())
            error = log_mel_l1(mel.numpy(), frontend(output).numpy())
            made = output[0].clamp(-1, 1).numpy()
            natural = distillmos(made, rate) if options.distillmos else float("nan")
            scores.append((pesq_wb(wav, made, rate), stoi(wav, made, rate), error, level, natural))
        pesq, intelligible, error, level, natural = np.mean(scores, axis=0)
        median = np.median(scores, axis=0)[0]
        row = f"{pesq:8.2f} {median:8.2f} {intelligible:8.3f} {error:8.3f} {level:+9.2f} {natural:10.2f}"
        row += f" {1000 * spent / seconds:6.1f}"
        print(f"{name:34} {row}", flush=True)


if __name__ == "__main__":
    main()
