"""k-means (Lloyd's algorithm) for starting a codebook on the latents it will see.

Source: Łańcucki et al. 2020, "Robust Training of Vector Quantized Bottleneck Models", for the idea; a codebook of
random vectors far from the latents collapses to one code.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_DISTANCES = 1 << 26  # at once; 256 MiB of float32


@torch.no_grad()
def kmeans(vectors: Tensor, num_clusters: int, iterations: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cluster ``vectors`` (n, D).

    Returns:
        Centres (K, D) and how many vectors each has (K,). An empty cluster restarts from a random vector. With fewer
        vectors than clusters, vectors repeat with a little noise, so that every centre is distinct.
    """
    # around their mean: squares of numbers far from zero would drown the distances between them
    offset = vectors.mean(0)
    vectors = vectors - offset
    if len(vectors) < num_clusters:
        repeated = vectors.repeat(-(-num_clusters // len(vectors)), 1)
        noise = torch.randn(repeated.shape, generator=generator).to(vectors)
        scale = 1e-3 * (vectors + offset).std()
        vectors = torch.cat([vectors, (repeated + scale * noise)[len(vectors) :]])
    picks = torch.randperm(len(vectors), generator=generator)[:num_clusters]
    centres = vectors[picks.to(vectors.device)].clone()
    counts = vectors.new_zeros(num_clusters)
    for _ in range(iterations):
        counts, sums = cluster_sums(vectors, nearest(vectors, centres.T), num_clusters)
        empty = counts == 0
        centres = sums / counts.clamp(min=1)[:, None]
        picks = torch.randint(len(vectors), (int(empty.sum()),), generator=generator)
        centres[empty] = vectors[picks.to(vectors.device)]
    return centres + offset, counts


def distances(vectors: Tensor, embed: Tensor) -> Tensor:
    """Squared distances (n, K) of the rows of ``vectors`` (n, d) and the columns of ``embed`` (d, K).

    In float32 whatever the surrounding autocast says: bfloat16 distances change codes by the dozen.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        return vectors.pow(2).sum(1, keepdim=True) - 2 * vectors @ embed + embed.pow(2).sum(0, keepdim=True)


def nearest(vectors: Tensor, embed: Tensor) -> Tensor:
    """Index of the nearest column of ``embed`` (d, K) for each row of ``vectors`` (n, d) -> (n,) int64."""
    # in parts: all distances of a large codebook's k-means at once would take gigabytes
    most = max(1, MAX_DISTANCES // embed.shape[1])
    if vectors.shape[0] <= most:
        return distances(vectors, embed).argmin(dim=1)
    parts = torch.split(vectors, most)
    return torch.cat([distances(part, embed).argmin(dim=1) for part in parts])


def cluster_sums(vectors: Tensor, codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Counts (K,) and sums (K, d) of ``vectors`` (n, d) by their ``codes`` (n,)."""
    counts = torch.bincount(codes, minlength=codebook_size).to(vectors.dtype)
    sums = torch.zeros(codebook_size, vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    return counts, sums.index_add_(0, codes, vectors)
