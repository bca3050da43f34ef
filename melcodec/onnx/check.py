"""Graphs beside torch on the same speech: equal codes, but where a tie is so near that rounding decides it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.onnx.folder import DECODER, ENCODER, VOCODER, Agreement
from melcodec.quantize.base import Quantizer
from melcodec.quantize.composite import CompositeQuantizer
from melcodec.quantize.fsq import FSQuantizer
from melcodec.quantize.gumbel import GumbelQuantizer
from melcodec.quantize.kmeans import distances
from melcodec.quantize.residual import ResidualQuantizer
from melcodec.quantize.vector import VectorQuantizer
from melcodec.vocoder.learned import LearnedVocoder

NEAR = 1e-4  # of a distance: two that differ by less are a near tie, the bound of melcodec's parity with XTTS
MEL_TOLERANCE = 1e-3  # nats of a decoded mel
SOUND_TOLERANCE = 1e-2  # mean difference beside the mean: Griffin-Lim iterations let rounding grow, as no ear can tell (-40 dB)


def compare(codec: Codec, folder: Path, waves: Sequence[Tensor]) -> Agreement:
    """Run the graphs in ``folder`` on ``waves`` (S_i,), alone and as one padded batch, and compare them with ``codec``.

    Raises:
        MelcodecError: codes differ that are no near ties, or mels or sound differ.
    """
    encoder, decoder, vocoder = (session(folder / name) for name in (ENCODER, DECODER, VOCODER))
    lengths = np.array([len(wave) for wave in waves], np.int64)
    batch = torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True).numpy()
    together, counts = encoder.run(None, {"wave": batch, "lengths": lengths})
    total = ties = 0
    worst = 0.0
    for index, wave in enumerate(waves):
        expected = codec.encode(wave)
        (alone, _) = encoder.run(None, {"wave": wave[None].numpy(), "lengths": lengths[index : index + 1]})
        margin = margins(codec.model.quantizer, latents_of(codec, wave))[0]
        for given in (alone[0], together[index][:, : counts[index]]):
            ties = max(ties, near_ties(torch.from_numpy(given), expected[0], margin))
        total += expected.numel()
        (mel,) = decoder.run(None, {"codes": expected.numpy(), "lengths": np.array([expected.shape[-1]])})
        ours = codec.decode_to_mel(expected)
        worst = float(np.max([worst, (torch.from_numpy(mel) - ours).abs().max()]))  # NaN stays NaN
        check_sound(codec, vocoder, ours)
    if not worst <= MEL_TOLERANCE:
        raise MelcodecError(f"the exported decoder's mels differ from torch's by {worst:.2g}", code="mismatch")
    seconds = float(lengths.sum() / codec.sample_rate)
    return Agreement(seconds=round(seconds, 3), codes=total, near_ties=ties, mel_error=worst)


def session(path: Path) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@torch.no_grad()
def latents_of(codec: Codec, wave: Tensor) -> Tensor:
    """wave (S,) -> latents (1, D, N) before quantisation."""
    return codec.model.encode_latents(codec.frontend.normalize(codec.mel(wave)))


def near_ties(given: Tensor, expected: Tensor, margin: Tensor) -> int:
    """How many codes (Q, N) differ, all of them where the relative margin (Q, N) is below ``NEAR``.

    After a stage of a residual quantizer that differs, later ones quantize something else; they are not judged.

    Raises:
        MelcodecError: codes differ that are no near ties.
    """
    if given.shape != expected.shape:
        raise MelcodecError(f"the exported encoder gives codes of shape {tuple(given.shape)}, not {tuple(expected.shape)}")
    differ = given != expected
    judged = differ & (differ.cumsum(0) == 1)
    if wrong := int((judged & ~(margin < NEAR)).sum()):
        raise MelcodecError(
            f"{wrong} of {expected.numel()} codes of the exported encoder differ from torch's, and are no near ties",
            "the export was not written",
            "mismatch",
        )
    return int(differ.sum())


@torch.no_grad()
def margins(quantizer: Quantizer, latents: Tensor) -> Tensor:
    """latents (B, D, N) -> (B, Q, N): by how much of itself the best choice of a code is better than the second best."""
    match quantizer:
        case VectorQuantizer():
            rows = quantizer._project(latents).transpose(1, 2)
            best = distances(rows.flatten(0, 1), quantizer.codewords()).topk(min(2, quantizer.sizes[0]), largest=False).values
            return _relative(best).view(len(latents), 1, -1)
        case GumbelQuantizer():
            return _relative(quantizer._scores(latents).topk(min(2, quantizer.sizes[0]), dim=1).values.movedim(1, -1))[:, None]
        case FSQuantizer():
            bounded = quantizer._project(latents)
            border = 0.5 - (bounded - bounded.round()).abs()  # how far each channel is from the next level
            return torch.stack([book.amin(1) for book in torch.split(border, quantizer.widths, dim=1)], dim=1)
        case ResidualQuantizer():
            residual, found = latents, []
            for index in range(quantizer.count):
                stage = quantizer.part(index)
                found.append(margins(stage, residual))
                residual = residual - stage.decode(stage.encode(residual))
            return torch.cat(found, dim=1)
        case CompositeQuantizer():
            parts = latents.chunk(quantizer.count, dim=1)
            return torch.cat([margins(quantizer.part(index), part) for index, part in enumerate(parts)], dim=1)
    return latents.new_full((len(latents), len(quantizer.sizes), latents.shape[-1]), torch.inf)


def _relative(best: Tensor) -> Tensor:
    """(..., 2) the best and the second best -> their difference beside the best."""
    if best.shape[-1] < 2:  # a codebook of one
        return torch.full_like(best[..., 0], torch.inf)
    return (best[..., 1] - best[..., 0]).abs() / best[..., 0].abs().clamp(min=1e-12)


def check_sound(codec: Codec, vocoder: Any, mel: Tensor) -> None:
    """Raise MelcodecError where the graph makes other sound, or other magnitudes, of mel (1, M, T) than the vocoder."""
    if isinstance(codec.vocoder, LearnedVocoder):
        num_samples = mel.shape[-1] * codec.frontend.hop_length - 1
        (wave,) = vocoder.run(None, {"mel": mel.numpy(), "lengths": np.array([num_samples])})
        with torch.no_grad():
            ours = codec.vocoder(torch.minimum(mel, codec.frontend.loudest[:, None]), num_samples)
        given = torch.from_numpy(wave)
    else:
        (magnitude,) = vocoder.run(None, {"mel": mel.numpy()})
        ours = codec.vocoder.magnitude(torch.minimum(mel, codec.frontend.loudest[:, None]))  # type: ignore[attr-defined]
        given = torch.from_numpy(magnitude)
    error = float(F.l1_loss(given, ours) / ours.abs().mean().clamp(min=1e-12))
    if not error <= SOUND_TOLERANCE:
        raise MelcodecError(f"the exported vocoder's output differs from torch's by {error:.2g}", code="mismatch")
