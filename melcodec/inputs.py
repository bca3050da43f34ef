"""What callers of the Python interface pass in, as checked tensors; whatever cannot be meant is refused with the cure.

Arrays may come from anywhere: NumPy of any byte order, strides and float type, tensors of any device, nested lists.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melcodec.audio.io import LOUDEST, MAX_CHANNELS, MAX_RATE, MIN_RATE
from melcodec.audio.resample import resample_blocks
from melcodec.errors import MelcodecError

FULL_SCALE = {torch.int8: 1 << 7, torch.int16: 1 << 15, torch.int32: 1 << 31}  # of integer samples
FILE_CURE = "read a file with codec.encode_file(path)"
Array = Tensor | np.ndarray


def wave_batch(wav: Any) -> Tensor:
    """A wave (S,), or several of one length (B, S), -> (B, S) float32 on its own device, finite, not yet clipped.

    Raises:
        MelcodecError: no floats, another shape, channels, no samples, NaN, infinity, or values far outside [-1, 1].
    """
    tensor = _tensor(wav, "a wave", FILE_CURE)
    _check_samples(tensor, isinstance(wav, Tensor))
    shape = tuple(tensor.shape)
    channels_last = len(shape) == 2 and shape[1] <= MAX_CHANNELS and shape[0] > shape[1]
    if len(shape) not in (1, 2) or 0 in shape or channels_last:
        message = f"a wave of shape {shape}, not (S,) or (B, S) with at least one sample"
        raise MelcodecError(message, _shape_cure(shape), "too-short" if 0 in shape else "invalid")
    return _sound(tensor[None] if tensor.ndim == 1 else tensor)


def single_wave(wav: Any, may_be_empty: bool = False) -> Tensor:
    """One wave (S,), or (1, S) as torchaudio loads it, -> (S,) float32 on its own device, finite, not yet clipped.

    Raises:
        MelcodecError: as ``wave_batch``; also several rows, which may be channels.
    """
    tensor = _tensor(wav, "a wave", FILE_CURE)
    shape = tuple(tensor.shape)
    if len(shape) == 0:
        raise MelcodecError("a single number where a wave (S,) belongs", "several waves are a list; one wave is for encode")
    _check_samples(tensor, isinstance(wav, Tensor))
    if len(shape) == 2 and shape[0] == 1:
        tensor = tensor[0]
    elif len(shape) != 1:
        cure = "average the channels: wav.mean(0)" if len(shape) == 2 and shape[0] <= MAX_CHANNELS else _shape_cure(shape)
        raise MelcodecError(f"a wave of shape {shape}, not (S,)", cure or "a batch (B, S) is for encode")
    if not (may_be_empty or len(tensor)):
        raise MelcodecError("a wave without samples", code="too-short")
    return _sound(tensor)


def wave_block(wav: Any, batch: int) -> Tensor:
    """The next samples of ``batch`` streams, (B, n) or, of one stream, (n,), n >= 0, -> (B, n) float32, not yet clipped.

    Raises:
        MelcodecError: as ``wave_batch``, or another number of streams.
    """
    tensor = _tensor(wav, "a wave", FILE_CURE)
    if tensor.numel():  # an empty list has no type
        _check_samples(tensor, isinstance(wav, Tensor))
    tensor = tensor[None] if tensor.ndim == 1 and batch == 1 else tensor
    if tensor.ndim != 2 or len(tensor) != batch:
        expected = "(n,)" if batch == 1 else f"({batch}, n)"
        raise MelcodecError(f"a block of shape {tuple(tensor.shape)}, not {expected}", _shape_cure(tuple(tensor.shape)))
    return _sound(tensor)


def wave_list(wavs: Any) -> list[Tensor]:
    """Several waves (S_i,) -> each as ``single_wave`` gives it; an error says which one it is about."""
    if isinstance(wavs, (str, bytes, os.PathLike, dict)) or not isinstance(wavs, Iterable):
        raise MelcodecError(f"{type(wavs).__name__} where a list of waves belongs", FILE_CURE)
    if isinstance(wavs, (Tensor, np.ndarray)) and wavs.ndim != 2:
        raise MelcodecError(f"one array of shape {tuple(wavs.shape)} where a list of waves belongs", "one wave is for encode")
    found = []
    for index, wav in enumerate(wavs):
        try:
            found.append(single_wave(wav))
        except MelcodecError as error:
            raise error.about(f"wave {index}") from None
    return found


def wave_stream(blocks: Iterable[Any], source_rate: int | None, target_rate: int) -> Iterator[np.ndarray]:
    """Blocks (n,) of one wave, of any sizes -> float32 blocks in [-1, 1] at ``target_rate`` Hz; errors as ``single_wave``."""
    checked: Iterator[np.ndarray] = (single_wave(block, may_be_empty=True).cpu().numpy() for block in blocks)
    if source_rate is not None:
        checked = resample_blocks(checked, checked_rate(source_rate), target_rate)
    return (block.clip(-1.0, 1.0) for block in checked)


def resampled(wav: Tensor, source_rate: int | None, target_rate: int) -> Tensor:
    """Waves (..., S) at ``source_rate`` Hz -> the same at ``target_rate``, by the filter that files go through.

    None means that they are at ``target_rate`` already.

    Raises:
        MelcodecError: a rate that is no whole number in 4,000 .. 192,000 Hz, or has no simple ratio to the target.
    """
    if source_rate is None:
        return wav
    rate = checked_rate(source_rate)
    if rate == target_rate:
        return wav
    rows = wav.reshape(-1, wav.shape[-1]).cpu().numpy()
    new = [np.concatenate(list(resample_blocks([row], rate, target_rate))) for row in rows]
    return torch.from_numpy(np.stack(new)).to(wav.device).reshape(*wav.shape[:-1], -1)


def checked_rate(sample_rate: Any) -> int:
    """``sample_rate`` as an int; MelcodecError unless it is a whole number in 4,000 .. 192,000 Hz."""
    rate = whole_number(sample_rate, "sample_rate")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise MelcodecError(f"a sample rate of {rate} Hz is not between {MIN_RATE} and {MAX_RATE} Hz")
    return rate


def mel_batch(mel: Any, n_mels: int) -> Tensor:
    """A natural log-mel (M, T) or (B, M, T) -> (B, M, T) float32 on its own device, finite.

    Raises:
        MelcodecError: no floats, another shape, no frames, NaN or infinity.
    """
    tensor = _tensor(mel, "a mel", "read a mel file with numpy.load(path)")
    if not tensor.is_floating_point():
        raise MelcodecError(f"a mel of {_type(tensor)}, not of floats", "codes are for decode")
    tensor = tensor[None] if tensor.ndim == 2 else tensor
    shape = tuple(tensor.shape)
    if len(shape) != 3 or shape[1] != n_mels or 0 in shape:
        frames_first = len(shape) == 3 and shape[2] == n_mels
        cure = (
            f"bands come before frames: mel.{'mT' if isinstance(mel, Tensor) else 'swapaxes(-1, -2)'}" if frames_first else None
        )
        raise MelcodecError(f"a mel of shape {shape}, not (B, {n_mels}, T)", cure)
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise MelcodecError("the mel holds NaN or infinity", code="nan")
    return tensor


def code_batch(codes: Any, sizes: Sequence[int]) -> Tensor:
    """Codes (Q, N) or (B, Q, N) of any integer type -> (B, Q, N) int64 on their own device.

    Args:
        sizes: K of each of the Q codebooks; their codes are 0 .. K - 1.

    Raises:
        MelcodecError: no integers, another shape, no codes, or codes outside 0 .. K - 1.
    """
    tensor = _tensor(codes, "codes", "read a codes file with melcodec.store.codes.load_codes(path)")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise MelcodecError(f"codes of {_type(tensor)}, not integers", "a mel is for codec.vocoder, latents are for the model")
    tensor, given = tensor.to(torch.int64), tuple(tensor.shape)
    tensor = tensor[None] if tensor.ndim == 2 else tensor
    if tensor.ndim != 3 or tensor.shape[1] != len(sizes) or 0 in given:
        raise MelcodecError(f"codes of shape {given}, not (B, {len(sizes)}, N)", _codes_cure(given, len(sizes)))
    low, high = int(tensor.min()), tensor.amax(dim=(0, 2)).tolist()
    if low < 0 or any(most >= size for most, size in zip(high, sizes, strict=True)):
        known = ", ".join(f"0 .. {size - 1}" for size in dict.fromkeys(sizes))
        raise MelcodecError(f"codes reach from {low} to {max(high)}; this checkpoint knows {known}", code="mismatch")
    return tensor


def item_lengths(lengths: Any, batch: int, most: int) -> Tensor | None:
    """The real lengths (B,) of the items of a padded batch, int64, each in 1 .. ``most``; None stays None."""
    if lengths is None:
        return None
    tensor = _tensor(lengths, "lengths", None)
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if not whole or tensor.shape != (batch,) or int(tensor.min()) < 1 or int(tensor.max()) > most:
        raise MelcodecError(f"lengths {tensor.tolist()}: not {batch} numbers in 1 .. {most}")
    return tensor.to(torch.int64)


def whole_number(value: Any, name: str) -> int:
    """``value`` as an int, also from NumPy or a tensor with one element; MelcodecError for fractions and words."""
    try:
        return operator.index(value)
    except (TypeError, ValueError):
        raise MelcodecError(f"{name} {value!r}: not a whole number") from None


def padded(mels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mels (M, T_i) -> (B, M, T), zero-padded on the right, and their frames (B,)."""
    lengths = torch.tensor([mel.shape[-1] for mel in mels], device=mels[0].device)
    return torch.nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2), lengths


