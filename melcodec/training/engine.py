"""Where a run computes: its device, its precision, and the processes that share its work.

torchrun, or any launcher that sets WORLD_SIZE, RANK and LOCAL_RANK, starts one process for each device; they find each
other here. Random numbers, data and checkpoints are functions of (seed, step), so nothing has to be synchronised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from melcodec import distributed
from melcodec.config import RunConfig
from melcodec.devices import computes_bfloat16, find_device
from melcodec.errors import MelcodecError


@dataclass(frozen=True)
class Engine:
    """The device and precision of this process.

    Args:
        device: where tensors live.
        bfloat16: whether the model computes in bfloat16 where autocast finds that safe.
    """

    device: torch.device
    bfloat16: bool

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports; one of all does."""
        return distributed.rank() == 0

    @property
    def is_local_main(self) -> bool:
        """Whether this is the first process of its machine."""
        return int(os.environ.get("LOCAL_RANK", "0")) == 0

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the model's forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def wrapped(self, model: nn.Module) -> nn.Module:
        """``model``, whose gradients are averaged over all processes where there are several."""
        if distributed.world_size() == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        # buffers are the quantizer's, which sums over processes itself
        return DistributedDataParallel(model, devices, broadcast_buffers=False, gradient_as_bucket_view=True)

    @contextmanager
    def without_sync(self, model: nn.Module, wanted: bool) -> Iterator[None]:
        """Keep gradients of ``model`` in this process when ``wanted``: more parts of the batch follow."""
        with model.no_sync() if wanted and isinstance(model, DistributedDataParallel) else nullcontext():
            yield

    def close(self) -> None:
        """Part from the other processes."""
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def start_engine(config: RunConfig, device: str = "auto") -> Engine:
    """Find the device and, among several processes, the others.

    Args:
        config: ``train.precision``, ``train.accumulate`` and the batch size are read.
        device: auto, cpu, cuda, cuda:1, mps; among several processes cuda means each its own.

    Raises:
        MelcodecError: no such device, a batch that the processes cannot share, a port that is taken.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    _check_batch(config, world)
    target = find_device(device)
    if target.type == "cuda":
        target = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else target.index or 0)
        torch.cuda.set_device(target)
    if world > 1 and not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if target.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:  # the messages of torch.distributed are several paragraphs long
            reason = str(error).splitlines()[0]
            raise MelcodecError(
                f"the processes cannot connect to each other: {reason}", "is the port taken? --master-port"
            ) from None
    return Engine(target, wants_bfloat16(config.train.precision, target))


def _check_batch(config: RunConfig, world: int) -> None:
    parts = world * config.train.accumulate
    if config.data.batch_size % parts:
        raise MelcodecError(
            f"a batch of {config.data.batch_size} crops cannot be shared by {world} processes"
            + (f" in {config.train.accumulate} parts each" if config.train.accumulate > 1 else ""),
            f"--set data.batch_size={-(-config.data.batch_size // parts) * parts}",
        )


def wants_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to train in bfloat16: said so, or ``auto`` and the device computes it in hardware."""
    return precision == "bfloat16" or (precision == "auto" and computes_bfloat16(device))
