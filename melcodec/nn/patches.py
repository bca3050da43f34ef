"""Backbones that cut the mel into patches: every backbone here is one layer repeated between the same two ends.

A patch is all bands of a few frames, and becomes one latent. Patches may overlap, and a last 3x3 convolution may smooth
the output: two remedies against the grid of errors at the borders of patches, which ``metrics.spectral.seam_ratio``
measures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.config import MLPConfig
from melcodec.config.backbones import PatchSettings
from melcodec.nn.base import Backbone, Coder, Conv, Layer, Reach, Stack, mask


class PatchEncoder(Coder):
    """mel (B, M, T), normalised -> latents (B, D, ceil(T / patch)).

    Args:
        config: of the patches.
        n_mels: M.
        layers: at the rate of codes, (B, F, N) -> (B, D, N).
        context: codes before and after its own that a code sees through the layers, and the longest mel in frames when
            one of them is None.
    """

    def __init__(self, config: PatchSettings, n_mels: int, layers: Sequence[Layer], context: Reach) -> None:
        super().__init__()
        self.patch, overlap = config.patch, config.overlap
        self.cut = nn.Conv1d(n_mels, config.hidden, self.patch + 2 * overlap, stride=self.patch, padding=overlap)
        self.layers = Stack(*layers)
        # code t has frames patch t - overlap .. patch (t + 1) + overlap - 1
        left = None if context.left is None else self.patch * context.left + overlap
        right = None if context.right is None else self.patch * (context.right + 1) + overlap - 1
        self.reach = Reach(left, right, context.longest)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Coder.forward``."""
        x = F.pad(mask(x, lengths), (0, -x.shape[-1] % self.patch))
        # not -(-lengths // patch), which rounds down where // rounds towards zero, as in ONNX
        return self.layers(self.cut(x), None if lengths is None else (lengths + self.patch - 1) // self.patch)


class PatchDecoder(Coder):
    """latents (B, D, N) -> mel (B, M, patch N), normalised.

    Args:
        config: of the patches.
        n_mels: M.
        layers: at the rate of codes, (B, D, N) -> (B, F, N).
        context: as for ``PatchEncoder``.
    """

    def __init__(self, config: PatchSettings, n_mels: int, layers: Sequence[Layer], context: Reach) -> None:
        super().__init__()
        self.patch, overlap = config.patch, config.overlap
        self.layers = Stack(*layers)
        self.join = nn.ConvTranspose1d(config.hidden, n_mels, self.patch + 2 * overlap, stride=self.patch, padding=overlap)
        self.smooth = nn.Conv2d(1, 1, 3, padding=1) if config.smooth else None
        # a frame has the patches that overlap it, or the frame beside it where the output is smoothed
        more = (self.patch - 1 + overlap + config.smooth) // self.patch
        left, right = (None if side is None else side + more for side in (context.left, context.right))
        self.reach = Reach(left, right, None if context.longest is None else context.longest // self.patch)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Coder.forward``."""
        frames = None if lengths is None else lengths * self.patch
        x = mask(self.join(self.layers(x, lengths)), frames)
        return x if self.smooth is None else mask(x + self.smooth(x[:, None])[:, 0], frames)


class Residual(Layer):
    """x + mlp(x) at each position, F -> 4 F -> F with SiLU; (B, F, N) -> (B, F, N)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(width, 4 * width, 1), nn.SiLU(), nn.Conv1d(4 * width, width, 1))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``Layer.forward``."""
        return mask(x + self.net(x), lengths)


def build_mlp(config: MLPConfig, n_mels: int, dim: int) -> Backbone:
    """Patches without any layer that mixes time, between ``n_mels`` bands and latents of width D = ``dim``."""

    def layers() -> list[Layer]:
        return [Residual(config.hidden) for _ in range(config.num_blocks)]

    return Backbone(
        PatchEncoder(config, n_mels, [*layers(), Conv(config.hidden, dim, 1)], Reach(0, 0)),
        PatchDecoder(config, n_mels, [Conv(dim, config.hidden, 1), *layers()], Reach(0, 0)),
        config.stride,
    )
