"""How well a codebook is used, over a whole set, never per batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


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


def code_usage(counts: np.ndarray) -> CodeUsage:
    """counts (K,): how often each code occurs -> CodeUsage."""
    total = int(counts.sum())
    share = counts[counts > 0] / max(total, 1)
    entropy = float(-(share * np.log(share)).sum())
    return CodeUsage(len(share), math.exp(entropy), entropy / math.log(2), total)


def bit_rate(sample_rate: int, samples_per_code: int, num_codebooks: int, codebook_size: int) -> float:
    """bit/s of codes stored at log2(K) bits each; 215 for XTTS."""
    return sample_rate / samples_per_code * num_codebooks * math.log2(codebook_size)
