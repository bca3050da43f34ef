"""An exported folder as a codec, on onnxruntime and NumPy: sound and codes without torch.

Long sound goes through the graphs in overlapping windows and gives the codes of one pass, as in ``melcodec.codec``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.audio.io import WHOLE, Source, Span, open_blocks
from melcodec.audio.resample import resample_without_torch
from melcodec.chunking import gathered, plan, windows
from melcodec.config import GriffinLimConfig, MelConfig
from melcodec.errors import MelcodecError
from melcodec.metrics.codes import bit_rate
from melcodec.onnx.folder import DECODER, ENCODER, VOCODER, read_facts
from melcodec.onnx.griffin_lim import NumpyGriffinLim
from melcodec.store.codes import Codes

CHUNK_CODES = 1024  # codes per window, 47.6 s; any number gives the same codes
CHUNK_FRAMES = 4096  # mel frames per window of a learned vocoder
PAD_SAMPLES = 1 << 20  # zeros at once behind a wave that is padded as in a batch


class OnnxCodec:
    """What ``melcodec export-onnx`` wrote, ready to be used.

    Args:
        folder: the exported folder.
        chunk_codes: codes per window.

    Raises:
        MelcodecError: no such export, a damaged one, or onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, chunk_codes: int = CHUNK_CODES) -> None:
        self.folder, self.chunk_codes = Path(folder), chunk_codes
        self.facts = read_facts(self.folder)
        self.timing = self.facts.timing
        self._ort = _onnxruntime()

    @property
    def sample_rate(self) -> int:
        """Hz, of every wave that goes in or comes out."""
        return self.facts.model.mel.sample_rate

    @property
    def mel_config(self) -> MelConfig:
        """The settings of the mel."""
        return self.facts.model.mel

    @property
    def fingerprint(self) -> str:
        """Of the code space."""
        return self.facts.fingerprint

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each of the Q codebooks."""
        return self.facts.sizes

    @property
    def bitrate(self) -> float:
        """bit/s: 215 for XTTS."""
        return bit_rate(self.sample_rate, self.timing.samples_per_code, self.sizes)

    def encode(self, wav: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Wav (B, S) float32 at ``sample_rate`` -> codes (B, Q, N) in one pass.

        Args:
            lengths: (B,) samples of each item of a right-padded batch; codes past an item's own mean nothing.
        """
        wav = np.asarray(wav, np.float32)
        if wav.ndim != 2 or 0 in wav.shape:
            raise MelcodecError(f"waves of shape {wav.shape}, not (B, S) with at least one sample")
        if not np.isfinite(wav).all():
            raise MelcodecError("a wave with NaN or infinity", code="nan")
        self.timing.check_longest(self.timing.num_frames(wav.shape[1]))
        lengths = np.full(len(wav), wav.shape[1]) if lengths is None else np.asarray(lengths)
        codes: np.ndarray = self._encoder.run(None, {"wave": wav, "lengths": lengths.astype(np.int64)})[0]
        return codes

    def encode_file(self, source: Source, pad_to: int = 0, span: Span = WHOLE, member: str = "") -> Codes:
        """Encode an audio file in bounded memory; see ``Codec.encode_file``."""
        with open_blocks(source, self.sample_rate, span, member, resample=resample_without_torch) as (info, blocks):
            codes, num_samples = self.encode_stream(blocks, pad_to)
        return Codes(codes, num_samples, info.sample_rate, self.fingerprint, self.sizes)

    def encode_stream(self, blocks: Iterable[np.ndarray], pad_to: int = 0) -> tuple[np.ndarray, int]:
        """Blocks (n,) float32 that continue each other -> codes (Q, N) int64, and S; see ``Codec.encode_stream``."""
        num_samples = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal num_samples
            for block in blocks:
                num_samples += len(block)
                yield block
            for start in range(num_samples, pad_to if num_samples else 0, PAD_SAMPLES):
                yield np.zeros(min(PAD_SAMPLES, pad_to - start), np.float32)

        codes = gathered(self._encode_windows(counted()))
        if codes is None:
            raise MelcodecError("the wave holds no samples", code="too-short")
        return codes[:, : self.timing.num_codes(num_samples)].copy(), num_samples

    def _encode_windows(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes (Q, n) of overlapping windows of a wave.

        A window reflects at its artificial edges, which changes half a spectrum's window of frames there; so the halo is
        that much wider than the encoder's.
        """
        facts, per_code = self.facts, self.timing.samples_per_code
        if facts.encoder_halo is None:
            whole = np.concatenate(list(self._within_longest(blocks)) or [np.empty(0, np.float32)])
            if len(whole):
                yield self.encode(whole[None])[0]
            return
        hop = facts.model.mel.hop_length
        halo = (facts.encoder_halo + -(-facts.model.mel.n_fft // 2 // hop)) * hop
        waiting: tuple[np.ndarray, int, int] | None = None  # codes of the last window, and which are kept unless it ends there
        for chunk, wave in windows((block for block in blocks if len(block)), self.chunk_codes, halo, per_code):
            if waiting is not None:
                yield waiting[0][:, waiting[1] : waiting[2]]
            waiting = self.encode(wave[None])[0], chunk.kept.start, chunk.kept.stop
        if waiting is not None:  # where samples end with a code, one more code begins: frames are centred
            yield waiting[0][:, waiting[1] :]

    def _within_longest(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        samples = 0
        for block in blocks:
            samples += len(block)
            self.timing.check_longest(self.timing.num_frames(samples))
            yield block

    def decode_to_mel(self, codes: np.ndarray, num_samples: int | None = None, normalized: bool = False) -> np.ndarray:
        """Codes (Q, N) -> natural log-mel (M, T), cropped to ``num_samples``; ``normalized``: in the model's domain."""
        codes = self._checked(codes)
        mel = np.concatenate(list(self._decode_windows(codes)), axis=-1)
        if num_samples is not None:
            mel = mel[:, : self.timing.num_frames(self.timing.num_samples(codes.shape[-1], num_samples))]
        return mel / np.asarray(self.facts.mel_norms, np.float32)[:, None] if normalized else mel

    def decode_stream(self, codes: np.ndarray, num_samples: int | None = None) -> Iterator[np.ndarray]:
        """Codes (Q, N) -> float32 blocks (n,) in [-1, 1], in memory that does not grow with N."""
        codes = self._checked(codes)
        num_samples = self.timing.num_samples(codes.shape[-1], num_samples)
        left = self.timing.num_frames(num_samples)

        def mels() -> Iterator[np.ndarray]:
            nonlocal left
            for window in self._decode_windows(codes):
                mel = window[:, :left]
                left -= mel.shape[1]
                if mel.shape[1]:
                    yield mel

        for block in self._sound(mels(), num_samples):
            yield np.clip(block, -1.0, 1.0)

    def decode(self, codes: np.ndarray, num_samples: int | None = None) -> np.ndarray:
        """Codes (Q, N) -> wav (S,) in [-1, 1]; without ``num_samples``, S = 1,024 N - 256."""
        return np.concatenate(list(self.decode_stream(codes, num_samples)))

    def _decode_windows(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        """Natural log-mels (M, t) of overlapping windows of codes (Q, N)."""
        facts, total = self.facts, codes.shape[-1]
        self.timing.check_longest(total * facts.stride)
        size = total if facts.decoder_halo is None else self.chunk_codes
        for chunk in plan(total, size, facts.decoder_halo or 0):
            part = codes[None, :, chunk.read_start : chunk.read_stop]
            mel = self._decoder.run(None, {"codes": part, "lengths": np.array([part.shape[-1]], np.int64)})[0][0]
            yield mel[:, chunk.kept.start * facts.stride : chunk.kept.stop * facts.stride]

    def _sound(self, mels: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
        facts, mel = self.facts, self.facts.model.mel
        if isinstance(facts.vocoder, GriffinLimConfig):
            magnitude = lambda frames: self._vocoder.run(None, {"mel": frames[None]})[0][0]  # noqa: E731
            yield from NumpyGriffinLim(facts.vocoder, mel, magnitude).stream(mels, num_samples)
            return
        num_frames = self.timing.num_frames(num_samples)
        for chunk, frames in windows(mels, CHUNK_FRAMES, facts.vocoder_reach or 0):
            end = num_samples if chunk.read_stop >= num_frames else (chunk.read_stop - 1) * mel.hop_length
            length = end - chunk.read_start * mel.hop_length
            wave = self._vocoder.run(None, {"mel": frames[None], "lengths": np.array([length], np.int64)})[0][0, :length]
            last = (chunk.keep_stop - chunk.read_start) * mel.hop_length if chunk.keep_stop < num_frames else None
            yield wave[(chunk.keep_start - chunk.read_start) * mel.hop_length : last]

    def check_fingerprint(self, codes: Codes, where: str) -> None:
        """Refuse codes that another checkpoint made; see ``Codec.check_fingerprint``."""
        codes.check_made_by(self.fingerprint, where)

    def _checked(self, codes: np.ndarray) -> np.ndarray:
        codes = np.asarray(codes)
        if codes.ndim != 2 or len(codes) != len(self.sizes) or not codes.shape[1] or codes.dtype.kind not in "ui":
            raise MelcodecError(f"codes of shape {codes.shape} and type {codes.dtype}, not integers ({len(self.sizes)}, N)")
        if (codes < 0).any() or (codes.max(axis=1) >= self.sizes).any():
            raise MelcodecError(f"codes {codes.min()} .. {codes.max()} are outside 0 .. {max(self.sizes) - 1}")
        return codes.astype(np.int64)

    @cached_property
    def _encoder(self) -> Any:
        return self._session(ENCODER)

    @cached_property
    def _decoder(self) -> Any:
        return self._session(DECODER)

    @cached_property
    def _vocoder(self) -> Any:
        return self._session(VOCODER)

    def _session(self, name: str) -> Any:
        try:
            return self._ort.InferenceSession(str(self.folder / name), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for every reason, none of them public
            raise MelcodecError(f"{self.folder / name}: damaged: onnxruntime cannot read it ({error})", code="damaged") from None


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        hint = 'pip install "melcodec[onnx]"'
        raise MelcodecError("the ONNX runtime needs the package onnxruntime", hint, "needs-package") from None
    return onnxruntime
