"""World size and sums over ranks; everything here is a no-op in a single process."""

from __future__ import annotations

import torch
import torch.distributed as dist


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(*tensors: torch.Tensor) -> None:
    """Replace each tensor, in place, by its sum over all ranks."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)


def broadcast(*tensors: torch.Tensor) -> None:
    """Replace each tensor, in place, by rank 0's."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def rank() -> int:
    """This process's place among them; 0 when alone."""
    return dist.get_rank() if world_size() > 1 else 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is true on some rank; the answer is the same on all."""
    if world_size() == 1:
        return flag
    total = torch.tensor(float(flag), device=device)
    all_reduce_sum(total)
    return bool(total > 0)
