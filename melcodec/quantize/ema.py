"""The XTTS codebook: nearest neighbour, learned by exponential moving averages.

Source: van den Oord et al. 2017, "Neural Discrete Representation Learning", appendix A.1, as Tortoise implements it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec import distributed
from melcodec.quantize.base import Quantized

MAX_DISTANCES = 1 << 26  # at once; 256 MiB of float32


class EMACodebook(nn.Module):
    """One codebook (Q = 1) of K codewords of width D.

    Buffers, named and laid out as in ``dvae.pth``: embed (D, K), columns are codewords; cluster_size (K), the
    unsmoothed moving count; embed_avg (D, K), the moving sum of latents.

    Args:
        dim: D.
        codebook_size: K.
        decay: weight of the past in the moving averages.
        eps: Laplace smoothing of the counts that divide the sums.
    """

    embed: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    num_codebooks = 1
    learning = True  # in training mode; False keeps the codebook as it is
    deferred = False  # True: several forwards are one batch, which ``commit`` ends

    def __init__(self, dim: int, codebook_size: int, decay: float = 0.99, eps: float = 1e-5) -> None:
        super().__init__()
        self.dim, self.codebook_size, self.decay, self.eps = dim, codebook_size, decay, eps
        embed = torch.randn(dim, codebook_size)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(codebook_size))
        self.register_buffer("embed_avg", embed.clone())
        self._pending: list[tuple[Tensor, Tensor]] = []

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, 1, N) int64; a tie goes to the lowest index."""
        flat = latents.float().transpose(1, 2).reshape(-1, self.dim)
        return nearest(flat, self.embed).view(len(latents), 1, -1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, 1, N) in 0 .. K - 1 -> latents (B, D, N)."""
        return F.embedding(codes[:, 0], self.embed.T).transpose(1, 2)

    def forward(self, latents: Tensor, lengths: Tensor | None = None) -> Quantized:
        """latents (B, D, N) -> Quantized, all float32. In training mode the codebook then moves towards the batch.

        Args:
            lengths: (B,) real N of each item of a padded batch; what lies past it counts nowhere.
        """
        latents = latents.float()
        codes = self.encode(latents)
        quantised = self.decode(codes)  # by the codebook as it was before this batch
        inside = None if lengths is None else torch.arange(latents.shape[-1], device=latents.device) < lengths[:, None]
        if self.training and self.learning:
            self._collect(latents.detach(), codes, inside)
        error = (latents - quantised).pow(2)
        commitment = error.mean() if inside is None else error.mean(1)[inside].mean()
        return Quantized(latents + (quantised - latents).detach(), codes, commitment)

    @torch.no_grad()
    def _collect(self, latents: Tensor, codes: Tensor, inside: Tensor | None) -> None:
        flat, picked = latents.transpose(1, 2), codes[:, 0]
        flat, picked = (flat.reshape(-1, self.dim), picked.reshape(-1)) if inside is None else (flat[inside], picked[inside])
        self._pending.append(cluster_sums(flat, picked, self.codebook_size))
        if not self.deferred:
            self.commit()

    @torch.no_grad()
    def commit(self) -> None:
        """One moving-average step from all latents since the last one, summed over ranks; nothing when there are none."""
        if not self._pending:
            return
        counts = torch.stack([counts for counts, _ in self._pending]).sum(0)
        sums = torch.stack([sums for _, sums in self._pending]).sum(0)
        self._pending.clear()
        distributed.all_reduce_sum(counts, sums)
        self.cluster_size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.embed_avg.mul_(self.decay).add_(sums.T, alpha=1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.codebook_size * self.eps) * total
        self.embed.copy_(self.embed_avg / smoothed)

    @torch.no_grad()
    def assign(self, indices: Tensor, codewords: Tensor, cluster_size: Tensor | float) -> None:
        """Set codewords (n, D) at ``indices`` (n,), with their averages, so that the next update keeps them.

        Forgetting ``embed_avg`` here is a known bug of other codecs: the next update then undoes the change.
        """
        self.cluster_size[indices] = cluster_size
        self.embed[:, indices] = codewords.T
        self.embed_avg[:, indices] = codewords.T * self.cluster_size[indices]


def nearest(vectors: Tensor, embed: Tensor) -> Tensor:
    """Index of the nearest column of ``embed`` (D, K) for each row of ``vectors`` (n, D) -> (n,) int64.

    Runs in float32 whatever the surrounding autocast says: bfloat16 distances change codes by the dozen.
    """
    squares = embed.pow(2).sum(0, keepdim=True)
    with torch.autocast(vectors.device.type, enabled=False):
        # in parts: all distances of a large codebook's k-means at once would take gigabytes
        parts = torch.split(vectors, max(1, MAX_DISTANCES // embed.shape[1]))
        return torch.cat([(part.pow(2).sum(1, keepdim=True) - 2 * part @ embed + squares).argmin(dim=1) for part in parts])


def cluster_sums(vectors: Tensor, codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Counts (K,) and sums (K, D) of ``vectors`` (n, D) by their ``codes`` (n,)."""
    counts = torch.bincount(codes, minlength=codebook_size).to(vectors.dtype)
    sums = torch.zeros(codebook_size, vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    return counts, sums.index_add_(0, codes, vectors)
