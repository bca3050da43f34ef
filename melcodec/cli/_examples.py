"""The examples at the end of every --help, and help texts that fit any width."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("melcodec encode speech.wav -o codes.npz", "melcodec decode codes.npz -o decoded.wav", "melcodec help encode"),
    "encode": (
        "melcodec encode speech.wav -o codes.npz",
        "melcodec encode recordings/ -o codes/ --to npz",
        "melcodec encode metadata.csv -o codes/ --checkpoint run/",
        "melcodec encode speech.wav -o codes.npz --runtime onnx",
        "melcodec encode - -o - < speech.wav > codes.npy",
    ),
    "decode": (
        "melcodec decode codes.npz -o decoded.wav",
        "melcodec decode codes/ -o sound/ --to flac",
        "melcodec decode corpus/ --id speaker/utterance -o one.wav",
    ),
    "roundtrip": (
        "melcodec roundtrip speech.wav -o decoded.wav",
        "melcodec roundtrip recordings/ -o decoded/ --checkpoint run/",
    ),
    "preprocess": (
        "melcodec preprocess recordings/ -o corpus/",
        "melcodec preprocess 'shards/{000..099}.tar' -o corpus/ --max-failures 0.5%",
        "melcodec preprocess recordings/ -o corpus/ --retry-failed",
    ),
    "info": ("melcodec info melcodec-base", "melcodec info speech.flac", "melcodec info codes.npz --json"),
    "help": ("melcodec help encode", "melcodec help plot usage"),
    "plot": ("melcodec plot mel speech.wav -o mel.png", "melcodec plot roundtrip speech.wav -o roundtrip.html"),
    "plot mel": ("melcodec plot mel speech.wav -o mel.png", "melcodec plot mel decoded.npy -o mel.svg"),
    "plot roundtrip": ("melcodec plot roundtrip speech.wav -o roundtrip.html",),
    "plot codes": ("melcodec plot codes speech.wav -o codes.png", "melcodec plot codes codes.npz -o codes.html"),
    "plot chance": ("melcodec plot chance -o random.html --seconds 5 --seed 1",),
    "plot codebook": (
        "melcodec plot codebook melcodec-base -o codebook.png",
        "melcodec plot codebook run/ recordings/ -o codebook.html",
    ),
    "plot usage": ("melcodec plot usage recordings/ -o usage.png", "melcodec plot usage corpus/ -o usage.html"),
    "plot training": ("melcodec plot training run/ -o curves.png", "melcodec plot training run-a/ run-b/ -o usage.png"),
    "corpus": ("melcodec corpus info corpus/", "melcodec corpus verify corpus/"),
    "corpus info": ("melcodec corpus info corpus/", "melcodec corpus info corpus/ --json"),
    "corpus verify": ("melcodec corpus verify corpus/",),
    "corpus export": (
        "melcodec corpus export corpus/ --to npy -o codes/",
        "melcodec corpus export corpus/ --to webdataset -o shards/",
    ),
    "train": (
        "melcodec train recordings/",
        "melcodec train recordings/ --init melcodec-base --tune decoder -o run/",
        "melcodec train list.jsonl --preset tiny --set train.steps=2000",
    ),
    "config": ("melcodec config list", "melcodec config show base > run.toml"),
    "config list": ("melcodec config list",),
    "sweep": (
        "melcodec sweep recordings/ --vary model.quantizer=ema,residual --set train.steps=2000 -o sweeps/quantizers",
        "melcodec sweep recordings/ --vary optimizer.lr=1e-4,3e-4 --vary data.batch_size=16,32 --seeds 0,1,2 -o sweeps/rates",
    ),
    "config show": ("melcodec config show base > run.toml", "melcodec config show finetune --set train.steps=5000"),
    "config check": ("melcodec config check run.toml",),
    "prior": ("melcodec prior train corpus/ -o prior/", "melcodec prior sample prior/ -o sample.wav"),
    "prior train": ("melcodec prior train corpus/ -o prior/", "melcodec prior train codes/ -o prior/ --preset tiny"),
    "prior score": ("melcodec prior score prior/ held-out/", "melcodec prior score prior/ codes/ --json"),
    "prior sample": (
        "melcodec prior sample prior/ -o sample.wav",
        "melcodec prior sample prior/ -o continued.wav --prompt speech.wav --prompt-seconds 2",
    ),
    "vocoder": ("melcodec vocoder train recordings/ -o vocoder/", "melcodec decode codes.npz -o decoded.wav --vocoder vocoder/"),
    "vocoder train": (
        "melcodec vocoder train recordings/ -o vocoder/",
        "melcodec vocoder train recordings/ --config run.toml --set train.steps=5000",
    ),
    "vocoder config": ("melcodec vocoder config > run.toml",),
    "mel-stats": ("melcodec mel-stats recordings/ -o mel_stats.pth", "melcodec mel-stats list.jsonl -o norms.json"),
    "evaluate": (
        "melcodec evaluate recordings/ -o report/",
        "melcodec evaluate test.csv -o report/ --checkpoint run/ --train recordings/ --limit 100",
    ),
    "compare": (
        "melcodec compare melcodec-base run/ recordings/ -o report/",
        "melcodec compare corpus-a/ corpus-b/ --json",
    ),
    "bench": ("melcodec bench", "melcodec bench --checkpoint run/ --seconds 30 --json"),
    "import-xtts": (
        "melcodec import-xtts dvae.pth",
        "melcodec import-xtts best_model.pth --mel-stats mel_stats.pth -o tuned.safetensors",
    ),
    "export-onnx": (
        "melcodec export-onnx melcodec-base -o onnx/",
        "melcodec export-onnx run/ -o onnx/ --vocoder vocoder/ --speech speech.wav",
    ),
    "export-xtts": (
        "melcodec export-xtts run/ -o xtts/",
        "melcodec export-xtts run/ --into best_model.pth -o new.pth",
    ),
}


def epilog(name: str) -> str | None:
    """The examples of the command ``name`` (``plot mel``), a paragraph each; None where there are none."""
    lines = EXAMPLES.get(name, ())
    return "\n\n".join(("Examples:", *(f"  {line}" for line in lines))) if lines else None


def flowed(text: str) -> str:
    """``text`` with each paragraph on one line, which the terminal's width then breaks."""
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", paragraph.strip()) for paragraph in text.split("\n\n"))


def walk_commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, command) of ``command`` and all below it: ``plot mel``; the whole is ''."""
    yield name, command
    for each, below in getattr(command, "commands", {}).items():
        yield from walk_commands(below, f"{name} {each}".strip())
