"""The training loop: crops -> model -> losses -> step, with validation, checkpoints and a clean stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melcodec.audio.mel import MelFrontend
from melcodec.config import RunConfig
from melcodec.devices import computes_bfloat16, exact_float32
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import from_model, save_checkpoint
from melcodec.metrics.codes import code_usage
from melcodec.metrics.spectral import log_mel_l1
from melcodec.quantize.kmeans import kmeans
from melcodec.quantize.revival import revive_from_batch
from melcodec.training.cache import MelCache
from melcodec.training.data import Crops
from melcodec.training.logs import RunLog
from melcodec.training.objective import losses
from melcodec.training.optimizer import build_optimizer, lr_at
from melcodec.training.state import TrainState
from melcodec.vqvae import build_vqvae

STATE, BEST, LAST = "state.safetensors", "best.safetensors", "last.safetensors"
KMEANS_VECTORS_PER_CODE = 32
VALID_SECONDS = 60  # of each validation file, from its start: hours at once would not fit in memory


@dataclass(frozen=True)
class Corpus:
    """What a run learns from and is judged by; ``valid`` may be None."""

    train: MelCache
    valid: MelCache | None


Report = Callable[[str, int, dict[str, Any]], None]  # kind, step, values: every metric line


@dataclass(frozen=True)
class Hooks:
    """How the loop talks and when it stops."""

    report: Report = lambda kind, step, values: None
    should_stop: Callable[[], bool] = lambda: False


class Trainer:
    """One run in one folder. Construct, then ``run``.

    Args:
        config: model and training settings.
        corpus: cached mels.
        frontend: for its norms, on the CPU.
        folder: where state, checkpoints and logs go; a state found there is continued.
        device: where to train.
        hooks: the caller's ear and brake.
    """

    def __init__(
        self, config: RunConfig, corpus: Corpus, frontend: MelFrontend, folder: Path, device: torch.device, hooks: Hooks
    ) -> None:
        self.config, self.corpus, self.folder, self.device, self.hooks = config, corpus, folder, device, hooks
        self.frontend = frontend.to(device)
        train = config.train
        torch.manual_seed(train.seed)
        model = build_vqvae(config.model).to(device)
        self.state = TrainState(model, build_optimizer(model, optimizer), tuple(frontend.norms.tolist()))
        self.crops = Crops(corpus.train, data, config.model.mel, train.seed)
        self.autocast = wants_bfloat16(train.precision, device)

    def run(self) -> TrainState:
        """Train to ``config.train.steps`` or until asked to stop; save; return the state."""
        state, train = self.state, self.config.train
        if (self.folder / STATE).exists():
            state.restore(self.folder / STATE)
        elif codebook.start == "kmeans":
            self._start_codebook()
        log = RunLog(self.folder, state.step)
        started, first = time.perf_counter(), state.step
        try:
            while state.step < train.steps and not self.hooks.should_stop():
                for name, value in ({"steps": 1} | self._step()).items():
                    state.sums[name] = state.sums.get(name, 0) + value
                if state.step % train.log_every == 0:
                    sums, state.sums = state.sums, {}
                    steps, revived = sums.pop("steps"), sums.pop("revived")
                    speed = self._audio_seconds(state.step - first) / (time.perf_counter() - started)
                    means = {name: value / steps for name, value in sums.items()}
                    self._report(log, "train", {**means, "revived": revived, "audio_per_second": speed})
                if state.step % train.valid_every == 0 or state.step == train.steps:
                    self._validate(log)
                if state.step % train.save_every == 0:
                    state.save(self.folder / STATE)
            state.save(self.folder / STATE)
            self._save_checkpoint(LAST)
        finally:
            log.close()
        return state

    def _step(self) -> dict[str, float]:
        """One optimizer step; its scalars."""
        state, train = self.state, self.config.train
        lr = lr_at(optimizer, state.step, train.steps)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        mel = self._normalised_batch(state.step)
        state.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            output = state.model(mel)
        loss = losses(objective, output, mel)
        state.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), optimizer.grad_clip)
        if not torch.isfinite(norm):
            raise MelcodecError(
                f"step {state.step}: the loss is not finite", "lower the learning rate: --set optimizer.lr=1e-4"
            )
        state.optimizer.step()
        revived = 0
        if codebook.revive == "batch":
            generator = torch.Generator().manual_seed(train.seed * 1_000_003 + state.step)
            revived = revive_from_batch(state.model.codebook, output.latents, codebook.revive_below, generator)
        state.step += 1
        return {
            "loss": loss.total.item(),
            "reconstruction": loss.reconstruction.item(),
            "commitment": loss.commitment.item(),
            "grad_norm": norm.item(),
            "lr": lr,
            "revived": revived,
        }

    def _normalised_batch(self, step: int) -> Tensor:
        return self.frontend.normalize(self.crops.batch(step).to(self.device, non_blocking=True))

    @torch.no_grad()
    def _start_codebook(self) -> None:
        """k-means over the latents of the untrained encoder; every count starts at its share of a batch."""
        model, train = self.state.model.eval(), self.config.train
        per_batch = data.batch_size * data.crop_frames // model.reach.stride
        wanted = KMEANS_VECTORS_PER_CODE * model.codebook.codebook_size
        # crops past the last step: none that training sees
        batches = [self._normalised_batch(train.steps + i) for i in range(-(-wanted // per_batch))]
        latents = torch.cat([model.encode_latents(mel).transpose(1, 2).flatten(0, 1) for mel in batches])
        generator = torch.Generator().manual_seed(train.seed)
        centres, _ = kmeans(latents, model.codebook.codebook_size, codebook.kmeans_iterations, generator)
        everything = torch.arange(len(centres), device=self.device)
        model.codebook.assign(everything, centres, per_batch / len(centres))

    @torch.no_grad()
    def _validate(self, log: RunLog) -> None:
        """Reconstruction of up to a minute of every validation file, in float32, and the codes they use together."""
        if self.corpus.valid is None:
            self._save_checkpoint(BEST)
            return
        model, cache = self.state.model.eval(), self.corpus.valid
        counts = np.zeros(model.codebook.codebook_size, np.int64)
        errors = []
        most = VALID_SECONDS * self.frontend.sample_rate // self.frontend.hop_length
        for start, length in zip(cache.starts[:-1], cache.lengths, strict=True):
            mel = torch.from_numpy(cache.mels[start : start + min(length, most)].T.astype(np.float32))[None].to(self.device)
            with exact_float32(self.device):
                codes = model.encode(self.frontend.normalize(mel))
                output = self.frontend.denormalize(model.decode(codes))[..., : mel.shape[-1]]
            errors.append(log_mel_l1(mel.cpu().numpy(), output.cpu().numpy()))
            counts += np.bincount(codes.flatten().cpu().numpy(), minlength=len(counts))
        usage = code_usage(counts)
        error = float(np.mean(errors))
        self._report(log, "valid", {"log_mel_l1": error, "codes_used": usage.used, "perplexity": usage.perplexity})
        if error < self.state.best:
            self.state.best = error
            self._save_checkpoint(BEST)

    def _save_checkpoint(self, name: str) -> None:
        provenance = {
            "trained_by": "melcodec train",
            "steps": self.state.step,
            "train": self.config.train.model_dump(mode="json"),
        }
        checkpoint = from_model(self.state.model, self.config.model, self.state.mel_norms, provenance)
        save_checkpoint(self.folder / name, checkpoint)

    def _report(self, log: RunLog, kind: str, values: dict[str, Any]) -> None:
        log.scalars(kind, self.state.step, values)
        self.hooks.report(kind, self.state.step, values)

    def _audio_seconds(self, steps: int) -> float:
        data, mel = self.config.data, self.config.model.mel
        return steps * data.batch_size * data.crop_frames * mel.hop_length / mel.sample_rate


def wants_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to autocast: where asked, or, under ``auto``, where the device computes bfloat16 in hardware."""
    return computes_bfloat16(device) if precision == "auto" else precision == "bfloat16"
