"""The worked example of article 3: a codebook of 4 x 6, two items of 3 vectors, by our quantizer and by the library's.

python examples/worked_example.py
"""

from __future__ import annotations

import torch

from melcodec.config import EMAConfig, LibraryConfig
from melcodec.errors import MelcodecError
from melcodec.quantize.build import build_quantizer

SHAPE = (4, 6)  # codewords, numbers in each
CHOSEN = torch.tensor([[1, 3, 0], [1, 1, 2]])
NOISE = 0.2


def main() -> None:
    """Encode vectors near known codewords, and print codes and distances."""
    torch.manual_seed(0)
    codebook = torch.randn(SHAPE)
    vectors = codebook[CHOSEN] + NOISE * torch.randn(2, 3, 6)  # (2 items, 3 positions, 6)
    latents = vectors.transpose(1, 2)  # melcodec's order: (B, D, N)

    ours = build_quantizer(EMAConfig(codebook_size=4), dim=6).eval()
    ours.embed.copy_(codebook.T)
    print("squared distances of the first item's vectors (rows) to the codewords (columns):")
    print((vectors[0][:, None] - codebook).square().sum(-1).numpy().round(2))
    print("codes, ours:       ", ours.encode(latents)[:, 0].tolist())
    try:
        library = build_quantizer(LibraryConfig(codebook_size=4), dim=6).eval()
    except MelcodecError as error:
        print(f"codes, the library: skipped, {error}; {error.hint}")
        return
    library.tables()[0].copy_(codebook)
    print("codes, the library:", library.encode(latents)[:, 0].tolist())


if __name__ == "__main__":
    main()
