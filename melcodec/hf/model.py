"""``MelcodecModel``: waves -> codes -> waves in the way of transformers, with the codes of ``melcodec.Codec``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from melcodec.audio.mel import MelFrontend, build_frontend
from melcodec.config import GriffinLimConfig, MelConfig
from melcodec.devices import exact_float32
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from melcodec.formats.shipped import DEFAULT_CHECKPOINT, HUB_WEIGHTS, find_checkpoint
from melcodec.hf.config import MelcodecConfig
from melcodec.timing import Timing
from melcodec.vocoder.griffin_lim import GriffinLim
from melcodec.vqvae import build_vqvae


@dataclass
class MelcodecEncoderOutput(ModelOutput):
    """audio_codes (B, Q, N) int64; audio_codes_mask (B, N), 1 where a code is an item's own."""

    audio_codes: Tensor | None = None
    audio_codes_mask: Tensor | None = None


@dataclass
class MelcodecDecoderOutput(ModelOutput):
    """audio_values (B, 1, S) in [-1, 1]; mel (B, M, T), natural log-mel power."""

    audio_values: Tensor | None = None
    mel: Tensor | None = None


@dataclass
class MelcodecOutput(ModelOutput):
    """Both."""

    audio_codes: Tensor | None = None
    audio_values: Tensor | None = None


