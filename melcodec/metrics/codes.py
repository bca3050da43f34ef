"""How well a codebook is used, over a whole set, never per batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLOOR_SLACK = 1e-4  # ln(1e-5) is stored in float32


@dataclass(frozen=True)
class CodeUsage:
    """Usage of one codebook.

    used: codes that occur; perplexity: exp(entropy), the size of an evenly used codebook with this entropy;
    entropy_bits: bits per code; total: codes counted.
    """

    used: int
    perplexity: float
    entropy_bits: float
    total: int


@dataclass(frozen=True)
class CodeDurations:
    """How long a code stays, in codes: a run is a stretch of one and the same code inside an utterance.

    mean, longest: of the runs; repeated: share of codes that equal the one before them.
    """

    mean: float
    longest: int
    repeated: float


def code_usage(counts: np.ndarray) -> CodeUsage:
    """counts (K,): how often each code occurs -> CodeUsage."""
    total = int(counts.sum())
    share = counts[counts > 0] / max(total, 1)
    entropy = float(-(share * np.log(share)).sum())
    return CodeUsage(len(share), math.exp(entropy), entropy / math.log(2), total)


def bit_rate(sample_rate: float, samples_per_code: int, sizes: Sequence[int]) -> float:
    """bit/s of codes stored at log2(K) bits each, with K = ``sizes`` of every codebook; 215 for XTTS."""
    return sample_rate / samples_per_code * sum(map(math.log2, sizes))


def silent_codes(mel: np.ndarray, floor: float, stride: int) -> np.ndarray:
    """Which codes stand for digital silence: natural log-mel (M, T) -> (ceil(T / stride),) bool.

    Digital silence puts every band at the mel floor, and a deterministic tokenizer gives it one code: many zeros in a corpus
    make a codebook look less used than speech uses it.

    Args:
        floor: mel power at which the front end clamps.
        stride: frames per code.
    """
    quiet = np.all(mel <= math.log(floor) + FLOOR_SLACK, axis=0)
    padded = np.pad(quiet, (0, -mel.shape[1] % stride), constant_values=True)
    return np.all(padded.reshape(-1, stride), axis=1)


def run_lengths(codes: np.ndarray) -> np.ndarray:
    """Codes (N,) of one utterance -> (R,) lengths of its runs, in order; their sum is N."""
    if not len(codes):
        return np.empty(0, np.int64)
    edges = np.flatnonzero(np.diff(codes)) + 1
    return np.diff(np.concatenate([[0], edges, [len(codes)]]))


def code_durations(runs: np.ndarray) -> CodeDurations:
    """Run lengths (R,) of a whole set, from ``run_lengths`` -> CodeDurations."""
    total = int(runs.sum())
    if not total:
        return CodeDurations(0.0, 0, 0.0)
    return CodeDurations(total / len(runs), int(runs.max()), (total - len(runs)) / total)
