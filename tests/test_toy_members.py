# ruff: noqa: E501 - lines of code that is planted
"""A new quantizer, backbone, term of the loss and vocoder takes one file and one case: this test adds each of them.

The package is copied, the four files and cases are added to the copy, and a model made of them is trained, saved, loaded
and run by the copy's own command line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import melcodec

PACKAGE = Path(melcodec.__file__).parent

QUANTIZER = '''
import torch
from melcodec.quantize.base import Quantized, Quantizer

class SignQuantizer(Quantizer):
    """The signs of the first channels, as the bits of one code."""

    def __init__(self, dim, config):
        super().__init__()
        self.dim, self.bits, self.sizes = dim, config.bits, config.sizes
        self.register_buffer("powers", 2 ** torch.arange(config.bits))

    def encode(self, latents):
        return ((latents[:, : self.bits] > 0) * self.powers[:, None]).sum(1, keepdim=True)

    def decode(self, codes):
        signs = (codes // self.powers[:, None] % 2) * 2.0 - 1
        return torch.cat([signs, signs.new_zeros(len(codes), self.dim - self.bits, codes.shape[-1])], dim=1)

    def forward(self, latents, lengths=None, generator=None):
        latents = latents.float()
        codes = self.encode(latents)
        return Quantized(latents + (self.decode(codes) - latents).detach(), codes, {"commitment": latents.pow(2).mean()})
'''
BACKBONE = """
from torch import nn
from melcodec.nn.base import Backbone, Coder, Reach, mask

class Encoder(Coder):
    def __init__(self, n_mels, dim):
        super().__init__()
        self.layer, self.reach = nn.Conv1d(n_mels, dim, 4, stride=4), Reach(0, 3)

    def forward(self, x, lengths=None):
        x = nn.functional.pad(mask(x, lengths), (0, -x.shape[-1] % 4))
        return mask(self.layer(x), None if lengths is None else -(-lengths // 4))

class Decoder(Coder):
    def __init__(self, n_mels, dim):
        super().__init__()
        self.layer, self.reach = nn.ConvTranspose1d(dim, n_mels, 4, stride=4), Reach(0, 0)

    def forward(self, x, lengths=None):
        return mask(self.layer(mask(x, lengths)), None if lengths is None else lengths * 4)

def build_toy(config, n_mels, dim):
    return Backbone(Encoder(n_mels, dim), Decoder(n_mels, dim), config.stride)
"""
TERM = '''
def slope(sample):
    """Mean squared error of the differences between frames."""
    return (sample.output.reconstruction - sample.mel).diff(dim=-1).pow(2).mean()
'''
VOCODER = '''
from melcodec.vocoder.griffin_lim import GriffinLim

class Hum(GriffinLim):
    """Half as loud."""

    def __call__(self, mel, num_samples):
        return super().__call__(mel, num_samples) / 2
'''
FILES = {"quantize/toy.py": QUANTIZER, "nn/toy.py": BACKBONE, "objective/toy.py": TERM, "vocoder/toy.py": VOCODER}
SETTINGS = {
    "config/model.py": [
        (
            "class ResidualConfig(",
            'class SignConfig(Settings):\n    """Signs."""\n\n    kind: Literal["sign"] = "sign"\n    bits: int = 4\n\n'
            "    @property\n    def sizes(self) -> tuple[int, ...]:\n        return (2**self.bits,)\n\n\nclass ResidualConfig(",
        ),
        (
            '    | Annotated[GradientConfig, Tag("gradient")]\n',
            '    | Annotated[GradientConfig, Tag("gradient")]\n    | Annotated[SignConfig, Tag("sign")]\n',
        ),
        (
            "BackboneConfig = Annotated[\n",
            'class ToyConfig(Settings):\n    """Patches."""\n\n    kind: Literal["toy"] = "toy"\n    stride: Literal[4] = 4\n\n\n'
            'BackboneConfig = Annotated[\n    Annotated[ToyConfig, Tag("toy")] |\n',
        ),
    ],
    "config/run.py": [("    log_mel_l1: float", "    slope: float = 0.0\n    log_mel_l1: float")],
    "config/vocoder.py": [
        (
            "class LearnedVocoderConfig(",
            'class HumConfig(GriffinLimConfig):\n    """Hum."""\n\n    kind: Literal["hum"] = "hum"  # type: ignore[assignment]\n\n\n'
            "class LearnedVocoderConfig(",
        ),
        (
            '    Annotated[GriffinLimConfig, Tag("griffin-lim")] |',
            '    Annotated[HumConfig, Tag("hum")] | Annotated[GriffinLimConfig, Tag("griffin-lim")] |',
        ),
    ],
}
CASES = {
    "quantize/build.py": (
        "        case GradientConfig():\n",
        "        case _ if config.kind == 'sign':\n            from melcodec.quantize.toy import SignQuantizer\n\n"
        "            return SignQuantizer(dim, config)\n        case GradientConfig():\n",
    ),
    "nn/build.py": (
        "        case VQVAE2018Config():\n",
        "        case _ if config.kind == 'toy':\n            from melcodec.nn.toy import build_toy\n\n"
        "            return build_toy(config, n_mels, dim)\n        case VQVAE2018Config():\n",
    ),
    "objective/build.py": (
        '        case "log_mel_l1":\n',
        '        case "slope":\n            from melcodec.objective.toy import slope\n\n            return slope\n        case "log_mel_l1":\n',
    ),
}
KINDS = ["model.quantizer.kind=sign", "model.backbone.kind=toy", "model.dim=16", "objective.slope=1"]
SHORT = [
    "train.steps=3",
    "train.valid_every=3",
    "train.log_every=1",
    "data.crop_frames=32",
    "data.num_workers=1",
    "train.samples=1",
]


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text, f"{path.name}: {before}"
    path.write_text(text.replace(before, after, 1))


@pytest.mark.slow
def test_one_file_and_one_case_each(speech_folder, tmp_path):
    copy = tmp_path / "source" / "melcodec"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        (copy / name).write_text(text)
    for name, edits in SETTINGS.items():
        for before, after in edits:
            edit(copy / name, before, after)
    for name, (before, after) in CASES.items():
        edit(copy / name, before, after)
    build = copy / "vocoder" / "build.py"
    first_case = next(line for line in build.read_text().splitlines(keepends=True) if line.lstrip().startswith("case "))
    indent = first_case[: len(first_case) - len(first_case.lstrip())]
    hum = f"{indent}case _ if config.kind == 'hum':\n{indent}    from melcodec.vocoder.toy import Hum\n\n"
    hum += f"{indent}    return Hum(frontend, config.iterations, config.momentum, config.nmf_iterations, config.seed)\n"
    edit(build, first_case, hum + first_case)

    def run(*words: object) -> str:
        command = [sys.executable, "-m", "melcodec", *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(copy.parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = [part for setting in [*KINDS, *SHORT] for part in ("--set", setting)]
    run("train", speech_folder, "--preset", "tiny", "--device", "cpu", *words, "-o", "run", "--set", "vocoder=hum")
    assert '"slope": ' in (tmp_path / "run" / "metrics.jsonl").read_text()
    run("roundtrip", speech_folder / "a" / "0.wav", "-o", "out.wav", "-c", "run/best.safetensors", "--vocoder", "hum")
    assert "sign, bits 4" in run("info", "run/best.safetensors")