class MelcodecModel(PreTrainedModel):
    """Encoder, quantizer and decoder, whose tensors have the names that they have in a melcodec checkpoint.

    ``torch.compile(model.encode, fullgraph=True)`` and ``decode`` work and give the same codes. Griffin-Lim is one operator in
    the graph, which the compiler leaves as it is. On a GPU, TF32 must be off: a compiled graph cannot switch it off.
    """

    config_class = MelcodecConfig
    base_model_prefix = "melcodec"
    main_input_name = "input_values"
    input_modalities = "audio"

    def __init__(self, config: MelcodecConfig) -> None:
        super().__init__(config)
        self.settings = config.model_settings
        whole = build_vqvae(self.settings)
        self.encoder, self.decoder, self.codebook, self.reach = whole.encoder, whole.decoder, whole.codebook, whole.reach
        with torch.device("cpu"):  # from_pretrained builds models without memory, and no file holds these tensors
            self.frontend = build_frontend(self.settings.mel, config.mel_norms)
        self.sound = json.dumps({"mel": self.settings.mel.model_dump(), "vocoder": config.vocoder})
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Fill what no file holds: the mel's window, filters and norms. Weights keep the values that melcodec gives them."""
        if isinstance(module, MelFrontend):
            with torch.device("cpu"):
                fresh = build_frontend(self.settings.mel, self.config.mel_norms)
            for name, value in fresh.named_buffers():
                getattr(module, name).data.copy_(value)

    @classmethod
    def from_checkpoint(cls, name: str | Path = DEFAULT_CHECKPOINT) -> MelcodecModel:
        """The model of a melcodec checkpoint: a file, a run folder, a shipped name or a repository of the hub."""
        checkpoint = load_checkpoint(find_checkpoint(name))
        config = MelcodecConfig(checkpoint.config.model_dump(mode="json"), checkpoint.mel_norms)
        model = cls(config)
        model.load_state_dict(checkpoint.build().state_dict(), strict=True)
        model.eval()
        return model

    @property
    def checkpoint(self) -> Checkpoint:
        """The model as a melcodec checkpoint."""
        tensors = {key: value.detach().cpu().float().clone() for key, value in self.state_dict().items()}
        return Checkpoint(self.settings, tuple(self.config.mel_norms), tensors, {"source": "melcodec.hf"})

    @property
    def fingerprint(self) -> str:
        """Of the code space, as in every file of codes."""
        return self.checkpoint.fingerprint

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:  # type: ignore[override]
        """Write config.json and model.safetensors, which is a melcodec checkpoint, too.

        Args:
            push_to_hub: upload them as well; ``kwargs`` go to the method ``push_to_hub``.
        """
        folder = Path(save_directory)
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(folder)
        save_checkpoint(folder / HUB_WEIGHTS, self.checkpoint)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)

    @torch.no_grad()
    def encode(self, input_values: Tensor, padding_mask: Tensor | None = None) -> MelcodecEncoderOutput:
        """input_values (B, 1, S) or (B, S) at ``config.sampling_rate``, clipped to [-1, 1] -> codes.

        Args:
            padding_mask: (B, S), 1 where a sample is real, 0 behind an item's end; None: all are.

        Raises:
            MelcodecError: several channels, NaN, padding that is not on the right, or a model that is not float32.
        """
        if not torch.compiler.is_compiling():
            self._check(input_values, padding_mask)
        wave = input_values[:, 0] if input_values.ndim == 3 else input_values
        padding_mask = torch.ones_like(wave, dtype=torch.long) if padding_mask is None else padding_mask
        samples = padding_mask.long().sum(-1)
        frames, stride = samples // self.frontend.hop_length + 1, self.reach.stride
        mel = self.frontend.normalize(self.frontend.from_padded(self.frontend.reflected(wave.clamp(-1, 1), samples)))
        with exact_float32(mel.device):
            codes = self.codebook.encode(self.encoder(mel, frames))
        real = torch.arange(codes.shape[-1], device=codes.device) < ((frames + stride - 1) // stride)[:, None]
        return MelcodecEncoderOutput(codes, real.long())

    @torch.no_grad()
    def decode(self, audio_codes: Tensor, padding_mask: Tensor | None = None) -> MelcodecDecoderOutput:
        """audio_codes (B, Q, N) -> sound and its mel.

        Args:
            padding_mask: (B, S) as ``encode`` took it: sound ends where the original did; None: (4 N - 1) * 256 samples.
        """
        stride, hop = self.reach.stride, self.frontend.hop_length
        total = (audio_codes.shape[-1] * stride - 1) * hop if padding_mask is None else padding_mask.shape[-1]
        samples = torch.full_like(audio_codes[:, 0, 0], total) if padding_mask is None else padding_mask.long().sum(-1)
        frames = samples // hop + 1
        with exact_float32(audio_codes.device):
            mel = self.decoder(self.codebook.decode(audio_codes), (frames + stride - 1) // stride)
        mel = self.frontend.denormalize(mel)[..., : total // hop + 1]
        wave = torch.ops.melcodec.griffin_lim(mel, samples, self.sound, total)
        return MelcodecDecoderOutput(wave[:, None], mel)

    def forward(self, input_values: Tensor, padding_mask: Tensor | None = None) -> MelcodecOutput:
        """Codes and what they sound like."""
        codes = self.encode(input_values, padding_mask).audio_codes
        assert codes is not None
        mask = torch.ones_like(input_values.flatten(1), dtype=torch.long) if padding_mask is None else padding_mask
        return MelcodecOutput(codes, self.decode(codes, mask).audio_values)

    def _check(self, values: Tensor, mask: Tensor | None) -> None:
        if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[1] != 1) or 0 in values.shape:
            raise MelcodecError(f"input_values of shape {tuple(values.shape)}, not (B, 1, S)", "average channels before")
        if self.dtype != torch.float32 or values.dtype != torch.float32:
            raise MelcodecError(f"codes are computed in float32; the model is {self.dtype}, input_values {values.dtype}")
        if not bool(values.isfinite().all()):
            raise MelcodecError("input_values with NaN or infinity", code="nan")
        if mask is not None and (bool((mask[:, 1:] > mask[:, :-1]).any()) or not bool(mask[:, 0].all())):
            raise MelcodecError("padding_mask: padding must be on the right, and every item must have a sample")
        timing = Timing(self.frontend.sample_rate, self.frontend.hop_length, self.reach.stride, self.reach.longest)
        timing.check_longest(timing.num_frames(values.shape[-1]))


@torch.library.custom_op("melcodec::griffin_lim", mutates_args=())
def griffin_lim(mel: Tensor, samples: Tensor, settings: str, total: int) -> Tensor:
    """Natural log-mel (B, M, T), samples (B,) of each item -> wave (B, total), zero behind an item's end.

    Args:
        settings: of mel and vocoder, as JSON.
        total: the most samples.
    """
    vocoder = _vocoder(settings, str(mel.device))
    frontend = vocoder.frontend
    mel = torch.minimum(mel, frontend.loudest[:, None])
    wave = mel.new_zeros(len(mel), total)
    for index, length in enumerate(samples.tolist()):
        part = mel[index : index + 1, :, : frontend.num_frames(length)]
        wave[index, :length] = vocoder(part, length)[0].clamp(-1, 1)
    return wave


@griffin_lim.register_fake
def _shape(mel: Tensor, samples: Tensor, settings: str, total: int) -> Tensor:
    return mel.new_empty(mel.shape[0], total)


@lru_cache(maxsize=4)
def _vocoder(settings: str, device: str) -> GriffinLim:
    both = json.loads(settings)
    config, mel = GriffinLimConfig(**both["vocoder"]), MelConfig(**both["mel"])
    frontend = build_frontend(mel, [1.0] * mel.n_mels).to(device)
    return GriffinLim(frontend, config.iterations, config.momentum, config.nmf_iterations, config.seed)
