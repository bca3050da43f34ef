"""The quantizers of the package vector-quantize-pytorch behind our interface, to compare ours with them.

Where the package works differently, it stays as it is: its codebooks change inside of ``forward`` in training (moving
averages, replacement of dead codes), so that ``moments`` are None and ``update`` does nothing; each part of an accumulated
batch counts as a step; over several processes the package sums by itself. ``codebook.start`` and ``codebook.revive`` do
not apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melcodec.config import LibraryConfig
from melcodec.errors import MelcodecError
from melcodec.quantize.base import Quantized, Quantizer, inside

FOR_TRAINING = ("cluster_size", "embed_avg", "initted")  # how names of state end that codes do not depend on
RESIDUAL = ("ResidualVQ", "GroupedResidualVQ")


class LibraryQuantizer(Quantizer):
    """One module of the package. Only real positions are handed to it, as one long item, since none depends on another.

    Losses: ``commitment`` (VectorQuantize and residual: mean over stages; LFQ), ``codebook`` (SimVQ: its loss, which holds
    a quarter of the commitment), ``entropy`` (LFQ: mean entropy of each code less the entropy of their mean).

    Args:
        dim: D, width of the latents.
        config: which module, and its settings.

    Raises:
        MelcodecError: the package is not installed, or groups do not divide D.
    """

    straight_through = False  # some of its modules rotate gradients

    def __init__(self, dim: int, config: LibraryConfig) -> None:
        super().__init__()
        self.config, self.sizes = config, config.sizes
        self.module = _build(dim, config)
        self.training_only = frozenset(name for name in self.state_dict() if name.endswith(FOR_TRAINING))

    @property
    def decodable(self) -> tuple[int, ...]:
        """Any number of stages of ResidualVQ, all codebooks of the other modules."""
        return tuple(range(1, len(self.sizes) + 1)) if self.config.module == "ResidualVQ" else super().decodable

    def encode(self, latents: Tensor) -> Tensor:
        """latents (B, D, N) -> codes (B, Q, N) int64; never learns from them."""
        training = self.module.training
        self.module.eval()
        try:
            return self._run(latents.transpose(1, 2).float())[1]
        finally:
            self.module.train(training)

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, Q', N), fewer than Q for ResidualVQ only -> latents (B, D, N) float32."""
        match self.config.module:
            case "ResidualVQ":
                whole = F.pad(codes, (0, 0, 0, len(self.sizes) - codes.shape[1]), value=-1)  # -1 adds nothing
                found = self.module.get_output_from_indices(whole.transpose(1, 2))
            case "GroupedResidualVQ":
                grouped = codes.reshape(len(codes), self.config.groups, -1, codes.shape[-1]).permute(1, 0, 3, 2)
                found = self.module.get_output_from_indices(grouped)
            case "VectorQuantize":
                found = self.module.get_output_from_indices(codes[:, 0])
            case _:
                found = self.module.indices_to_codes(codes[:, 0])
        return found.float().transpose(1, 2)

    def forward(self, latents: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None) -> Quantized:
        """See ``Quantizer``, but in training this changes the codebooks."""
        rows, mask = latents.transpose(1, 2).float(), inside(latents, lengths)
        with _seeded(generator, latents.device):
            found, codes, losses = self._run(rows if mask is None else rows[mask][None])
        if mask is not None:
            found = torch.zeros_like(rows).masked_scatter(mask[..., None], found)
            spread = torch.zeros(*mask.shape, len(self.sizes), dtype=codes.dtype, device=codes.device)
            codes = spread.masked_scatter(mask[..., None], codes.transpose(1, 2).contiguous()).transpose(1, 2)
        return Quantized(found.transpose(1, 2), codes, losses)

    def _run(self, rows: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """rows (B, N, D) -> quantised rows, codes (B, Q, N) and losses."""
        module = self.config.module
        with torch.autocast(rows.device.type, enabled=False):
            found, indices, *more = self.module(rows, return_loss_breakdown=True) if module == "LFQ" else self.module(rows)
        losses: dict[str, Tensor] = {}
        if module == "LFQ":
            (found, indices, _), parts = found, indices
            losses = {"entropy": parts.per_sample_entropy - parts.batch_entropy, "commitment": parts.commitment}
        elif module != "FSQ":
            losses = {"codebook" if module == "SimVQ" else "commitment": more[0].mean()}
        return found, _in_our_order(indices), losses

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, per_step: int) -> None:
        """The package's own k-means, where ``kmeans`` is set: its first forward pass in training does it."""
        if self.config.kmeans:
            training = self.module.training
            self.module.train()
            with _seeded(generator, latents.device):
                self.module(latents.float()[None])
            self.module.train(training)

    @torch.no_grad()
    def forget_training(self) -> None:
        """Every code counts once, and its sum is the codeword itself."""
        for part in self._codebooks():
            part.cluster_size.fill_(1)
            part.embed_avg.copy_(part.embed)
            part.initted.fill_(True)

    def tables(self) -> list[Tensor]:
        """The codewords (K, d) of every stage, where the module stores or computes any."""
        if self.config.module == "SimVQ":
            return [self.module.codebook.detach()]
        return [part.embed[0].detach() for part in self._codebooks()]

    def _codebooks(self) -> list[Any]:
        return [part for part in self.module.modules() if hasattr(part, "embed_avg")]


def _build(dim: int, config: LibraryConfig) -> Any:
    try:
        import vector_quantize_pytorch as package
    except ImportError:
        raise MelcodecError(
            "the quantizer 'library' needs the package vector-quantize-pytorch", 'pip install "melcodec[library]"'
        ) from None
    averaged = {"codebook_size": config.codebook_size, "decay": config.decay, "kmeans_init": config.kmeans}
    averaged |= {"commitment_weight": 1.0}  # ``objective.commitment`` weighs it
    stages = averaged | {"num_quantizers": config.num_quantizers}
    match config.module:
        case "VectorQuantize":
            return package.VectorQuantize(dim=dim, **averaged)
        case "ResidualVQ":
            return package.ResidualVQ(dim=dim, **stages)
        case "GroupedResidualVQ":
            if dim % config.groups:
                raise MelcodecError(f"{dim} channels do not make {config.groups} equal groups", "set model.dim to a multiple")
            return package.GroupedResidualVQ(dim=dim, groups=config.groups, **stages)
        case "FSQ":
            return package.FSQ(list(config.levels), dim=dim)
        case "LFQ":
            return package.LFQ(dim=dim, codebook_size=config.codebook_size, commitment_loss_weight=1.0, entropy_loss_weight=1.0)
        case "SimVQ":
            return package.SimVQ(dim=dim, codebook_size=config.codebook_size)


def _in_our_order(indices: Tensor) -> Tensor:
    """The package's (B, N), (B, N, stages) or (groups, B, N, stages) -> codes (B, Q, N) int64."""
    if indices.ndim == 2:
        return indices[:, None].long()
    if indices.ndim == 3:
        return indices.transpose(1, 2).long()
    return indices.permute(1, 0, 3, 2).flatten(1, 2).long()


@contextmanager
def _seeded(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """The package draws from torch's own generators: seed them from ours for as long as it runs."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(1 << 31, (), generator=generator)))
        yield
