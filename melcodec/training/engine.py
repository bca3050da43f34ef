"""Accelerate, as melcodec uses it: one device or many processes, precision, and who of them speaks.

Accelerate finds the device of each process that torchrun or ``accelerate launch`` started, wraps the model for DDP and
keeps gradients apart until a batch is whole. Random numbers, data and checkpoints stay with melcodec: they are
functions of (seed, step), and its files are safetensors, which Accelerate's pickled states are not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from melcodec.config import RunConfig
from melcodec.devices import computes_bfloat16, find_device
from melcodec.errors import MelcodecError

if TYPE_CHECKING:
    from accelerate import Accelerator


def start_engine(config: RunConfig, device: str = "auto") -> Accelerator:
    """The Accelerator of this process.

    Args:
        config: ``train.precision``, ``train.accumulate`` and the batch size are read.
        device: auto, cpu, cuda, cuda:1, mps; among several processes cuda means each its own.

    Raises:
        MelcodecError: no such device, a batch that the processes cannot share, a port that is taken.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    world = int(os.environ.get("WORLD_SIZE", "1"))
    _check_batch(config, world)
    target = find_device(device)
    if target.type == "cuda" and target.index and world == 1:
        torch.cuda.set_device(target)
    if world == 1:  # a second run in one process may want another precision
        AcceleratorState._reset_state(reset_partial_state=True)
    # buffers are summed by melcodec itself, and alike everywhere
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    try:
        return Accelerator(
            cpu=target.type == "cpu",
            mixed_precision="bf16" if wants_bfloat16(config.train.precision, target) else "no",
            gradient_accumulation_steps=config.train.accumulate,
            kwargs_handlers=[parallel],
        )
    except (RuntimeError, ValueError) as error:
        if world > 1:  # torch.distributed speaks in paragraphs
            reason = str(error).splitlines()[0]
            raise MelcodecError(f"the processes do not find each other: {reason}", "is the port taken? --master-port") from None
        raise


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
