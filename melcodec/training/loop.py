"""The training loop: crops -> model -> losses -> step, with validation, states and a clean stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melcodec import distributed
from melcodec.audio.mel import MelFrontend
from melcodec.config import RunConfig
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import Checkpoint, from_model, save_checkpoint, with_averages
from melcodec.quantize.kmeans import kmeans
from melcodec.quantize.revival import revive_from_batch, revive_two_sided
from melcodec.training.cache import MelCache
from melcodec.training.data import Crops, Draw, identity
from melcodec.training.logs import RunLog
from melcodec.training.objective import Shares, losses
from melcodec.training.optimizer import build_optimizer, lr_at
from melcodec.training.samples import Samples, Snapshot
from melcodec.training.state import TrainState, state_paths
from melcodec.training.validate import Validator
from melcodec.vqvae import VQVAE, build_vqvae

BEST, LAST = "best.safetensors", "last.safetensors"
KMEANS_VECTORS_PER_CODE = 16
NAMED_FILES = 8  # of a batch that went wrong


@dataclass(frozen=True)
class Corpus:
    """What a run learns from and is judged by."""

    train: MelCache
    valid: MelCache


Stepped = Callable[[int, Mapping[str, Any]], None]  # step, its scalars: after every step, and once before the first
Report = Callable[[str, int, dict[str, Any]], None]  # kind, step, values: every metric line


@dataclass(frozen=True)
class Hooks:
    """How the loop talks and when it stops."""

    report: Report = lambda kind, step, values: None
    say: Callable[[str], None] = lambda text: None
    should_stop: Callable[[], bool] = lambda: False
    stepped: Stepped = lambda step, values: None


@dataclass
class _Clock:
    """Speech per second since the run, or this part of it, began."""

    first: int
    started: float = field(default_factory=time.perf_counter)
    paused: float = 0.0


class Trainer:
    """One run in one folder. Construct, then ``run``.

    Args:
        config: model and training settings.
        corpus: cached mels.
        frontend: for its norms, on the CPU.
        folder: where states, checkpoints and logs go; a state found there is continued.
        engine: of ``training.engine``: device, precision, processes.
        hooks: the caller's ear and brake.
        init: weights to start from instead of random ones.
    """

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        frontend: MelFrontend,
        folder: Path,
        engine: Accelerator,
        hooks: Hooks,
        init: Checkpoint | None = None,
    ) -> None:
        self.config, self.corpus, self.folder, self.engine, self.hooks, self.init = config, corpus, folder, engine, hooks, init
        self.device: torch.device = engine.device
        self.frontend = frontend.to(self.device)
        self.crops = Crops(corpus.train, config, self.device)
        model = self._build_model()
        optimizer = build_optimizer(model, config.optimizer)
        decay = config.train.weight_ema
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None  # type: ignore[no-untyped-call]
        self.state = TrainState(model, optimizer, average, tuple(self.frontend.norms.tolist()), identity(corpus.train))
        self.wrapped, self.optimizer = engine.prepare(model, optimizer)
        self.log: RunLog | None = None
        self.clock = _Clock(0)
        self.unseen: Snapshot | None = None

    def _build_model(self) -> VQVAE:
        torch.manual_seed(self.config.train.seed)
        model = build_vqvae(self.config.model)
        if self.init:
            model.load_state_dict(with_averages(self.init.tensors), strict=True)
        model.to(self.device)
        model.codebook.learning = self.config.train.tune == "full"
        model.codebook.deferred = True
        if self.config.train.tune == "decoder":
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.startswith("decoder."))
        return model

    def run(self) -> TrainState:
        """Train to ``config.train.steps`` or until asked to stop; save; return the state."""
        state, train = self.state, self.config.train
        resumed = bool(state_paths(self.folder))
        if resumed:
            for note in state.restore(self.folder):
                self.hooks.say(note)
        self.hooks.stepped(state.step, {})
        if not resumed and self.config.codebook.start != "stock" and self.init is None:
            self.start_codebook()
        if self.engine.is_main_process:
            self.log = RunLog(self.folder, state.step, train.wandb, self.config.model_dump(mode="json"))
        reference = self.init.build().to(self.device) if self.init else None
        self.validator = Validator(self.corpus.valid, self.frontend, train.valid_minutes, reference)
        self.samples = Samples(self.config, self.folder, self.validator)
        try:
            self._loop(resumed)
        finally:
            if self.log:
                self.log.close()
        return state

    def _loop(self, resumed: bool) -> None:
        state, train = self.state, self.config.train
        self.clock = _Clock(state.step)
        if not resumed:
            self._validate()
        while state.step < train.steps and not distributed.any_of(self.hooks.should_stop(), self.device):
            scalars = self.step()
            self.hooks.stepped(state.step, scalars)
            for name, value in ({"steps": 1} | scalars).items():
                state.progress.sums[name] = state.progress.sums.get(name, 0) + value
            if state.step % train.log_every == 0:
                self._log_training()
            if state.step % train.valid_every == 0 or state.step == train.steps:
                self._validate()
            self._show()
            if state.step % train.save_every == 0:
                self._save_state()
        self._show()
        self._save_state()
        self._save_checkpoint(LAST)

    def step(self) -> dict[str, float]:
        """One optimizer step; its scalars, means over all processes."""
        state, config = self.state, self.config
        lr = lr_at(config.optimizer, state.step, config.train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.wrapped.train()
        draw = self.crops.draw(state.step)
        latents, scalars = [], torch.zeros(3, device=self.device)
        norm = torch.zeros((), device=self.device)
        for part, shares in self._parts(draw):
            with self.engine.accumulate(self.wrapped):
                batch = self.crops.batch(part)
                mel = self.frontend.normalize(batch.mel)
                output = self.wrapped(self.frontend.normalize(batch.seen), batch.lengths)  # in bfloat16 where the engine says
                loss = losses(config.objective, output, mel, batch.lengths, shares)
                self.engine.backward(loss.total)
                if self.engine.sync_gradients:
                    norm = self.engine.clip_grad_norm_(self.wrapped.parameters(), config.optimizer.grad_clip)
                    self._check(norm, draw)
                self.optimizer.step()
                self.optimizer.zero_grad()
            scalars += torch.stack([value.detach() for value in loss]) / config.train.accumulate
            latents.append(_real(output.latents.detach(), part.lengths, state.model.reach.stride))
        self._after_step(torch.cat(latents), draw)
        distributed.all_reduce_sum(scalars)
        total, reconstruction, commitment = (scalars / distributed.world_size()).tolist()
        terms = {"loss": total, "reconstruction": reconstruction, "commitment": commitment}
        return {**terms, "grad_norm": float(norm), "lr": lr}

    def _after_step(self, latents: Tensor, draw: Draw) -> None:
        """What follows the optimizer: the codebook moves, the dead are revived, the average follows."""
        state, codebook, config = self.state, self.state.model.codebook, self.config
        if codebook.learning:
            codebook.commit()
            generator = torch.Generator().manual_seed(config.train.seed * 1_000_003 + state.step)
            if config.codebook.revive == "batch":
                place = self._place(draw)
                state.progress.revived += revive_from_batch(codebook, latents, config.codebook.revive_below, generator, place)
            elif config.codebook.revive == "two-sided":
                state.progress.revived += revive_two_sided(codebook, generator)
        if state.average is not None:
            state.average.update_parameters(state.model)
        state.progress.step += 1

    def _parts(self, draw: Draw) -> list[tuple[Draw, Shares]]:
        """This process's crops in parts, and what each weighs in the batch of all."""
        count = distributed.world_size() * self.config.train.accumulate
        size = len(draw.lengths) // count
        codes = -(-draw.lengths // self.state.model.reach.stride)
        result = []
        for index in range(self.config.train.accumulate):
            begin = (distributed.rank() * self.config.train.accumulate + index) * size
            mine = slice(begin, begin + size)
            shares = [float(values[mine].sum() * count / values.sum()) for values in (draw.lengths, codes)]
            result.append((draw.part(mine), Shares(*shares)))
        return result

    def _place(self, draw: Draw) -> tuple[int, int]:
        """Where this process's latents begin in those of all processes, and how many all are."""
        codes = -(-draw.lengths // self.state.model.reach.stride)
        size = len(codes) // distributed.world_size()
        return int(codes[: distributed.rank() * size].sum()), int(codes.sum())

    def _check(self, norm: Tensor, draw: Draw) -> None:
        if torch.isfinite(norm):
            return
        names = self.crops.sources(draw)
        listed = ", ".join(names[:NAMED_FILES]) + (f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else "")
        raise MelcodecError(
            f"step {self.state.step}: the loss is not finite, on crops of {listed}",
            f"lower the learning rate: --set optimizer.lr={self.config.optimizer.lr / 3:.0e}",
        )

    @torch.no_grad()
    def start_codebook(self) -> None:
        """Codewords from encoded speech, decided by the first process; every count starts at its share of a batch."""
        model, data, config = self.state.model.eval(), self.config.data, self.config.codebook
        per_batch = data.batch_size * data.crop_frames // model.reach.stride
        size = model.codebook.codebook_size
        centres = torch.zeros(size, model.codebook.dim, device=self.device)
        if self.engine.is_main_process:
            generator = torch.Generator().manual_seed(self.config.train.seed)
            latents = self._some_latents(KMEANS_VECTORS_PER_CODE * size)
            # no iteration: the centres are latents themselves
            centres, _ = kmeans(latents, size, config.kmeans_iterations if config.start == "kmeans" else 0, generator)
        distributed.broadcast(centres)
        model.codebook.assign(torch.arange(size, device=self.device), centres, per_batch / size)

    def _some_latents(self, wanted: int) -> Tensor:
        """About ``wanted`` latents (n, D), of crops past the last step: none that training sees."""
        found: list[Tensor] = []
        step = self.config.train.steps
        while sum(map(len, found)) < wanted:
            draw = self.crops.draw(step)
            batch = self.crops.batch(draw)
            with self.engine.autocast():
                latents = self.state.model.encode_latents(self.frontend.normalize(batch.mel), batch.lengths)
            found.append(_real(latents, draw.lengths, self.state.model.reach.stride))
            step += 1
        return torch.cat(found)

    def _validate(self) -> None:
        """Judge, log, draw, and keep the best."""
        state, began = self.state, time.perf_counter()
        verdict = self.validator.judge(state.judged.eval())
        if self.log:
            self._report("valid", verdict.scalars() | {"revived": state.progress.revived})
            self.log.usage(state.step, verdict.counts)
            self.unseen = self.samples.take(state.step, state.judged, verdict.counts)
        state.progress.revived = 0
        if verdict.error < state.best and (state.step or self.init):  # random weights are nobody's best
            state.progress.best = verdict.error
            self._save_checkpoint(BEST)
        self.clock.paused += time.perf_counter() - began

    def _show(self) -> None:
        """Draw the last validation; that of the untrained model only after the first step, for which nobody should wait."""
        if self.log and self.unseen:
            began = time.perf_counter()
            self.samples.show(self.log, self.unseen)
            self.unseen = None
            self.clock.paused += time.perf_counter() - began

    def _log_training(self) -> None:
        state, clock = self.state, self.clock
        sums, state.progress.sums = state.progress.sums, {}
        steps = sums.pop("steps")
        data, mel = self.config.data, self.config.model.mel
        seconds = (state.step - clock.first) * data.batch_size * data.crop_frames * mel.hop_length / mel.sample_rate
        speed = seconds / (time.perf_counter() - clock.started - clock.paused)
        means = {name: value / steps for name, value in sums.items()}
        if self.log:
            self._report("train", {**means, "audio_per_second": speed})

    def _save_state(self) -> None:
        if self.engine.is_main_process:
            self.state.save(self.folder)
        distributed.barrier()

    def _save_checkpoint(self, name: str) -> None:
        if not self.engine.is_main_process:
            return
        provenance: dict[str, Any] = {"trained_by": "melcodec train", "steps": self.state.step}
        provenance |= self.config.model_dump(mode="json", exclude={"model", "version"})
        if self.init:
            provenance["init"] = {"fingerprint": self.init.fingerprint, "provenance": self.init.provenance}
        save_checkpoint(self.folder / name, from_model(self.state.judged, self.config.model, self.state.mel_norms, provenance))

    def _report(self, kind: str, values: dict[str, Any]) -> None:
        assert self.log
        self.log.scalars(kind, self.state.step, values)
        self.hooks.report(kind, self.state.step, values)


def _real(latents: Tensor, lengths: Any, stride: int) -> Tensor:
    """latents (B, D, N) and real frames (B,) -> the real ones (n, D), in order."""
    flat = latents.transpose(1, 2)
    codes = torch.from_numpy(-(-lengths // stride)).to(latents.device)
    inside = torch.arange(flat.shape[1], device=latents.device) < codes[:, None]
    return flat[inside].float()
