"""Codes to a mel and to sound, while they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melcodec import inputs
from melcodec.codec import Codec
from melcodec.devices import exact_float32
from melcodec.errors import MelcodecError
from melcodec.streaming.overlap import Overlap, State, checked_state
from melcodec.streaming.sound import stream_vocoder

if TYPE_CHECKING:
    from melcodec.inputs import Array


class StreamingDecoder:
    """Gives the mel of ``codec.decode_to_mel``, and its sound, as codes come.

    A frame of XTTS depends on 7 codes after its own (325 ms), and a sample on what the vocoder sees beyond that: a learned
    one states its ``halo``; Griffin-Lim, whose reach is larger, works in chunks of 372 ms that overlap.

        decoder = StreamingDecoder(codec)
        for codes in received:               # (Q, n) or (B, Q, n), any n
            play(decoder.push(codes))        # (1, m), m >= 0
        play(decoder.finish(num_samples))

    Args:
        codec: its model must be of bounded reach.
        batch: B, streams that advance together.

    Raises:
        MelcodecError: the model sees whole utterances.
    """

    def __init__(self, codec: Codec, batch: int = 1) -> None:
        if codec.model.reach.decoder_halo is None:
            raise MelcodecError("this model needs whole utterances, so it cannot decode a stream", code="mismatch")
        self.codec, self.batch = codec, batch
        self.reset()

    def reset(self) -> None:
        """Forget the stream; the next push begins another one."""
        codec, halo = self.codec, self.codec.model.reach.decoder_halo or 0
        empty = torch.zeros(self.batch, codec.num_codebooks, 0, dtype=torch.int64, device=codec.device)
        self._codes = Overlap(halo, halo, 1, empty)
        self._sound = stream_vocoder(codec.vocoder, codec.frontend.norms.new_zeros(self.batch, codec.frontend.n_mels, 0))

    @property
    def lookahead(self) -> int:
        """Samples that a sample waits for, at most, after its own place in the stream."""
        frames = (self.codec.model.reach.decoder_halo or 0) * self.codec.model.reach.stride + self._sound.lookahead
        return frames * self.codec.frontend.hop_length

    def push(self, codes: Array) -> Tensor:
        """The next codes (Q, n) or (B, Q, n), n >= 0 -> sound (B, m) in [-1, 1], all that is finished by now.

        Raises:
            MelcodecError: as ``Codec.decode``; another number of streams.
        """
        return self._sounded(self._mel(self._checked(codes), final=False))

    @property
    def num_codes(self) -> int:
        """N, codes of each codebook that were pushed."""
        return self._codes.length

    @torch.no_grad()
    def finish(self, num_samples: int | None = None) -> Tensor:
        """The end of the streams -> the last samples (B, m). The next push begins another stream.

        Args:
            num_samples: S of the whole, as for ``Codec.decode``; None: 1,024 N - 256.

        Raises:
            MelcodecError: no code was pushed, or S samples do not have that many codes.
        """
        total = self._codes.length
        try:
            if not total:
                raise MelcodecError("the stream holds no codes", code="too-short")
            length = self._length(total, num_samples)
            begun = self._sounded(self._mel(self._codes.buffer[..., :0], final=True))
            return torch.cat([begun, self._sound.finish(length).clamp(-1, 1)], dim=-1)
        finally:
            self.reset()

    def _length(self, total: int, num_samples: int | None) -> int:
        """S of ``total`` codes: as given, else the most that reflects nothing."""
        given = None if num_samples is None else inputs.whole_number(num_samples, "num_samples")
        return self.codec.timing.num_samples(total, given)

    def _checked(self, codes: Array) -> Tensor:
        if 0 in getattr(codes, "shape", ()):
            return self._codes.buffer[..., :0]
        checked = inputs.code_batch(codes, self.codec.sizes)
        if len(checked) != self.batch:
            raise MelcodecError(f"codes of {len(checked)} streams; this decoder has {self.batch}")
        return checked

    @torch.no_grad()
    def _mel(self, codes: Tensor, final: bool) -> Tensor:
        """Natural log-mel (B, M, t) of what is certain by now."""
        codec, stride = self.codec, self.codec.model.reach.stride
        self._codes.push(codes)
        count = self._codes.ready(final)
        if not count:
            return codec.frontend.norms.new_zeros(self.batch, codec.frontend.n_mels, 0)
        window = self._codes.take(count, final)
        with exact_float32(codec.device):
            mel = codec.model.decode(window.inputs)
        natural = codec.frontend.denormalize(mel[..., window.kept.start * stride : window.kept.stop * stride])
        return torch.minimum(natural, codec.frontend.loudest[:, None])  # no louder than sound can be, as ``Codec.decode``

    @torch.no_grad()
    def _sounded(self, mel: Tensor) -> Tensor:
        return self._sound.push(mel).clamp(-1, 1)

    def state_dict(self) -> State:
        """The stream so far, as tensors: to be saved, and resumed elsewhere."""
        return self._codes.state_dict("codes.") | self._sound.state_dict("sound.")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the state of a decoder with the same model, vocoder and batch.

        Raises:
            MelcodecError: it is the state of another kind of stream.
        """
        checked_state(state, self.state_dict())
        self._codes.load_state_dict(state, "codes.")
        self._sound.load_state_dict(state, "sound.")
