"""k-means over mel vectors: the plainest tokenizer of the same bit rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.scores import Sound
from melcodec.evaluation.subjects import Subject, load_sound
from melcodec.evaluation.systems.base import System, Tools
from melcodec.quantize.kmeans import kmeans, nearest

VECTORS, FRAMES, ITERATIONS = 60_000, 160_000, 20  # 31 minutes of speech are enough for 60,000


class KMeans(System):
    """Every few frames the nearest of K mel supervectors, which other speech gave."""

    name = "kmeans"

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.bit_rate = tools.codec.bitrate
        self.label = f"k-means over mel vectors, {self.bit_rate:.0f} bit/s"
        self.centres = None if tools.centres is None else torch.from_numpy(tools.centres)

    @classmethod
    def unavailable(cls, codec: Codec, train: bool) -> str:
        """See ``base.System``."""
        if not train:
            return "it is learned from training speech, which is given with --train"
        return "it is defined for models with one codebook" if codec.num_codebooks > 1 else ""

    def output(self, original: Sound, codes: np.ndarray) -> Sound:
        """See ``base.System``."""
        assert self.centres is not None, "learned before"
        mel = torch.from_numpy(original.mel)[None]
        return self.tools.from_mel(through_kmeans(self.centres, mel, self.tools.codec.model.reach.stride), original)


def through_kmeans(centres: Tensor, mel: Tensor, stride: int) -> Tensor:
    """Natural log-mel (1, M, T) -> (1, M, stride N): every ``stride`` frames the nearest of ``centres`` (K, stride * M)."""
    frames = mel.shape[-1]
    padded = torch.nn.functional.pad(mel, (0, -frames % stride), mode="replicate")
    vectors = padded[0].T.reshape(-1, stride * mel.shape[1])
    return centres[nearest(vectors, centres.T)].reshape(-1, mel.shape[1]).T[None]


def learn_centres(codec: Codec, speech: Sequence[Subject], seed: int, update: Callable[[int, int], None]) -> np.ndarray:
    """k-means over supervectors of training speech -> (K, stride * M) float32.

    Files are taken in an order that ``seed`` decides until there are enough; unreadable ones are passed over.

    Raises:
        MelcodecError: none can be read.
    """
    rng, stride = np.random.default_rng(seed), codec.model.reach.stride
    mels: list[np.ndarray] = []
    frames = 0
    for index in rng.permutation(len(speech)):
        try:
            mels.append(codec.mel(load_sound(speech[index], codec.sample_rate))[0].cpu().numpy().T)
        except MelcodecError:
            continue
        frames += len(mels[-1])
        update(min(frames, FRAMES), FRAMES)
        if frames >= FRAMES:
            break
    if frames <= stride:
        raise MelcodecError("no speech in --train can be read", "give a folder of audio files")
    joined = np.concatenate(mels)
    starts = np.sort(rng.choice(len(joined) - stride, min(VECTORS, len(joined) - stride), replace=False))
    vectors = torch.from_numpy(np.stack([joined[start : start + stride].reshape(-1) for start in starts]))
    centres, _ = kmeans(vectors, codec.sizes[0], ITERATIONS, torch.Generator().manual_seed(seed))
    return centres.numpy()
