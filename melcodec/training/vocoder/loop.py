"""The training loop of a vocoder: crops of waves -> mel -> network -> losses -> step, with validation and states."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcodec.config import OptimizerConfig
from melcodec.errors import MelcodecError
from melcodec.training.engine import wants_bfloat16
from melcodec.training.logs import RunLog
from melcodec.training.loop import BEST, LAST, Callbacks
from melcodec.training.optimizer import build_optimizer, lr_at
from melcodec.training.state import state_paths
from melcodec.training.vocoder.discriminator import Discriminators, adversarial_loss, discriminator_loss, feature_loss
from melcodec.training.vocoder.losses import spectral_terms, stft_distance
from melcodec.training.vocoder.settings import VocoderRunConfig
from melcodec.training.vocoder.state import VocoderState
from melcodec.training.vocoder.waves import WaveCache, WaveCrops
from melcodec.vocoder.file import VocoderCheckpoint, save_vocoder
from melcodec.vocoder.griffin_lim import istft
from melcodec.vocoder.learned import LearnedVocoder
from melcodec.vocoder.network import VocosNetwork

VALID_SECONDS = 4.0  # of each validation clip


@dataclass
class _Clock:
    started: float = field(default_factory=time.perf_counter)
    steps: int = 0


class VocoderTrainer:
    """One run in one folder, on one device. Construct, then ``run``.

    Args:
        config: of the run.
        train, valid: waves to learn from and to be judged by.
        folder: where states, vocoder files and logs go; a state found there is continued.
        device: where it runs.
        calls: what the run calls to report, to say and to ask whether to stop.
        init: weights to start from instead of random ones.
    """

    def __init__(
        self,
        config: VocoderRunConfig,
        train: WaveCache,
        valid: WaveCache,
        folder: Path,
        device: torch.device,
        calls: Callbacks,
        init: VocoderCheckpoint | None = None,
    ) -> None:
        self.config, self.valid, self.folder, self.device, self.calls, self.init = config, valid, folder, device, calls, init
        mel, data, weights = config.mel, config.data, config.objective
        self.num_samples = (data.crop_frames - 1) * mel.hop_length
        self.crops = WaveCrops(train, self.num_samples, data.batch_size, data.gain_db, config.train.seed)
        torch.manual_seed(config.train.seed)
        self.network = VocosNetwork(config.network, mel)
        if init:
            self.network.load_state_dict(init.tensors, strict=True)
        self.network.to(device)
        modules: dict[str, torch.nn.Module] = {"network": self.network}
        optimizers = {"network": build_optimizer(self.network, config.optimizer)}
        self.discriminators: Discriminators | None = None
        if weights.adversarial or weights.feature_matching:
            self.discriminators = Discriminators(weights.adversary_channels).to(device)
            settings = OptimizerConfig(lr=weights.adversary_lr, betas=(0.8, 0.99))
            modules["discriminators"] = self.discriminators
            optimizers["discriminators"] = build_optimizer(self.discriminators, settings)
        self.state = VocoderState(modules, optimizers, train.key)
        self.bfloat16 = wants_bfloat16(config.train.precision, device)
        self.clock = _Clock()

    def run(self) -> VocoderState:
        """Train to ``config.train.steps`` or until asked to stop; save; return the state."""
        state, train = self.state, self.config.train
        if state_paths(self.folder):
            for note in state.restore(self.folder):
                self.calls.say(note)
        self.log = RunLog(self.folder, state.progress.step)
        try:
            while state.progress.step < train.steps and not self.calls.should_stop():
                for name, value in ({"steps": 1.0} | self.step()).items():
                    state.progress.sums[name] = state.progress.sums.get(name, 0.0) + value
                step = state.progress.step
                if step % train.log_every == 0:
                    self._log_training()
                if step % train.valid_every == 0 or step == train.steps:
                    self._validate()
                if step % train.save_every == 0:
                    state.save(self.folder)
            state.save(self.folder)
            self._save_vocoder(LAST)
        finally:
            self.log.close()
        return state

    def step(self) -> dict[str, float]:
        """One step of the network and, from ``adversary_start`` on, of the discriminators before it; its scalars."""
        step, config = self.state.progress.step, self.config
        lr = lr_at(config.optimizer, step, config.train.steps)
        for group in self.state.optimizers["network"].param_groups:
            group["lr"] = lr
        wav = self.crops.batch(step).to(self.device)
        frontend = self.network.frontend
        with torch.no_grad():
            mel = frontend(wav)
        self.network.train()
        with self._autocast():
            output = self.network(mel)
        weights = config.objective
        adversary = self.discriminators is not None and step >= weights.adversary_start
        made = None
        if weights.stft or weights.mel or adversary:
            made = istft(output[0].exp() * output[1], frontend, self.num_samples)
        terms = spectral_terms(output, made, wav, frontend, weights)
        scalars = {}
        if adversary and made is not None:
            scalars["discriminator"] = self._teach(wav, made.detach())
            terms |= self._judge(wav, made)
        loss = torch.stack(list(terms.values())).sum()
        scalars["grad_norm"] = self._descend("network", loss)
        self.state.progress.step += 1
        values = torch.stack([loss, *terms.values()]).tolist()
        return dict(zip(("loss", *terms), values, strict=True)) | scalars | {"lr": lr}

    def _teach(self, real: Tensor, made: Tensor) -> float:
        """One step of the discriminators; their loss."""
        assert self.discriminators
        with self._autocast():
            loss = discriminator_loss(self.discriminators(real), self.discriminators(made))
        self._descend("discriminators", loss)
        return float(loss.detach())

    def _judge(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """What the discriminators, which stay as they are, add to the network's loss."""
        assert self.discriminators
        weights = self.config.objective
        self.discriminators.requires_grad_(False)
        with self._autocast():
            theirs = self.discriminators(made)
            with torch.no_grad():
                originals = self.discriminators(real)
        self.discriminators.requires_grad_(True)
        return {
            "adversarial": weights.adversarial * adversarial_loss(theirs),
            "feature_matching": weights.feature_matching * feature_loss(originals, theirs),
        }

    def _descend(self, name: str, loss: Tensor) -> float:
        """One step of the optimizer ``name``; the norm of the gradient."""
        optimizer = self.state.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.state.modules[name].parameters(), self.config.optimizer.grad_clip))
        if not math.isfinite(norm):
            raise MelcodecError(
                f"step {self.state.progress.step}: the loss is not finite",
                f"lower the learning rate: --set optimizer.lr={self.config.optimizer.lr / 3:.0e}",
            )
        optimizer.step()
        return norm

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    @torch.no_grad()
    def _validate(self) -> None:
        """Judge by the distance of spectrograms, with and without the Griffin-Lim end; keep the best."""
        train, frontend = self.config.train, self.network.frontend
        most = int(VALID_SECONDS * frontend.sample_rate)
        count = min(train.valid_clips, len(self.valid.ids))
        errors: dict[str, list[float]] = {"stft_alone": [], "stft_refined": [], "mel_alone": []}
        for index in (i * len(self.valid.ids) // count for i in range(count)):
            wave = self.valid.wave(index)[:most]
            if len(wave) < frontend.min_samples:
                continue
            wav = torch.from_numpy(wave)[None].to(self.device)
            mel = frontend(wav)
            alone, refined = (LearnedVocoder(self.network, refine)(mel, len(wave)) for refine in (0, train.refine))
            errors["stft_alone"].append(stft_distance(alone, wav))
            errors["stft_refined"].append(stft_distance(refined, wav))
            errors["mel_alone"].append(float((frontend(alone) - mel).abs().mean()))
        self.network.requires_grad_(True)
        if not errors["stft_refined"]:
            raise MelcodecError("every validation clip is shorter than half a window")
        means = {name: sum(values) / len(values) for name, values in errors.items()}
        self._report("valid", means)
        if means["stft_refined"] < self.state.best:
            self.state.progress.best = means["stft_refined"]
            self._save_vocoder(BEST)

    def _log_training(self) -> None:
        sums, self.state.progress.sums = self.state.progress.sums, {}
        steps = sums.pop("steps")  # a term that joined among them counts as 0 before
        self.clock.steps += int(steps)
        seconds = self.clock.steps * self.config.data.batch_size * self.num_samples / self.network.frontend.sample_rate
        means = {name: value / steps for name, value in sums.items()}
        self._report("train", {**means, "audio_per_second": seconds / (time.perf_counter() - self.clock.started)})

    def _save_vocoder(self, name: str) -> None:
        provenance: dict[str, Any] = {"trained_by": "melcodec vocoder train", "steps": self.state.progress.step}
        provenance |= self.config.model_dump(mode="json", exclude={"mel", "network"})
        if self.init:
            provenance["init"] = self.init.provenance
        tensors = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        save_vocoder(self.folder / name, VocoderCheckpoint(self.config.mel, self.config.network, tensors, provenance))

    def _report(self, kind: str, values: dict[str, Any]) -> None:
        self.log.scalars(kind, self.state.progress.step, values)
        self.calls.report(kind, self.state.progress.step, values)
