"""The same network without its quantizer: what the codebook costs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from melcodec.chunking import plan
from melcodec.codec import Codec
from melcodec.devices import exact_float32
from melcodec.evaluation.scores import Sound
from melcodec.evaluation.systems.base import System


class Bypassed(System):
    """Encoder and decoder, and nothing between them."""

    name = "unquantized"
    label = "the same network, quantizer bypassed"

    def output(self, original: Sound, codes: np.ndarray) -> Sound:
        """See ``base.System``."""
        return self.tools.from_mel(bypassed(self.tools.codec, torch.from_numpy(original.mel)[None]), original)


@torch.inference_mode()
def bypassed(codec: Codec, mel: Tensor) -> Tensor:
    """Natural log-mel (1, M, T) -> (1, M, stride N) through encoder and decoder, leaving out the codebook."""
    reach, total = codec.model.reach, mel.shape[-1]
    bounded = reach.encoder_halo is not None and reach.decoder_halo is not None
    halo = (reach.encoder_halo or 0) + reach.stride * (reach.decoder_halo or 0)
    pieces = []
    for chunk in plan(total, codec.chunk_codes if bounded else total, halo, reach.stride):
        window = codec.frontend.normalize(mel[..., chunk.read_start : chunk.read_stop].to(codec.device))
        with exact_float32(codec.device):
            made = codec.model.decoder(codec.model.encode_latents(window))
        pieces.append(made[..., chunk.kept.start * reach.stride : chunk.kept.stop * reach.stride])
    return codec.frontend.denormalize(torch.cat(pieces, dim=-1))
