"""The training loop of a network over codes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melcodec import distributed
from melcodec.errors import MelcodecError
from melcodec.metrics.ngram import NGram
from melcodec.prior.config import LlamaSettings, PriorConfig
from melcodec.prior.data import Batch, Sequences
from melcodec.prior.models import Prior, rounded, save_prior
from melcodec.prior.network import IGNORED, build_network, logits_of, loss_of
from melcodec.prior.reading import CodeSpace
from melcodec.prior.state import PriorState, state_paths
from melcodec.tokens import Tokens
from melcodec.training.logs import RunLog
from melcodec.training.optimizer import build_optimizer, lr_at

if TYPE_CHECKING:
    from melcodec.training.engine import Engine

Report = Callable[[str, int, dict[str, Any]], None]  # kind of line, step, values


@dataclass(frozen=True)
class Hooks:
    """Callbacks: progress messages, metric lines, a new best prior to make samples of; and whether to stop."""

    say: Callable[[str], None] = lambda text: None
    report: Report = lambda kind, step, values: None
    should_stop: Callable[[], bool] = lambda: False
    show: Callable[[Prior, int], None] = lambda prior, step: None


@dataclass(frozen=True)
class Lesson:
    """What a network learns from.

    Args:
        space: whose codes.
        train, valid: training sequences, and those of held-out speakers.
        corpus: a name that changes when the codes do.
        table, baselines: n-grams of the highest and of lower orders, saved beside the network.
        figures: of the baselines, JSON values.
    """

    space: CodeSpace
    train: Sequences
    valid: Sequences
    corpus: str
    table: NGram
    baselines: tuple[NGram, ...]
    figures: dict[str, Any]


class Trainer:
    """One run in one folder; a state found there is continued.

    Args:
        config: network and training settings.
        lesson: codes to learn from.
        folder: where the prior, states and metric lines go.
        engine: of ``training.engine``: device, precision, processes.
        hooks: callbacks.
    """

    def __init__(self, config: PriorConfig, lesson: Lesson, folder: Path, engine: Engine, hooks: Hooks) -> None:
        self.config, self.lesson, self.folder, self.engine, self.hooks = config, lesson, folder, engine, hooks
        torch.manual_seed(config.train.seed)
        network = build_network(network_settings(config), lesson.train.tokens).to(engine.device)
        optimizer = build_optimizer(network, config.optimizer)
        self.state = PriorState(network, optimizer, lesson.corpus)
        self.wrapped, self.optimizer = engine.wrapped(network), optimizer
        self.log: RunLog | None = None
        self.began, self.counted, self.paused = time.perf_counter(), 0, 0.0

    @property
    def tokens(self) -> Tokens:
        """Vocabulary and layout."""
        return self.lesson.train.tokens

    def run(self) -> PriorState:
        """Train to ``config.train.steps`` or until asked to stop; save; return the state."""
        state, train = self.state, self.config.train
        if state_paths(self.folder):
            for note in state.restore(self.folder):
                self.hooks.say(note)
        if self.engine.is_main:
            self.log = RunLog(self.folder, state.progress.step)
        try:
            self.began = time.perf_counter()
            while state.progress.step < train.steps and not distributed.any_of(self.hooks.should_stop(), self.engine.device):
                for name, value in ({"steps": 1.0} | self.step()).items():
                    state.progress.sums[name] = state.progress.sums.get(name, 0.0) + value
                self._after_step()
            self._save_state()
        finally:
            if self.log:
                self.log.close()
        return state

    def _after_step(self) -> None:
        step, train = self.state.progress.step, self.config.train
        if step % train.log_every == 0:
            self._log()
        if step % train.valid_every == 0 or step == train.steps:
            self._validate()
        if step % train.save_every == 0:
            self._save_state()

    def step(self) -> dict[str, float]:
        """One optimizer step; its scalars are means over all processes."""
        state, config = self.state, self.config
        step, world = state.progress.step, distributed.world_size()
        lr = lr_at(config.optimizer, step, config.train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.wrapped.train()
        torch.manual_seed((config.train.seed * 1_000_003 + step) * 1024 + distributed.rank())  # of dropout
        batch = self.lesson.train.batch(step, config.data.batch_size, config.data.token_dropout)
        wanted = int((batch.targets != IGNORED).sum())
        with self.engine.autocast():
            logits = self._logits(batch.part(distributed.rank(), world))
        total, _ = loss_of(logits, self._here(batch.part(distributed.rank(), world).targets), self.tokens)
        # processes average their gradients: each one's share of the tokens is weighted so that the mean is the whole batch's
        (total * world / wanted).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.wrapped.parameters(), config.optimizer.grad_clip)
        if not torch.isfinite(norm):
            lower = f"--set optimizer.lr={config.optimizer.lr / 3:.0e}"
            raise MelcodecError(f"step {step}: the loss is not finite", f"lower the learning rate: {lower}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        state.progress.step += 1
        self.counted += wanted
        loss = total.detach().clone()
        distributed.all_reduce_sum(loss)
        nats = float(loss) / wanted
        return {"loss": nats, "bits_per_token": nats / math.log(2), "grad_norm": float(norm), "lr": lr}

    def _here(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self.engine.device)

    def _logits(self, batch: Batch) -> Tensor:
        packed = self.lesson.train.packed
        places = (self._here(batch.positions), self._here(batch.documents)) if packed else ()
        return logits_of(self.wrapped, self._here(batch.inputs), *places)

    @torch.inference_mode()
    def held_out_bits(self) -> float:
        """Mean bits per held-out code, among the codes of its codebook.

        Sequences begin anew every ``context`` rows here, so that this is a little more than ``melcodec prior score`` says.
        """
        self.wrapped.eval()
        bits, count = 0.0, 0
        for batch in self.lesson.valid.once(self.config.data.batch_size):
            with self.engine.autocast():
                logits = self._logits(batch)
            part_bits, part_count = code_bits(logits.float(), self._here(batch.targets), self.tokens)
            bits, count = bits + part_bits, count + part_count
        return bits / max(count, 1)

    def _validate(self) -> None:
        """Measure, log, and keep the best; the first process does it, the others wait."""
        began, step = time.perf_counter(), self.state.progress.step
        if self.engine.is_main:
            bits = self.held_out_bits()
            self._report("valid", {"bits_per_code": bits, **self.lesson.figures.get("valid_bits", {})})
            prior = self.prior(bits)
            if bits < (math.inf if self.state.progress.best is None else self.state.progress.best):
                self.state.progress.best = bits
                save_prior(self.folder, prior)
            if step % self.config.train.sample_every == 0 or step == self.config.train.steps:
                self.hooks.show(prior, step)
        distributed.barrier()
        self.paused += time.perf_counter() - began

    def prior(self, bits: float) -> Prior:
        """The network as it is now, which reaches ``bits`` per held-out code."""
        figures = {**self.lesson.figures, "steps": self.state.progress.step, "valid_bits_per_code": round(bits, 4)}
        network, lesson = self.state.network.eval(), self.lesson
        network = rounded(network) if self.config.train.weights == "float16" else network
        return Prior(lesson.space, self.tokens.pattern, lesson.table, network, figures, lesson.baselines)

    def _log(self) -> None:
        sums, self.state.progress.sums = self.state.progress.sums, {}
        steps = sums.pop("steps")
        elapsed = time.perf_counter() - self.began - self.paused
        if self.log:
            means = {name: value / steps for name, value in sums.items()}
            self._report("train", {**means, "tokens_per_second": round(self.counted / elapsed, 1)})

    def _report(self, kind: str, values: dict[str, Any]) -> None:
        assert self.log
        self.log.scalars(kind, self.state.progress.step, values)
        self.hooks.report(kind, self.state.progress.step, values)

    def _save_state(self) -> None:
        if self.engine.is_main:
            self.state.save(self.folder)
        distributed.barrier()


def network_settings(config: PriorConfig) -> Any:
    """The settings of the network; MelcodecError for kind ngram, which has none."""
    if config.model.kind == "ngram":
        raise MelcodecError("kind ngram has no network to train")
    return config.model


def is_packed(config: PriorConfig) -> bool:
    """Whether several utterances share a sequence: where attention can be masked."""
    return isinstance(config.model, LlamaSettings)


def code_bits(logits: Tensor, targets: Tensor, tokens: Tokens) -> tuple[float, int]:
    """Logits (B, R, V) and the rows that follow (B, R, W) -> bits of all codes among those of their codebook, and how many."""
    bits, count = 0.0, 0
    for column in range(tokens.width):
        wanted = targets[..., column]
        for book in range(len(tokens.sizes)) if tokens.width == 1 else [column]:
            first, size = tokens.first(book), tokens.sizes[book]
            mine = (wanted >= first) & (wanted < first + size)
            logs = logits[mine][:, first : first + size].log_softmax(-1)
            bits -= float(logs.gather(1, (wanted[mine] - first)[:, None]).sum()) / math.log(2)
            count += int(mine.sum())
    return bits, count
