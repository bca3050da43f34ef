"""What a pass does: operations, what they compute, and the bytes that they move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}  # aten's names
OVERWRITES = {"copy_", "fill_", "zero_"}  # what they write they do not read


@dataclass(frozen=True)
class OperationCount:
    """Operations of one pass.

    Args:
        flops: multiplications and additions of matrix products, convolutions and Fourier transforms.
        moved: bytes that operations read and write, as if no cache kept anything between two of them.
        operations: that were started; views are none.
    """

    flops: float
    moved: float
    operations: int


def count(run: Callable[[], object]) -> OperationCount:
    """What one pass of ``run`` does; it runs once, slowly."""
    aten: Any = torch.ops.aten
    transforms = {aten._fft_r2c: _real_to_complex, aten._fft_c2r: _complex_to_real}
    with FlopCounterMode(display=False, custom_mapping=transforms) as flops, _Traffic() as traffic:
        run()
    return OperationCount(float(flops.get_total_flops()), float(traffic.moved), traffic.operations)


def _real_to_complex(shape: torch.Size, *rest: Any, **named: Any) -> int:
    # 5 n log2 n for a complex transform and half of it for a real one, as FFTW's benchmarks count (fftw.org/speed)
    last = shape[rest[0][-1]]
    return round(2.5 * math.prod(shape) * math.log2(last))


def _complex_to_real(shape: torch.Size, *rest: Any, **named: Any) -> int:
    dims, _, last = rest
    return round(2.5 * math.prod(shape) / shape[dims[-1]] * last * math.log2(last))


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's __init_subclass__
    """Counts operations and the bytes of their operands and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved = self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        with self:  # inference mode hands over whole what gradient mode has taken apart already
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        result = func(*args, **kwargs)
        self._add(func, _tensors((args, kwargs)), _tensors(result))
        return result

    def _add(self, func: Any, operands: list[Tensor], results: list[Tensor]) -> None:
        name = func.overloadpacket.__name__
        mutable = func._schema.is_mutable
        held = {_address(tensor) for tensor in operands}
        if name in ALLOCATIONS or (not mutable and results and all(_address(tensor) in held for tensor in results)):
            return  # memory, or a view: nothing moves
        if name in OVERWRITES:
            operands = operands[1:]
        self.operations += 1
        self.moved += sum(map(_num_bytes, operands)) + sum(map(_num_bytes, results))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _num_bytes(tensor: Tensor) -> int:
    """Of what ``tensor`` shows; an expanded one shows less than it seems to."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())
