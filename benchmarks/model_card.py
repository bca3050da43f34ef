"""The figures of a checkpoint's model card.

    python benchmarks/model_card.py checkpoints/melcodec-base.safetensors --train DATA/train --test DATA/test

Over the test files: log-mel L1 (natural log power), STOI and PESQ-WB of the sound; the same with the quantizer bypassed,
which shows what the codes cost, and with the mel untouched, which shows what Griffin-Lim costs; and k-means over
4-frame supervectors of the training speech, the plainest tokenizer of the same bit rate. Over the training files: how
the codebook is used. Means are over files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from melcodec.audio.io import find_audio, load
from melcodec.codec import Codec
from melcodec.config import MelConfig
from melcodec.metrics.codes import code_usage
from melcodec.metrics.spectral import log_mel_l1
from melcodec.metrics.speech import pesq_wb, stoi
from melcodec.quantize.ema import nearest
from melcodec.quantize.kmeans import kmeans
from melcodec.training.cache import MelCache, cache_mels

FRAMES = 4  # per supervector, as per code


def supervectors(mel: np.ndarray) -> np.ndarray:
    """Mel (M, T) -> (T // 4, 4 M)."""
    whole = mel.shape[1] // FRAMES * FRAMES
    return mel[:, :whole].T.reshape(-1, FRAMES * len(mel))


def floor_codebook(cache: MelCache, size: int, sample: int, iterations: int) -> torch.Tensor:
    """k-means over a sample of the training speech -> (K, 4 M)."""
    rng = np.random.default_rng(0)
    starts = np.sort(rng.choice(len(cache.mels) - FRAMES, sample, replace=False))
    vectors = np.stack([cache.mels[i : i + FRAMES].reshape(-1) for i in starts]).astype(np.float32)
    return kmeans(torch.from_numpy(vectors), size, iterations, torch.Generator().manual_seed(0))[0]


def reconstructions(codec: Codec, mel: torch.Tensor, floor: torch.Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """Natural mel (1, M, T) as each way gives it back, (M, T)."""
    frames = mel.shape[-1]
    yield "codes", codec.decode_to_mel(codec.encode_mel(mel))[0, :, :frames].numpy()
    with torch.inference_mode():
        latents = codec.model.encode_latents(codec.frontend.normalize(mel))
        yield "quantizer bypassed", codec.frontend.denormalize(codec.model.decoder(latents))[0, :, :frames].numpy()
    vectors = torch.from_numpy(supervectors(mel[0].numpy()))
    picked = floor[nearest(vectors, floor.T)].reshape(-1, mel.shape[1]).T.numpy()
    # the last one to three frames make no supervector: they count as the last one's
    yield "k-means supervectors", np.pad(picked, ((0, 0), (0, frames - picked.shape[1])), mode="edge")
    yield "mel untouched", mel[0].numpy()


def usage_over(codec: Codec, cache: MelCache) -> np.ndarray:
    """How often each code occurs over a cached corpus -> (K,)."""
    counts = np.zeros(codec.codebook_size, np.int64)
    for start, stop in zip(cache.starts[:-1], cache.starts[1:], strict=True):
        mel = torch.from_numpy(cache.mels[start:stop].T.astype(np.float32))[None]
        counts += np.bincount(codec.encode_mel(mel).flatten(), minlength=len(counts))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=60_000, help="training supervectors for the k-means floor")
    parser.add_argument("--iterations", type=int, default=20, help="of that k-means")
    parser.add_argument("--no-sound", action="store_true", help="mel figures only")
    options = parser.parse_args()

    codec = Codec.from_pretrained(options.checkpoint, "cpu")
    print(f"checkpoint {codec.fingerprint}, {codec.bitrate:.1f} bit/s")
    cache = cache_mels(find_audio(options.train), MelConfig())
    floor = floor_codebook(cache, codec.codebook_size, options.sample, options.iterations)

    rows: dict[str, list[tuple[float, float, float]]] = {}
    paths = find_audio(options.test)
    for path in paths:
        wav = load(path, codec.sample_rate)
        mel = codec.mel(wav)
        for name, output in reconstructions(codec, mel, floor):
            sound = (0.0, 0.0)
            if not options.no_sound:
                made = codec.vocoder(torch.from_numpy(np.ascontiguousarray(output))[None], len(wav))[0].clamp(-1, 1).numpy()
                sound = stoi(wav, made, codec.sample_rate), pesq_wb(wav, made, codec.sample_rate)
            rows.setdefault(name, []).append((log_mel_l1(mel[0].numpy(), output), *sound))

    print(f"\n{len(paths)} test files      log-mel L1   STOI   PESQ-WB")
    for name, values in rows.items():
        error, intelligibility, quality = np.mean(values, axis=0)
        print(f"{name:<22} {error:9.3f} {intelligibility:8.3f} {quality:7.2f}")
    usage = code_usage(usage_over(codec, cache))
    print(f"\n{len(cache.paths)} training files: {usage.total} codes, {usage.used} of {codec.codebook_size} in use,")
    print(f"perplexity {usage.perplexity:.0f}, entropy {usage.entropy_bits:.2f} bits")


if __name__ == "__main__":
    main()
