"""The training loop: steps, with validation, states, checkpoints and a clean stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melcodec import distributed
from melcodec.audio.mel import MelFrontend
from melcodec.config import RunConfig
from melcodec.formats.checkpoint import Checkpoint, from_model, load_weights, save_checkpoint
from melcodec.objective.adversary import Adversary
from melcodec.training.cache import MelCache, Progress
from melcodec.training.data import Crops, identity
from melcodec.training.engine import Engine
from melcodec.training.logs import RunLog
from melcodec.training.optimizer import build_optimizer
from melcodec.training.samples import Samples, Snapshot
from melcodec.training.state import TrainState, state_paths
from melcodec.training.step import Stepper
from melcodec.training.validate import Validator
from melcodec.vqvae import VQVAE, build_vqvae

BEST, LAST, KEPT = "best.safetensors", "last.safetensors", "kept"
START_VECTORS_PER_CODE = 16


@dataclass(frozen=True)
class Corpus:
    """What a run learns from and is judged by; ``speakers`` (F,) name those of each entry of ``train``, where they matter."""

    train: MelCache
    valid: MelCache
    speakers: Sequence[str] | None = None


Stepped = Callable[[int, Mapping[str, Any]], None]  # step, its scalars: after every step, and once before the first
Report = Callable[[str, int, dict[str, Any]], None]  # kind, step, values: every metric line


@dataclass(frozen=True)
class Callbacks:
    """What a run calls.

    ``report`` with every metric line; ``say`` with messages; ``cached`` with the mels that are computed and those in all;
    ``should_stop`` before every step; ``stepped`` with the step's
    scalars, tensors on the device, after every step, and once before the first.
    """

    report: Report = lambda kind, step, values: None
    say: Callable[[str], None] = lambda text: None
    cached: Progress = lambda done, total: None
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
        callbacks: what the loop calls.
        init: weights to start from instead of random ones.
    """

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        frontend: MelFrontend,
        folder: Path,
        engine: Engine,
        callbacks: Callbacks,
        init: Checkpoint | None = None,
    ) -> None:
        self.config, self.corpus, self.folder, self.engine, self.callbacks = config, corpus, folder, engine, callbacks
        self.init, self.device = init, engine.device
        self.frontend = frontend.to(self.device)
        self.crops = Crops(corpus.train, config, self.device, corpus.speakers)
        model = self._build_model()
        optimizer = build_optimizer(model, config.optimizer)
        decay = config.train.weight_ema
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None  # type: ignore[no-untyped-call]
        adversary = (
            Adversary(config.objective.discriminator, self.frontend.norms, config.train.seed)
            if config.objective.adversarial
            else None
        )
        norms = tuple(self.frontend.norms.tolist())
        self.state = TrainState(model, optimizer, average, norms, identity(corpus.train), adversary)
        self.stepper = Stepper(config, self.state, self.crops, self.frontend, engine)
        self.sums: dict[str, Tensor] = {}  # of every scalar over the steps since the last metric line
        self.log: RunLog | None = None
        self.clock = _Clock(0)
        self.unseen: Snapshot | None = None

    def _build_model(self) -> VQVAE:
        torch.manual_seed(self.config.train.seed)
        model = build_vqvae(self.config.model, self.config.codebook)
        if self.init:
            load_weights(model, self.init.tensors)
        model.to(self.device)
        if self.config.train.tune == "decoder":
            model.requires_grad_(False)
            model.decoder.requires_grad_(True)
        elif self.config.train.tune == "frozen-codebook":
            model.quantizer.requires_grad_(False)
        return model

    def run(self) -> TrainState:
        """Train to ``config.train.steps`` or until asked to stop; save; return the state."""
        state, train = self.state, self.config.train
        resumed = bool(state_paths(self.folder))
        if resumed:
            for note in state.restore(self.folder):
                self.callbacks.say(note)
            sums = state.progress.sums
            self.sums = {name: self._exact(torch.tensor(value, dtype=torch.float64)) for name, value in sums.items()}
        self.callbacks.stepped(state.step, {})
        if not resumed and self.init is None:
            self.start_codebook()
        if self.engine.is_main:
            self.log = RunLog(self.folder, state.step, train.wandb, self.config.model_dump(mode="json"))
        reference = self.init.build().to(self.device) if self.init else None
        self.validator = Validator(self.corpus.valid, self.frontend, train.valid_minutes, reference)
        self.samples = Samples(self.config, self.folder, self.validator)
        try:
            self._loop(resumed)
        finally:
            self.stepper.close()
            if self.log:
                self.log.close()
        return state

    def _loop(self, resumed: bool) -> None:
        state, train, keep = self.state, self.config.train, self._keep_every()
        self.clock = _Clock(state.step)
        if not resumed:
            self._validate()
        while state.step < train.steps and not distributed.any_of(self.callbacks.should_stop(), self.device):
            scalars = self.stepper.step()
            self.callbacks.stepped(state.step, scalars)
            self._add(scalars)
            if state.step % train.log_every == 0:
                self._log_training()
            if state.step % train.valid_every == 0 or state.step == train.steps:
                self._validate()
            self._show()
            if keep and state.step % keep == 0:
                self._save_checkpoint(f"{KEPT}/step-{state.step:08}.safetensors")
            if state.step % train.save_every == 0:
                self._save_state()
        self._show()
        self._save_state()
        self._save_checkpoint(LAST)

    def _keep_every(self) -> int:
        """Steps between checkpoints that are kept; 0: none are."""
        data, keep = self.config.data, self.config.train.keep_every
        if keep == "epoch":
            return max(1, round(len(self.corpus.train.mels) / (data.batch_size * data.crop_frames)))
        return keep

    def _exact(self, value: Tensor) -> Tensor:
        """A sum's precision: a run that is continued must add up to the same bits."""
        return value.to(self.device, torch.float32 if self.device.type == "mps" else torch.float64)

    def _add(self, scalars: dict[str, Tensor]) -> None:
        for name, value in ({"steps": torch.ones(())} | scalars).items():
            exact = self._exact(value)
            self.sums[name] = self.sums[name] + exact if name in self.sums else exact

    @torch.no_grad()
    def start_codebook(self) -> None:
        """First codewords from encoded speech, decided by the first process."""
        model, data = self.state.model.eval(), self.config.data
        if self.engine.is_main:
            generator = torch.Generator().manual_seed(self.config.train.seed)
            wanted = START_VECTORS_PER_CODE * max(model.sizes)
            model.quantizer.start(self._some_latents(wanted), generator, data.batch_size * data.crop_frames // model.reach.stride)
        distributed.broadcast(*model.quantizer.state_dict().values())

    def _some_latents(self, wanted: int) -> Tensor:
        """About ``wanted`` latents (n, D), of crops past the last step: none that training sees."""
        found: list[Tensor] = []
        step = self.config.train.steps
        while sum(map(len, found)) < wanted:
            draw = self.crops.draw(step)
            batch = self.crops.batch(draw)
            with self.engine.autocast():
                latents = self.state.model.encode_latents(self.frontend.normalize(batch.mel), batch.lengths)
            flat = latents.transpose(1, 2)
            real = torch.from_numpy(-(-draw.lengths // self.state.model.reach.stride)).to(latents.device)
            found.append(flat[torch.arange(flat.shape[1], device=latents.device) < real[:, None]].float())
            step += 1
        return torch.cat(found)

    def _validate(self) -> None:
        """Judge, log, draw, and keep the best."""
        self.stepper.check()
        state, began = self.state, time.perf_counter()
        verdict = self.validator.judge(state.judged.eval())
        self._settle_revived()
        if self.log:
            self._report("valid", verdict.scalars() | {"revived": state.progress.revived})
            self.log.usage(state.step, verdict.counts)
            self.unseen = self.samples.take(state.step, state.judged, verdict.counts)
        state.progress.revived = 0
        if verdict.error < state.best and (state.step or self.init):  # do not save an untrained model as best
            state.progress.best = verdict.error
            self._save_checkpoint(BEST)
        self.clock.paused += time.perf_counter() - began

    def _settle_revived(self) -> None:
        """Move the revived codewords, which are counted from validation to validation, out of the running sums."""
        if "revived" in self.sums:
            self.state.progress.revived += int(self.sums.pop("revived"))

    def _show(self) -> None:
        """Draw the last validation; that of the untrained model only after the first step, because it takes time."""
        if self.log and self.unseen:
            began = time.perf_counter()
            self.samples.show(self.log, self.unseen)
            self.unseen = None
            self.clock.paused += time.perf_counter() - began

    def _log_training(self) -> None:
        state, clock = self.state, self.clock
        self._settle_revived()
        sums, self.sums = {name: float(value) for name, value in self.sums.items()}, {}
        steps = sums.pop("steps")
        data, mel = self.config.data, self.config.model.mel
        seconds = (state.step - clock.first) * data.batch_size * data.crop_frames * mel.hop_length / mel.sample_rate
        speed = seconds / (time.perf_counter() - clock.started - clock.paused)
        if self.log:
            means = {name: value / steps for name, value in sums.items()}
            lr = self.state.optimizer.param_groups[0]["lr"]
            self._report("train", {**means, "lr": lr, "audio_per_second": speed})

    def _save_state(self) -> None:
        self.stepper.check()
        self._settle_revived()
        self.state.progress.sums = {name: float(value) for name, value in self.sums.items()}
        if self.engine.is_main:
            self.state.save(self.folder)
        distributed.barrier()

    def _save_checkpoint(self, name: str) -> None:
        self.stepper.check()
        if not self.engine.is_main:
            return
        provenance: dict[str, Any] = {"trained_by": "melcodec train", "steps": self.state.step}
        provenance |= self.config.model_dump(mode="json", exclude={"model", "version"})
        if self.init:
            provenance["init"] = {"fingerprint": self.init.fingerprint, "provenance": self.init.provenance}
        save_checkpoint(self.folder / name, from_model(self.state.judged, self.config.model, self.state.mel_norms, provenance))

    def _report(self, kind: str, values: dict[str, Any]) -> None:
        assert self.log
        self.log.scalars(kind, self.state.step, values)
        self.callbacks.report(kind, self.state.step, values)
