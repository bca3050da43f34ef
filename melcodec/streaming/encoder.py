"""Sound to codes, while it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melcodec import inputs
from melcodec.codec import Codec
from melcodec.devices import exact_float32
from melcodec.errors import MelcodecError
from melcodec.streaming.frontend import StreamingFrontend, StreamingResampler
from melcodec.streaming.overlap import Overlap, State, checked_state

if TYPE_CHECKING:
    from melcodec.inputs import Array


class StreamingEncoder:
    """Gives the codes of ``codec.encode``, each as soon as the samples that it depends on are there.

    Code t of XTTS depends on samples up to 1,024 t + 7,424: its look-ahead is 27 frames and half a window, 337 ms.

        encoder = StreamingEncoder(codec)
        for block in microphone:             # (n,) floats, any n
            send(encoder.push(block))        # (1, Q, n'), n' >= 0
        send(encoder.finish())               # what was waiting for its look-ahead

    Args:
        codec: its model must be of bounded reach.
        batch: B, streams that advance together.
        sample_rate: Hz of what is pushed; None: the codec's.

    Raises:
        MelcodecError: the model sees whole utterances, or a rate that cannot be resampled.
    """

    def __init__(self, codec: Codec, batch: int = 1, sample_rate: int | None = None) -> None:
        if codec.model.reach.encoder_halo is None or codec.model.reach.look_ahead is None:
            raise MelcodecError("this model needs whole utterances, so it cannot encode a stream", code="mismatch")
        self.codec, self.batch = codec, batch
        self.sample_rate = codec.sample_rate if sample_rate is None else inputs.checked_rate(sample_rate)
        self.reset()

    @property
    def lookahead(self) -> int:
        """Samples at the codec's rate that a code needs after the centre of its first frame."""
        frontend, frames = self.codec.frontend, self.codec.model.reach.look_ahead or 0
        return frames * frontend.hop_length + frontend.n_fft // 2

    def reset(self) -> None:
        """Forget the stream; the next push begins another one."""
        frontend, reach = self.codec.frontend, self.codec.model.reach
        empty = torch.zeros(self.batch, 0)
        other_rate = self.sample_rate != self.codec.sample_rate
        self._resampler = StreamingResampler(self.sample_rate, self.codec.sample_rate, empty) if other_rate else None
        self._frontend = StreamingFrontend(frontend, empty)
        no_frames = frontend.norms.new_zeros(self.batch, frontend.n_mels, 0)
        self._mel = Overlap(reach.encoder_halo or 0, reach.look_ahead or 0, reach.stride, no_frames)

    def push(self, wav: Array) -> Tensor:
        """The next samples (n,), or (B, n) of all streams, n >= 0 -> the codes (B, Q, n') that are certain by now.

        Raises:
            MelcodecError: as ``Codec.encode``.
        """
        return self._advance(inputs.wave_block(wav, self.batch), final=False)

    def finish(self) -> Tensor:
        """The end of the streams -> the last codes (B, Q, n'). The next push begins another stream.

        Raises:
            MelcodecError: no sample was pushed.
        """
        return self.end()[0]

    def end(self) -> tuple[Tensor, int]:
        """As ``finish``, and S, the samples of the whole at the codec's rate, for an exact length when decoding."""
        codes = self._advance(torch.zeros(self.batch, 0), final=True)
        num_samples = self._frontend.total
        self.reset()
        if not num_samples:
            raise MelcodecError("the wave holds no samples", code="too-short")
        return codes, num_samples

    @torch.no_grad()
    def _advance(self, wav: Tensor, final: bool) -> Tensor:
        codec = self.codec
        if self._resampler is not None:
            wav = self._resampler.push(wav, final)
        self._mel.push(self._frontend.push(wav.clamp(-1, 1), final))
        count = self._mel.ready(final)
        if not count:
            return torch.zeros(self.batch, codec.num_codebooks, 0, dtype=torch.int64, device=codec.device)
        window = self._mel.take(count, final)
        with exact_float32(codec.device):
            return codec.model.encode(codec.frontend.normalize(window.inputs))[..., window.kept]

    def state_dict(self) -> State:
        """The stream so far, as tensors: to be saved, and resumed elsewhere."""
        resampler = {} if self._resampler is None else self._resampler.overlap.state_dict("resampler.")
        return resampler | self._frontend.state_dict("frontend.") | self._mel.state_dict("mel.")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the state of an encoder with the same model, batch and rate.

        Raises:
            MelcodecError: it is the state of another kind of stream.
        """
        checked_state(state, self.state_dict())
        if self._resampler is not None:
            self._resampler.overlap.load_state_dict(state, "resampler.")
        self._frontend.load_state_dict(state, "frontend.")
        self._mel.load_state_dict(state, "mel.")
