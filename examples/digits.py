"""The exercise of article 3: a VQ-VAE of fully connected layers on digits, with the library's quantizer and with ours.

    python examples/digits.py                         # scikit-learn's 1,797 digits of 8 x 8
    python examples/digits.py --mnist FOLDER          # MNIST files: train-images-idx3-ubyte, with or without .gz
    python examples/digits.py --quick

Encoder Linear, LeakyReLU, Linear, LeakyReLU, Linear, 300 units wide, to a few vectors per picture; the decoder mirrors it and
ends in a sigmoid. For each quantizer it writes digits above their reconstructions, and pictures of random codes.
"""

from __future__ import annotations

import argparse
import gzip
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcodec.config import CodebookConfig, GradientConfig, LibraryConfig, QuantizerConfig
from melcodec.errors import MelcodecError
from melcodec.quantize.build import build_quantizer

UNITS, VECTORS, DIM, SIZE = 300, 8, 16, 32  # a picture is 8 codes of 32: 40 bits
QUANTIZERS: dict[str, QuantizerConfig] = {
    "library": LibraryConfig(codebook_size=SIZE, decay=0.8),
    "ours": GradientConfig(codebook_size=SIZE),  # uniform start, commitment and codebook loss
}


class DigitsVQVAE(nn.Module):
    """Pictures (B, P) of P pixels -> the same, through VECTORS codes."""

    def __init__(self, pixels: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.encoder = layers(pixels, UNITS, UNITS, VECTORS * DIM)
        self.decoder = nn.Sequential(layers(VECTORS * DIM, UNITS, UNITS, pixels), nn.Sigmoid())
        self.quantizer = build_quantizer(config, DIM, CodebookConfig(start="stock", revive="batch"))

    def forward(self, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor], object]:
        """-> reconstructions (B, P), the quantizer's losses, and its moments."""
        quantized = self.quantizer(self.encoder(pictures).unflatten(1, (DIM, VECTORS)))
        return self.decoder(quantized.latents.flatten(1)), quantized.losses, quantized.moments

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, 1, VECTORS) -> pictures (B, P)."""
        return self.decoder(self.quantizer.decode(codes).flatten(1))


def layers(*widths: int) -> nn.Sequential:
    """Linear layers with LeakyReLU between them."""
    found: list[nn.Module] = []
    for width, following in pairwise(widths):
        found += [nn.Linear(width, following), nn.LeakyReLU()]
    return nn.Sequential(*found[:-1])


def learn(pictures: Tensor, config: QuantizerConfig, steps: int) -> tuple[DigitsVQVAE, list[float]]:
    """Train on pictures (n, P); the mean squared error of every step."""
    torch.manual_seed(0)
    model, errors = DigitsVQVAE(pictures.shape[1], config).train(), []
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    for step in range(steps):
        batch = pictures[torch.randint(len(pictures), (64,), generator=generator)]
        output, losses, moments = model(batch)
        error = F.mse_loss(output, batch)
        optimizer.zero_grad()
        (error + 0.25 * losses["commitment"] + losses.get("codebook", torch.zeros(()))).backward()
        optimizer.step()
        model.quantizer.update([moments], step, generator)
        errors.append(error.item())
    return model.eval(), errors


def draw(rows: list[Tensor], titles: list[str], path: Path) -> None:
    """Rows of pictures (n, P), one above the other, each with its title."""
    side = int(rows[0].shape[1] ** 0.5)
    figure, panels = plt.subplots(len(rows), 1, figsize=(9, 0.95 * len(rows)), layout="constrained", squeeze=False)
    for panel, row, title in zip(panels[:, 0], rows, titles, strict=True):
        panel.imshow(np.hstack([F.pad(each.view(side, side), (1, 1, 1, 1)).numpy() for each in row]), cmap="gray", vmin=0, vmax=1)
        panel.set_title(title, fontsize=10)
        panel.axis("off")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def load_pictures(mnist: Path | None) -> Tensor:
    """Pictures (n, P) in 0 .. 1, of scikit-learn or of MNIST's own file format."""
    if mnist is None:
        from sklearn.datasets import load_digits

        return torch.from_numpy(load_digits().data / 16).float()
    path = next(path for path in sorted(mnist.iterdir()) if path.name.startswith("train-images"))
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    count, height, width = (int.from_bytes(content[at : at + 4], "big") for at in (4, 8, 12))
    pixels = np.frombuffer(content, np.uint8, count * height * width, offset=16)
    return torch.from_numpy(pixels.reshape(count, height * width) / 255).float()


def main() -> None:
    """Train once with each quantizer; print errors, draw reconstructions and random codes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="30 steps instead of 2,000")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's files")
    parser.add_argument("-o", "--output", type=Path, default=Path("digits"), help="folder for the pictures")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    pictures = load_pictures(arguments.mnist)
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(pictures), generator=generator)
    held_out, rest = pictures[order[:16]], pictures[order[16:]]
    reconstructed, sampled = [], []
    for name, config in QUANTIZERS.items():
        try:
            model, errors = learn(rest, config, 30 if arguments.quick else 2000)
        except MelcodecError as error:
            print(f"{name}: skipped, {error}; {error.hint}")
            continue
        with torch.no_grad():
            output = model(held_out)[0]
            codes = torch.randint(SIZE, (16, 1, VECTORS), generator=torch.Generator().manual_seed(2))
            reconstructed.append((name, output))
            sampled.append((name, model.decode(codes)))
        missed = F.mse_loss(output, held_out).item()
        print(f"{name}: squared error {errors[0]:.4f} in the first step, {errors[-1]:.4f} in the last, {missed:.4f} held out")
    titles = ["held-out digits", *(f"reconstructed, {name}" for name, _ in reconstructed)]
    draw([held_out, *(row for _, row in reconstructed)], titles, arguments.output / "reconstructions.png")
    draw([row for _, row in sampled], [f"random codes, {name}" for name, _ in sampled], arguments.output / "samples.png")


if __name__ == "__main__":
    main()
