"""k-means (Lloyd's algorithm) for starting a codebook on the latents it will see.

Source: Łańcucki et al. 2020, "Robust Training of Vector Quantized Bottleneck Models", for the idea; a codebook of
random vectors far from the latents collapses to one code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from melcodec.quantize.ema import cluster_sums, nearest


@torch.no_grad()
def kmeans(vectors: Tensor, num_clusters: int, iterations: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cluster ``vectors`` (n, D).

    Returns:
        Centres (K, D) and how many vectors each has (K,). An empty cluster restarts from a random vector. With fewer
        vectors than clusters, vectors repeat with a little noise, so that every centre is distinct.
    """
    if len(vectors) < num_clusters:
        repeated = vectors.repeat(-(-num_clusters // len(vectors)), 1)
        noise = torch.randn(repeated.shape, generator=generator).to(vectors)
        vectors = torch.cat([vectors, (repeated + 1e-3 * vectors.std() * noise)[len(vectors) :]])
    picks = torch.randperm(len(vectors), generator=generator)[:num_clusters]
    centres = vectors[picks.to(vectors.device)].clone()
    counts = vectors.new_zeros(num_clusters)
    for _ in range(iterations):
        counts, sums = cluster_sums(vectors, nearest(vectors, centres.T), num_clusters)
        empty = counts == 0
        centres = sums / counts.clamp(min=1)[:, None]
        picks = torch.randint(len(vectors), (int(empty.sum()),), generator=generator)
        centres[empty] = vectors[picks.to(vectors.device)]
    return centres, counts
