"""One step of training: crops -> model -> losses -> gradients -> optimizer, quantizer, discriminator, average."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from melcodec import distributed
from melcodec.audio.mel import MelFrontend
from melcodec.config import RunConfig
from melcodec.errors import MelcodecError
from melcodec.objective.build import Objective, Shares
from melcodec.training.data import Batch, Crops, Draw
from melcodec.training.engine import Engine
from melcodec.training.optimizer import lr_at
from melcodec.training.state import TrainState

NAMED_FILES = 8  # of a batch that went wrong
Scalars = dict[str, Tensor]
_Step = tuple[Draw, list[tuple[Batch, Shares]]]


class Stepper:
    """Takes the steps of a run. Nothing in a step waits for a value on the device: what is logged is read later.

    Args:
        config: of the run.
        state: model, optimizer, average and adversary; changed by every step.
        crops: what each step sees.
        frontend: for its norms, on the device.
        engine: device and precision.
        ahead: make the next batch in a thread; None does so beside a GPU.
    """

    def __init__(
        self,
        config: RunConfig,
        state: TrainState,
        crops: Crops,
        frontend: MelFrontend,
        engine: Engine,
        ahead: bool | None = None,
    ) -> None:
        self.config, self.state, self.crops, self.frontend, self.engine = config, state, crops, frontend, engine
        self.objective = Objective(config.objective, frontend.norms)
        self.learns_codes = config.train.tune == "full"
        wrapped = engine.wrapped(state.model)
        self.model: nn.Module = torch.compile(wrapped) if config.train.compile else wrapped  # type: ignore[assignment]
        self.wrapped = wrapped
        self._unchecked: tuple[int, Tensor, Draw] | None = None
        # beside a GPU, the next batch is made while this one is learned from
        wanted = engine.device.type == "cuda" if ahead is None else ahead
        self._ahead = ThreadPoolExecutor(1) if wanted else None
        self._next: tuple[int, Future[_Step]] | None = None

    def step(self) -> Scalars:
        """One optimizer step; its scalars, means over all processes, on the device."""
        state, config, index = self.state, self.config, self.state.step
        self.check()
        self._set_mode(index)
        generator = torch.Generator().manual_seed(_seed(config.train.seed, index, distributed.rank()))
        draw, parts = self._prepared(index)
        sums: Scalars = {}
        moments: list[Any] = []
        counts = torch.zeros(len(state.model.sizes), max(state.model.sizes), device=self.engine.device)
        for number, (batch, shares) in enumerate(parts):
            with self.engine.without_sync(self.wrapped, number + 1 < len(parts)):
                for name, value in self._learn(batch, shares, generator, moments, counts).items():
                    sums[name] = sums[name] + value if name in sums else value
        norm = nn.utils.clip_grad_norm_(self.wrapped.parameters(), config.optimizer.grad_clip)
        self._unchecked = (index, norm, draw)
        state.optimizer.step()
        state.optimizer.zero_grad()
        told = self._update(moments, index)
        names, values = list(sums), torch.stack(list(sums.values()))
        distributed.all_reduce_sum(values, counts)
        means = dict(zip(names, values / distributed.world_size(), strict=True))
        return means | {"grad_norm": norm, "perplexity": _perplexity(counts)} | told

    def _set_mode(self, index: int) -> None:
        lr = lr_at(self.config.optimizer, index, self.config.train.steps)
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        if not self.learns_codes:  # nothing random, and no moments
            self.state.model.quantizer.eval()

    def _learn(self, batch: Batch, shares: Shares, generator: torch.Generator, moments: list[Any], counts: Tensor) -> Scalars:
        """Gradients of one part of the batch; its scalars, as shares of the batch's means."""
        mel, accumulate = self.frontend.normalize(batch.mel), self.config.train.accumulate
        with self.engine.autocast():
            output = self.model(self.frontend.normalize(batch.seen), batch.lengths, generator)
        terms = self.objective(output, mel, batch.lengths, shares)
        adversary = self.state.adversary if self.state.adversary and self.state.adversary.start_step <= self.state.step else None
        if adversary:
            with self.engine.autocast():
                # these count every region of a crop, padded or not, so that all parts weigh alike
                terms |= adversary.losses(output.reconstruction, mel, batch.lengths)
        total = self.objective.total(terms)
        (total / accumulate).backward()  # type: ignore[no-untyped-call]
        told = {"loss": total, **terms}
        if adversary:
            with self.engine.autocast():
                told["discriminator"] = adversary.learn(output.reconstruction, mel, batch.lengths, 1 / accumulate)
        moments.append(output.quantized.moments)
        _count(counts, output.quantized.codes, batch.lengths, self.state.model.reach.stride)
        return {name: value.detach() / accumulate for name, value in told.items()}

    def _update(self, moments: list[Any], index: int) -> Scalars:
        """What follows the optimizer: the quantizer learns, the discriminator steps, the average follows."""
        state, told = self.state, {}
        if self.learns_codes:
            generator = torch.Generator().manual_seed(_seed(self.config.train.seed, index))  # alike in every process
            told = state.model.quantizer.update(moments, index, generator)
        if state.adversary and state.adversary.start_step <= index:
            state.adversary.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
            self._keep_frozen(state.average)
        state.progress.step += 1
        return told

    def _keep_frozen(self, average: nn.Module) -> None:
        """Parameters that do not learn stay as they are: averaging equal numbers would round them, and change the codes."""
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), self.state.model.parameters(), strict=True):
                if not parameter.requires_grad:
                    mean.copy_(parameter)

    def _prepared(self, index: int) -> _Step:
        """The crops of step ``index``, made already where batches are made ahead."""
        if self._ahead is None:
            return self._prepare(index)
        made = self._next[1].result() if self._next and self._next[0] == index else self._prepare(index)
        if index + 1 < self.config.train.steps:
            self._next = (index + 1, self._ahead.submit(self._prepare, index + 1))
        return made

    def close(self) -> None:
        """End the thread that makes batches."""
        if self._ahead:
            self._ahead.shutdown(cancel_futures=True)

    def _prepare(self, index: int) -> _Step:
        """This process's crops of step ``index`` in parts, and the weight of each in the batch of all processes."""
        draw = self.crops.draw(index)
        count = distributed.world_size() * self.config.train.accumulate
        size = len(draw.lengths) // count
        codes = -(-draw.lengths // self.state.model.reach.stride)
        result = []
        for part in range(self.config.train.accumulate):
            begin = (distributed.rank() * self.config.train.accumulate + part) * size
            mine = slice(begin, begin + size)
            shares = [float(values[mine].sum() * count / values.sum()) for values in (draw.lengths, codes)]
            result.append((self.crops.batch(draw.part(mine)), Shares(*shares)))
        return draw, result

    def check(self) -> None:
        """Look at the last step's gradients, now that they are surely there; nothing after them may be saved unless finite.

        Raises:
            MelcodecError: they were not; the step and its clips are named.
        """
        if self._unchecked is None or torch.isfinite(self._unchecked[1]):
            return
        index, _, draw = self._unchecked
        names = self.crops.sources(draw)
        listed = ", ".join(names[:NAMED_FILES]) + (f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else "")
        raise MelcodecError(
            f"step {index}: the loss is not finite, on crops of {listed}",
            f"lower the learning rate: --set optimizer.lr={self.config.optimizer.lr / 3:.0e}",
        )


def _seed(*parts: int) -> int:
    """One seed from several numbers."""
    seed = 0
    for part in parts:
        seed = (seed * 1_000_003 + part) % (1 << 63)
    return seed


def _perplexity(counts: Tensor) -> Tensor:
    """exp(entropy) of the codes of a batch, from counts (Q, K); of several codebooks the geometric mean."""
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(1).mean().exp()


def _count(counts: Tensor, codes: Tensor, lengths: Tensor | None, stride: int) -> None:
    """Add to ``counts`` (Q, K) how often each of codes (B, Q, N) occurs, the real N of every item only."""
    inside = torch.ones_like(codes, dtype=counts.dtype)
    if lengths is not None:
        real = torch.arange(codes.shape[-1], device=codes.device) < -(-lengths // stride)[:, None]
        inside *= real[:, None]
    counts.scatter_add_(1, codes.transpose(0, 1).flatten(1), inside.transpose(0, 1).flatten(1))
