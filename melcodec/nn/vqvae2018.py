"""The network of the first VQ-VAEs: strided 4-wide convolutions, a residual stack, transposed convolutions.

Source: van den Oord et al. 2017, "Neural Discrete Representation Learning", section 4.1, in the form that became common
with its published code: hidden h, residual blocks of r channels, ReLU before every convolution of a block.

Over time the bands of the mel are channels and the convolutions have one dimension. Over time and bands the mel is a
picture (B, 1, M, T); its latents are a picture too, (B, d, M / 4, N), whose rows lie one after the other in D = d M / 4
channels: row r is channels r d .. (r + 1) d, which a grouped quantizer with M / 4 groups quantizes as M / 4 streams.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.config import VQVAE2018Config
from melcodec.errors import MelcodecError
from melcodec.nn.base import Backbone, Coder, Reach, mask

STRIDE = 4


class ResidualStack(nn.Module):
    """``num_blocks`` times x + conv1(relu(conv3(relu(x)))), then ReLU; (B, C, ..., L) -> the same shape."""

    def __init__(self, conv: type[nn.Conv1d] | type[nn.Conv2d], hidden: int, residual: int, num_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList([conv(hidden, residual, 3, padding=1, bias=False), conv(residual, hidden, 1, bias=False)])
            for _ in range(num_blocks)
        )

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        for block in self.blocks:
            wide, narrow = block[0], block[1]  # type: ignore[index]
            # without biases, what is zero past an item's end stays zero but for what the wide convolution carries there
            x = x + narrow(F.relu(mask(wide(F.relu(x)), lengths)))
        return F.relu(x)


class VQVAE2018Encoder(Coder):
    """mel (B, M, T), normalised -> latents (B, D, ceil(T / 4))."""

    def __init__(self, config: VQVAE2018Config, n_mels: int, dim: int) -> None:
        super().__init__()
        self.flat = config.axes == "time"
        conv = nn.Conv1d if self.flat else nn.Conv2d
        hidden, rows = config.hidden, 1 if self.flat else n_mels // STRIDE
        self.first = conv(n_mels if self.flat else 1, hidden // 2, 4, stride=2, padding=1)
        self.second = conv(hidden // 2, hidden, 4, stride=2, padding=1)
        self.third = conv(hidden, hidden, 3, padding=1)
        self.stack = ResidualStack(conv, hidden, config.residual, config.num_blocks)
        self.last = conv(hidden, dim // rows, 1)
        # 4 t sees from 1 + 2 frames before, and one position of 4 frames in each 3-wide convolution
        halo = 3 + 4 * (1 + config.num_blocks)
        self.reach = Reach(halo, halo + STRIDE)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Coder.forward``."""
        frames = x.shape[-1]
        if frames % STRIDE:  # the convolutions need whole codes, and what is added is padding
            lengths = torch.full((len(x),), frames, device=x.device) if lengths is None else lengths
            x = F.pad(x, (0, -frames % STRIDE))
        x = mask(x if self.flat else x[:, None], lengths)
        halves, codes = (None, None) if lengths is None else ((lengths + 1) // 2, (lengths + STRIDE - 1) // STRIDE)
        x = mask(F.relu(self.first(x)), halves)
        x = mask(F.relu(self.second(x)), codes)
        x = self.stack(mask(self.third(x), codes), codes)
        x = mask(self.last(x), codes)
        return x if self.flat else x.transpose(1, 2).flatten(1, 2)


class VQVAE2018Decoder(Coder):
    """latents (B, D, N) -> mel (B, M, 4 N), normalised."""

    def __init__(self, config: VQVAE2018Config, n_mels: int, dim: int) -> None:
        super().__init__()
        self.flat = config.axes == "time"
        conv, up = (nn.Conv1d, nn.ConvTranspose1d) if self.flat else (nn.Conv2d, nn.ConvTranspose2d)
        hidden, self.rows = config.hidden, 1 if self.flat else n_mels // STRIDE
        self.first = conv(dim // self.rows, hidden, 3, padding=1)
        self.stack = ResidualStack(conv, hidden, config.residual, config.num_blocks)
        self.second = up(hidden, hidden // 2, 4, stride=2, padding=1)
        self.last = up(hidden // 2, n_mels if self.flat else 1, 4, stride=2, padding=1)
        # a frame sees one code in each 3-wide convolution and one more in the transposed ones together
        halo = 2 + config.num_blocks
        self.reach = Reach(halo, halo)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Coder.forward``."""
        x = mask(x if self.flat else x.view(x.shape[0], self.rows, -1, x.shape[-1]).transpose(1, 2), lengths)
        x = self.stack(mask(self.first(x), lengths), lengths)
        halves, frames = (None, None) if lengths is None else (lengths * 2, lengths * STRIDE)
        x = mask(F.relu(self.second(x)), halves)
        x = mask(self.last(x), frames)
        return x if self.flat else x[:, 0]


def build_vqvae2018(config: VQVAE2018Config, n_mels: int, dim: int) -> Backbone:
    """Both halves, between ``n_mels`` bands and latents of width D = ``dim``.

    Raises:
        MelcodecError: a picture whose rows do not come out whole.
    """
    if config.axes == "time-and-bands" and (n_mels % STRIDE or dim % (n_mels // STRIDE)):
        raise MelcodecError(
            f"a mel of {n_mels} bands has no {dim} channels in whole rows",
            f"model.mel.n_mels must be a multiple of {STRIDE}, and model.dim one of n_mels / {STRIDE}",
        )
    return Backbone(VQVAE2018Encoder(config, n_mels, dim), VQVAE2018Decoder(config, n_mels, dim), STRIDE)
