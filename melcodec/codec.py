"""The codec: wav <-> codes <-> mel, for one utterance or many, of any length, always with the same codes.

Long audio is processed in overlapping windows (``chunking``), several utterances in zero-padded, masked batches
(``nn.conv``). Neither changes what a single pass over a single utterance gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from melcodec import inputs
from melcodec.audio.io import WHOLE, Source, Span, open_blocks
from melcodec.audio.mel import MelFrontend, build_frontend
from melcodec.chunking import gathered, group_by_length, plan, windows
from melcodec.config import MelConfig, VocoderConfig
from melcodec.devices import exact_float32, find_device
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import Checkpoint, load_checkpoint
from melcodec.formats.shipped import DEFAULT_CHECKPOINT, find_checkpoint
from melcodec.inputs import Array, padded
from melcodec.metrics.codes import bit_rate
from melcodec.store.codes import Codes
from melcodec.timing import Timing
from melcodec.vocoder.base import Vocoder, check_mel
from melcodec.vocoder.build import build_vocoder
from melcodec.vocoder.choice import DEFAULT_VOCODER, choose_vocoder
from melcodec.vqvae import VQVAE

CHUNK_CODES = 1024  # codes per window: 47.6 s; the halo then costs under 2 %
BATCH_FRAMES = 16_384  # mel frames per padded batch, which bounds memory
PAD_SAMPLES = 1 << 20  # zeros at once behind a wave that is padded as in a batch


class Codec:
    """Mel front end, VQ-VAE and vocoder, composed.

    Args:
        frontend: wav -> natural log-mel, and the norms.
        model: normalised mel -> codes -> normalised mel.
        vocoder: natural log-mel -> wav, made for the mel of ``frontend``.
        fingerprint: of the code space; see ``formats.checkpoint``.
        device: where the model runs.
        chunk_codes: codes per window. Any value gives the same codes; larger ones take more memory.
    """

    def __init__(
        self,
        frontend: MelFrontend,
        model: VQVAE,
        vocoder: Vocoder,
        fingerprint: str,
        device: torch.device,
        chunk_codes: int = CHUNK_CODES,
    ) -> None:
        check_mel(vocoder.mel, frontend.config, "the vocoder")
        self.frontend = frontend.to(device).eval()
        self.model = model.to(device).eval()
        self.vocoder = vocoder
        self.fingerprint = fingerprint
        self.device = device
        reach = model.reach
        self.timing = Timing(frontend.sample_rate, frontend.hop_length, reach.stride, reach.longest)
        self.chunk_codes = chunk_codes

    @classmethod
    def from_pretrained(
        cls, name: str | Path = DEFAULT_CHECKPOINT, device: str = "auto", vocoder: str | Path | VocoderConfig = DEFAULT_VOCODER
    ) -> Codec:
        """Load a checkpoint by path or shipped name.

        Args:
            device: auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:1, mps.
            vocoder: what makes sound: settings, or what ``vocoder.choice.choose_vocoder`` takes.

        Raises:
            MelcodecError: no such checkpoint, damaged, too new, no such device, no such vocoder, or one for another mel.
        """
        return cls.from_checkpoint(load_checkpoint(find_checkpoint(name)), device, vocoder)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, device: str = "auto", vocoder: str | Path | VocoderConfig = DEFAULT_VOCODER
    ) -> Codec:
        """Build from a checkpoint in memory; see ``from_pretrained``."""
        target = find_device(device)  # before the model is built, which takes longer
        frontend = build_frontend(checkpoint.config.mel, checkpoint.mel_norms)
        chosen = choose_vocoder(vocoder) if isinstance(vocoder, str | Path) else vocoder
        maker = build_vocoder(chosen, frontend.to(target))
        return cls(frontend, checkpoint.build(), maker, checkpoint.fingerprint, target)

    @property
    def sample_rate(self) -> int:
        """Hz, of every wave that goes in or comes out."""
        return self.frontend.sample_rate

    @property
    def mel_config(self) -> MelConfig:
        """The settings of the mel."""
        return self.frontend.config

    @property
    def samples_per_code(self) -> int:
        """1,024 for XTTS."""
        return self.timing.samples_per_code

    @property
    def code_rate(self) -> float:
        """Codes per second and codebook: 21.53 for XTTS."""
        return self.timing.code_rate

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return len(self.model.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each of the Q codebooks."""
        return self.model.sizes

    @property
    def codebook_size(self) -> int:
        """The largest K of all codebooks: codes are below it."""
        return max(self.model.sizes)

    @property
    def bitrate(self) -> float:
        """bit/s: 215 for XTTS."""
        return bit_rate(self.sample_rate, self.samples_per_code, self.sizes)

    def num_codes(self, num_samples: int) -> int:
        """N for S samples: ceil((S // 256 + 1) / 4) = S // 1024 + 1 for XTTS."""
        return self.timing.num_codes(num_samples)

    def encode(self, wav: Array, sample_rate: int | None = None) -> Tensor:
        """Wav (S,) or (B, S) of floats in [-1, 1] -> codes (B, Q, N) int64.

        All S samples of every item count; for items of different lengths use ``encode_many``. The codes are plain tensors
        on ``device``, usable in a training graph.

        Args:
            sample_rate: Hz of ``wav``, which is resampled as a file would be; None: it is at the codec's ``sample_rate``.

        Raises:
            MelcodecError: no samples, integers, channels, NaN or infinity, or a rate that cannot be resampled.
        """
        return self._encode(self.mel(wav, sample_rate))

    def mel(self, wav: Array, sample_rate: int | None = None) -> Tensor:
        """Wav (S,) or (B, S), clipped to [-1, 1] -> natural log-mel (B, M, S // 256 + 1).

        Fewer than 513 samples are padded with zeros. Arguments and errors as in ``encode``.
        """
        return self._mel(inputs.resampled(inputs.wave_batch(wav), sample_rate, self.sample_rate))

    def mel_many(self, wavs: Iterable[Array], sample_rate: int | None = None) -> tuple[Tensor, Tensor]:
        """Waves (S_i,) -> natural log-mels (B, M, T), zero-padded, and the frames of each (B,), for ``encode_mel``.

        Raises:
            MelcodecError: no waves at all, or as ``encode`` does, saying of which wave.
        """
        mels = self._mels(wavs, sample_rate)
        if not mels:
            raise MelcodecError("the list of waves is empty")
        return padded(mels)

    def encode_mel(self, mel: Array, lengths: Array | None = None) -> Tensor:
        """Natural log-mel (M, T) or (B, M, T) -> codes (B, Q, ceil(T / 4)).

        Args:
            lengths: (B,) frames of each item of a right-padded batch; codes past an item's own mean nothing.

        Raises:
            MelcodecError: another shape, no floats, NaN or infinity, or lengths that do not fit.
        """
        mel = inputs.mel_batch(mel, self.frontend.n_mels).to(self.device)
        return self._encode(mel, inputs.item_lengths(lengths, len(mel), mel.shape[-1]))

    def encode_many(self, wavs: Iterable[Array], sample_rate: int | None = None) -> list[Tensor]:
        """Waves (S_i,) -> codes (Q, N_i) each, in order, on the CPU; like lengths share a padded, masked batch.

        Arguments and errors as in ``encode``; an error says which wave it is about.
        """
        mels = self._mels(wavs, sample_rate)
        codes: list[Tensor | None] = [None] * len(mels)
        for group in group_by_length([mel.shape[-1] for mel in mels], BATCH_FRAMES):
            batch, lengths = padded([mels[i] for i in group])
            whole = bool((lengths == lengths[0]).all())
            encoded = self._encode(batch, None if whole else lengths).cpu()
            for row, i in enumerate(group):
                codes[i] = encoded[row, :, : self.model.num_codes(mels[i].shape[-1])].clone()
        return [item for item in codes if item is not None]

    def encode_file(self, source: Source, pad_to: int = 0, span: Span = WHOLE, member: str = "") -> Codes:
        """Encode an audio file by path, URL or open binary file, or standard input for ``-``, in bounded memory.

        Args:
            pad_to: encode as XTTS does inside a batch whose longest item has this many samples at ``sample_rate``:
                zeros follow the sound, and the last codes differ a little. 0: alone, which is exact.
            span: the stretch to encode.
            member: name of a file inside the tar archive ``source``.

        Raises:
            MelcodecError: see ``audio.io.read_blocks``.
        """
        with open_blocks(source, self.sample_rate, span, member) as (info, blocks):
            codes, num_samples = self.encode_stream(blocks, pad_to)
        return Codes(codes, num_samples, info.sample_rate, self.fingerprint, self.sizes)

    def encode_stream(self, blocks: Iterable[Array], pad_to: int = 0, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
        """Blocks (n,) of floats in [-1, 1] that continue each other -> codes (Q, N) int64, and S at the codec's rate.

        Args:
            pad_to: see ``encode_file``.
            sample_rate: Hz of the blocks; None: the codec's.

        Raises:
            MelcodecError: no samples, or blocks that ``encode`` would refuse.
        """
        num_samples = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal num_samples
            for block in inputs.wave_stream(blocks, sample_rate, self.sample_rate):
                num_samples += len(block)
                yield block
            if num_samples:
                for start in range(num_samples, pad_to, PAD_SAMPLES):
                    yield np.zeros(min(PAD_SAMPLES, pad_to - start), np.float32)

        codes = gathered(self._encode_mel_stream(self.frontend.stream(counted())))
        if codes is None:
            raise MelcodecError("the wave holds no samples", code="too-short")
        return codes[:, : self.num_codes(num_samples)].copy(), num_samples

    def decode_to_mel(
        self,
        codes: Array,
        num_samples: int | None = None,
        normalized: bool = False,
        lengths: Array | None = None,
        codebooks: int | None = None,
    ) -> Tensor:
        """Codes (Q, N) or (B, Q, N) -> natural log-mel (B, M, T).

        Args:
            num_samples: S of the original, the longest one in a padded batch; T is then S // 256 + 1, else 4 N.
            normalized: give the model's domain instead.
            lengths: (B,) codes of each item of a batch that is right-padded with any code; the mel is zero past them.
            codebooks: decode only the first so many of the Q codebooks, coarser; residual quantizers allow it.

        Raises:
            MelcodecError: wrong shape, codes outside 0 .. K - 1, a length that they cannot have, or fewer codebooks than
                the quantizer can decode.
        """
        codes = self._checked(codes, codebooks)
        inside = inputs.item_lengths(lengths, len(codes), codes.shape[-1])
        mel = torch.cat(list(self._decode_chunks(codes, inside)), dim=-1)
        if num_samples is not None:
            mel = mel[..., : self.frontend.num_frames(self._length(codes, num_samples))]
        return mel if normalized else self.frontend.denormalize(mel)

    @torch.no_grad()
    def decode(self, codes: Array, num_samples: int | None = None, codebooks: int | None = None) -> Tensor:
        """Codes (Q, N) or (B, Q, N) -> wav (B, S) in [-1, 1]; without ``num_samples``, S = 1,024 N - 256.

        Arguments and errors as in ``decode_to_mel``.
        """
        codes = self._checked(codes)
        num_samples = self._length(codes, num_samples)
        mel = self._audible(self.decode_to_mel(codes, num_samples, codebooks=codebooks))
        return self.vocoder(mel, num_samples).clamp(-1, 1)

    def decode_stream(self, codes: Array, num_samples: int | None = None, codebooks: int | None = None) -> Iterator[np.ndarray]:
        """Codes (Q, N) of one utterance -> float32 blocks (n,) in [-1, 1], in memory that does not grow with N.

        Sounds longer than the vocoder's own chunks differ a little from ``decode``; see ``vocoder.griffin_lim``.
        """
        codes = self._checked(codes, codebooks)
        num_samples = self._length(codes, num_samples)
        left = self.frontend.num_frames(num_samples)

        def mels() -> Iterator[np.ndarray]:
            nonlocal left
            for mel in self._decode_chunks(codes):
                block = self._audible(self.frontend.denormalize(mel[0, :, :left]))
                left -= block.shape[-1]
                if block.shape[-1]:
                    yield block.cpu().numpy()

        for block in self.vocoder.stream(mels(), num_samples):
            yield np.clip(block, -1.0, 1.0)

    def check_fingerprint(self, codes: Codes, where: str) -> None:
        """Refuse codes that another checkpoint made.

        Raises:
            MelcodecError: the fingerprints are both known and differ.
        """
        codes.check_made_by(self.fingerprint, where)

    @torch.no_grad()
    def _mel(self, wav: Tensor) -> Tensor:
        """Checked waves (B, S) at the codec's rate, on any device -> natural log-mel (B, M, T)."""
        num_samples = wav.shape[-1]
        wav = wav.to(self.device).clamp(-1, 1)
        wav = torch.nn.functional.pad(wav, (0, max(0, self.frontend.min_samples - num_samples)))
        return self.frontend(wav)[..., : self.frontend.num_frames(num_samples)]

    def _mels(self, wavs: Iterable[Array], sample_rate: int | None) -> list[Tensor]:
        return [self._mel(inputs.resampled(wav[None], sample_rate, self.sample_rate))[0] for wav in inputs.wave_list(wavs)]

    def _encode(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        return torch.cat(list(self._encode_chunks(mel, lengths)), dim=-1)

    @torch.no_grad()
    def _encode_chunks(self, mel: Tensor, lengths: Tensor | None) -> Iterator[Tensor]:
        """Codes of the windows over mel (B, M, T), natural."""
        reach, total = self.model.reach, mel.shape[-1]
        self.timing.check_longest(total)
        for chunk in plan(total, self._chunk(reach.encoder_halo, total), reach.encoder_halo or 0, reach.stride):
            window = self.frontend.normalize(mel[..., chunk.read_start : chunk.read_stop])
            inside = None if lengths is None else (lengths.to(self.device) - chunk.read_start).clamp(0, window.shape[-1])
            with exact_float32(self.device):
                codes = self.model.encode(window, inside)
            yield codes[..., chunk.kept]

    @torch.no_grad()
    def _encode_mel_stream(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes (Q, n) of the windows over a stream of natural mel blocks (M, t)."""
        reach = self.model.reach
        if reach.encoder_halo is None:  # a model of unbounded reach is run on the whole input, never approximated
            blocks = [np.concatenate(list(self._within_longest(blocks)), axis=-1)]
        halo, length = reach.encoder_halo or 0, 1 << 62
        for chunk, mel in windows(blocks, self._chunk(reach.encoder_halo, length), halo, reach.stride):
            window = self.frontend.normalize(torch.from_numpy(mel)[None].to(self.device))
            with exact_float32(self.device):
                codes = self.model.encode(window)
            yield codes[0, :, chunk.kept].cpu().numpy()

    def _within_longest(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """``blocks`` (M, t), refused as soon as they are more than a model of unbounded reach accepts."""
        frames = 0
        for block in blocks:
            frames += block.shape[-1]
            self.timing.check_longest(frames)
            yield block

    @torch.no_grad()
    def _decode_chunks(self, codes: Tensor, lengths: Tensor | None = None) -> Iterator[Tensor]:
        """Normalised mels of the windows over codes (B, Q, N)."""
        reach, total = self.model.reach, codes.shape[-1]
        self.timing.check_longest(total * reach.stride)
        for chunk in plan(total, self._chunk(reach.decoder_halo, total), reach.decoder_halo or 0):
            window = codes[..., chunk.read_start : chunk.read_stop]
            inside = None if lengths is None else (lengths.to(self.device) - chunk.read_start).clamp(0, window.shape[-1])
            with exact_float32(self.device):
                mel = self.model.decode(window, inside)
            yield mel[..., chunk.kept.start * reach.stride : chunk.kept.stop * reach.stride]

    def _length(self, codes: Tensor, num_samples: int | None) -> int:
        """S: as given, else the most that reflects nothing: (4 N - 1) * 256."""
        given = None if num_samples is None else inputs.whole_number(num_samples, "num_samples")
        return self.timing.num_samples(codes.shape[-1], given)

    def _audible(self, mel: Tensor) -> Tensor:
        """Natural mel (..., M, T), no louder than sound can be: an untrained decoder's exp() may be infinite."""
        return torch.minimum(mel, self.frontend.loudest[:, None])

    def _chunk(self, halo: int | None, length: int) -> int:
        return self.chunk_codes if halo is not None else max(1, length)

    def _checked(self, codes: Array, codebooks: int | None = None) -> Tensor:
        """Codes (B, Q, N) on the device, or of the first so many ``codebooks``."""
        allowed = self.model.quantizer.decodable
        if codebooks is not None and codebooks not in allowed:
            raise MelcodecError(
                f"{codebooks} of the checkpoint's {self.num_codebooks} codebooks cannot be decoded alone",
                f"its quantizer decodes {' or '.join(map(str, allowed))}; a residual one can leave out its last stages",
            )
        return inputs.code_batch(codes, self.sizes).to(self.device)[:, :codebooks]
