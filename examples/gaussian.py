"""The experiment of article 2: a codebook learns 10,000 random vectors by straight-through gradients.

    python examples/gaussian.py                       # 50 passes: some minutes
    python examples/gaussian.py --quick               # some seconds

1,024 codewords of 64 numbers, batches of 32, Adam with a learning rate of 5e-4. The data are standard normal, without any
structure, so the loss can only fall as far as 1,024 points can come near 10,000 in 64 dimensions. Writes the curve of each
loss term and a picture of the codewords on the first two principal components of the data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor

from melcodec.config import GradientConfig
from melcodec.quantize.build import build_quantizer


def learn(vectors: Tensor, codebook_size: int, epochs: int) -> tuple[Tensor, Tensor, dict[str, list[float]]]:
    """vectors (n, D) -> codewords (K, D) before and after, and the mean of each term in every pass over the data."""
    quantizer = build_quantizer(GradientConfig(codebook_size=codebook_size, init="normal"), vectors.shape[1]).train()
    before = quantizer.tables()[0].clone()
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=5e-4)
    curves: dict[str, list[float]] = {"codebook": [], "commitment": [], "reconstruction": []}
    for _ in range(epochs):
        sums = dict.fromkeys(curves, 0.0)
        batches = torch.randperm(len(vectors)).split(32)
        for picked in batches:
            latents = vectors[picked].T[None]  # (1, D, 32)
            quantized = quantizer(latents)
            terms = quantized.losses | {"reconstruction": F.mse_loss(quantized.latents, latents)}
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            for name, value in terms.items():
                sums[name] += value.item() / len(batches)
        for name, value in sums.items():
            curves[name].append(value)
    return before, quantizer.tables()[0].clone(), curves


def draw_curves(curves: dict[str, list[float]], path: Path) -> None:
    """One line per term. All three have the same value here; they differ in what their gradients move."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, values), width in zip(curves.items(), (6, 3.5, 1.2), strict=True):
        axes.plot(range(1, len(values) + 1), values, linewidth=width, label=name)
    axes.set(xlabel="pass over the data", ylabel="mean squared error", title="Loss terms: one value, three gradients")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_codewords(vectors: Tensor, before: Tensor, after: Tensor, path: Path) -> None:
    """The data and the codewords on the data's first two principal components."""
    centre = vectors.mean(0)
    axes_of_data = torch.pca_lowrank(vectors, q=2)[2]
    figure, panels = plt.subplots(1, 2, figsize=(10, 5), sharex=True, sharey=True, layout="constrained")
    for panel, codewords, title in zip(panels, (before, after), ("before", "after training"), strict=True):
        for points, size, color, name in ((vectors, 3, "lightblue", "data"), (codewords, 5, "tab:red", "codewords")):
            panel.scatter(*((points - centre) @ axes_of_data).T, s=size, color=color, label=name)
        panel.set(title=f"codewords {title}", xlabel="principal component 1", ylabel="principal component 2", aspect="equal")
    panels[0].legend(loc="upper right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Learn, print the losses of the first and the last pass, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 vectors, 64 codewords, 5 passes")
    parser.add_argument("-o", "--output", type=Path, default=Path("gaussian"), help="folder for the pictures")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    vectors = torch.randn(500 if arguments.quick else 10_000, 64)
    size, epochs = (64, 5) if arguments.quick else (1024, 50)
    before, after, curves = learn(vectors, size, epochs)
    for name, values in curves.items():
        print(f"{name}: {values[0]:.3f} in the first pass, {values[-1]:.3f} in the last")
    draw_curves(curves, arguments.output / "losses.png")
    draw_codewords(vectors, before, after, arguments.output / "codewords.png")


if __name__ == "__main__":
    main()
