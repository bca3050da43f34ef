"""``--runtime``: what computes, and the codec that it gives. With onnx, torch is never imported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from melcodec.cli._console import say
from melcodec.errors import MelcodecError, from_os
from melcodec.vocoder.choice import DEFAULT_VOCODER

if TYPE_CHECKING:
    import numpy as np

    from melcodec.cli._options import Job
    from melcodec.codec import Codec
    from melcodec.onnx.runtime import OnnxCodec
    from melcodec.store.codes import Codes

    AnyCodec: TypeAlias = Codec | OnnxCodec

TORCH, ONNX = "torch", "onnx"
Runtime = Annotated[
    str,
    typer.Option(
        help="Library that computes: torch, or onnx, which starts faster and takes a folder of melcodec export-onnx, or another "
        "checkpoint, which is then exported once."
    ),
]


def check_runtime(runtime: str, device: str, **only_torch: bool) -> None:
    """Refuse an unknown runtime, and what onnx does not do: another device than the CPU, and options that are true."""
    if runtime not in (TORCH, ONNX):
        raise MelcodecError(f"--runtime {runtime}: no such runtime", f"use {TORCH} or {ONNX}")
    if runtime == TORCH:
        return
    if device not in ("auto", "cpu"):
        raise MelcodecError(f"--runtime onnx computes on the CPU, not on --device {device}", "leave out --device or --runtime")
    for option, given in only_torch.items():
        if given:
            name = f"--{option.replace('_', '-')}" if option != "stream" else "a stream on standard output"
            raise MelcodecError(f"--runtime onnx does not do this: {name}", "leave it out, or compute with --runtime torch")


def load_codec(checkpoint: str, device: str, vocoder: str = DEFAULT_VOCODER, runtime: str = TORCH) -> AnyCodec:
    """The codec of a checkpoint for a runtime that was checked."""
    if runtime == ONNX:
        from melcodec.onnx.cached import find_export
        from melcodec.onnx.runtime import OnnxCodec

        return OnnxCodec(find_export(checkpoint, vocoder, say))
    from melcodec.codec import Codec

    return Codec.from_pretrained(checkpoint, device, vocoder)


def encoded_jobs(
    codec: AnyCodec, runtime: str, jobs: list[Job], batch_size: int, num_workers: int
) -> Iterator[Codes | MelcodecError]:
    """The codes of every job, in order, or why there are none; torch in batches, onnx one by one."""
    if runtime == TORCH:
        from melcodec.corpus.files import encode_files

        for encoded in encode_files(codec, [job.whole for job in jobs], batch_size, num_workers):  # type: ignore[arg-type]
            yield encoded.result
        return
    from melcodec.audio.io import Span

    for item in (job.whole for job in jobs):
        try:
            yield codec.encode_file(item.path, 0, Span(item.start, item.duration), item.member)
        except MelcodecError as error:
            yield error
        except OSError as error:
            yield from_os(error)


def decoded_mel(
    codec: AnyCodec, codes: np.ndarray, num_samples: int | None, normalized: bool = False, codebooks: int | None = None
) -> np.ndarray:
    """Codes (Q, N) -> mel (M, T), natural or ``normalized``."""
    from melcodec.onnx.runtime import OnnxCodec

    if isinstance(codec, OnnxCodec):
        return codec.decode_to_mel(codes, num_samples, normalized)
    mel: np.ndarray = codec.decode_to_mel(codes, num_samples, normalized, codebooks=codebooks)[0].cpu().numpy()
    return mel


def decoded_blocks(codec: AnyCodec, codes: np.ndarray, num_samples: int | None, codebooks: int | None) -> Iterator[np.ndarray]:
    """Codes (Q, N) -> blocks (n,) of sound."""
    from melcodec.onnx.runtime import OnnxCodec

    if isinstance(codec, OnnxCodec):
        return codec.decode_stream(codes, num_samples)
    return codec.decode_stream(codes, num_samples, codebooks)