def _tensor(value: Any, noun: str, file_cure: str | None) -> Tensor:
    """``value`` as a tensor with its own numbers, in a byte order and layout that torch supports."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise MelcodecError(f"{noun} as a tensor without plain data ({value.layout}, {value.device})", "give a dense tensor")
        return value.detach()
    if isinstance(value, (str, bytes, os.PathLike)) or hasattr(value, "read"):
        raise MelcodecError(f"{noun} given as a file or its name ({type(value).__name__})", file_cure)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # lists of different lengths, tensors on a GPU inside lists
        raise MelcodecError(
            f"{noun}: a {type(value).__name__} that is no array", "waves of several lengths: encode_many"
        ) from None
    if array.dtype.kind == "f":
        dtype = np.dtype(np.float32)
    elif array.dtype.kind in "iub":
        dtype = array.dtype.newbyteorder("=")
    else:
        raise MelcodecError(f"{noun} of {array.dtype}, not numbers")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which is refused later
        return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def _check_samples(tensor: Tensor, is_torch: bool) -> None:
    if tensor.is_floating_point():
        return
    as_float = "wav.float()" if is_torch else "wav.astype(numpy.float32)"
    if tensor.dtype in FULL_SCALE:
        cure = f"floats in [-1, 1] are expected: {as_float} / {FULL_SCALE[tensor.dtype]}"
    elif tensor.dtype == torch.uint8:
        cure = f"floats in [-1, 1] are expected: {as_float} / 128 - 1"
    else:
        cure = f"floats in [-1, 1] are expected; for 16-bit samples: {as_float} / 32768"
    raise MelcodecError(f"a wave of {_type(tensor)}, not of floats", cure)


def _sound(tensor: Tensor) -> Tensor:
    tensor = tensor.float()
    if not tensor.numel():
        return tensor
    low, high = map(float, tensor.aminmax())  # NaN when there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        raise MelcodecError("the wave holds NaN or infinity", code="nan")
    if (peak := max(-low, high)) > LOUDEST:
        cure = "divide by full scale first; 16-bit samples: wav / 32768"
        raise MelcodecError(f"the wave reaches {peak:.0f}; floats in [-1, 1] are expected", cure)
    return tensor


def _shape_cure(shape: tuple[int, ...]) -> str | None:
    """What to do with sound of several channels, wherever its channels stand; None when it does not look like any."""
    few = [axis for axis in range(1, len(shape)) if 0 < shape[axis] <= MAX_CHANNELS]
    if len(shape) not in (2, 3) or not few:
        return None
    axis = few[0]
    if shape[axis] == 1:
        return f"one channel: wav{'[:, 0]' if axis == 1 else '[..., 0]'}"
    return f"{shape[axis]} channels: average them with wav.mean({axis})"


def _codes_cure(shape: tuple[int, ...], num_codebooks: int) -> str | None:
    if len(shape) == 1 and num_codebooks == 1:
        return "one utterance: codes[None]"
    if len(shape) == 2 and num_codebooks == 1:
        return "a batch (B, N): codes[:, None]"
    if len(shape) in (2, 3) and shape[-1] == num_codebooks:
        return "codebooks come before codes: swap the last two axes"
    return None


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
