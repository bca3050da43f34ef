"""The folder that ``melcodec export-onnx`` writes: graphs, and one JSON file that says what they are; no torch.

``encoder.onnx`` turns waves into codes, ``decoder.onnx`` codes into mels, ``vocoder.onnx`` mels into magnitudes, for
Griffin-Lim, or into waves. Every graph carries the content of ``melcodec.json`` in its metadata, too, under ``melcodec``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from melcodec.config import ModelConfig, VocoderConfig, parse
from melcodec.config.base import Settings
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import ONNX_FACTS
from melcodec.timing import Timing

FACTS = ONNX_FACTS
ENCODER, DECODER, VOCODER = "encoder.onnx", "decoder.onnx", "vocoder.onnx"
FILES = (FACTS, ENCODER, DECODER, VOCODER)
METADATA_KEY = "melcodec"
FORMAT_VERSION = 1
OPSET = 17  # the newest one that every onnxruntime of the last years knows, the one for browsers among them
MEL_SCALE = "natural logarithm of the power in bands of the HTK scale with Slaney's area norm, the decoder's output"


class Agreement(Settings):
    """What came of comparing the graphs with torch on speech when they were exported."""

    seconds: float = Field(description="of speech")
    codes: int = Field(description="compared, those of every codebook counting")
    near_ties: int = Field(description="codes that differ where two codewords are as near as rounding can tell")
    mel_error: float = Field(description="largest difference of a decoded natural log-mel")


class OnnxFacts(Settings):
    """What a program needs to know to run the graphs."""

    format: int = FORMAT_VERSION
    fingerprint: str = Field(description="of the code space")
    model: ModelConfig
    mel_norms: tuple[float, ...] = Field(description="(M,); the graphs apply them")
    mel_scale: str = MEL_SCALE
    sizes: tuple[int, ...] = Field(description="K of each codebook")
    stride: int = Field(description="mel frames of a code")
    encoder_halo: int | None = Field(description="frames to each side that a code depends on; None: all")
    decoder_halo: int | None = Field(description="codes to each side that a frame depends on; None: all")
    longest: int | None = Field(description="the most frames that a model of unbounded reach accepts")
    vocoder: VocoderConfig
    vocoder_reach: int | None = Field(description="frames to each side that a sample of vocoder.onnx depends on; None: no waves")
    opset: int = OPSET
    agreement: Agreement

    @property
    def timing(self) -> Timing:
        """How samples, frames and codes count each other."""
        return Timing(self.model.mel.sample_rate, self.model.mel.hop_length, self.stride, self.longest)


def is_export(path: str | Path) -> bool:
    """Whether ``path`` is a folder that ``melcodec export-onnx`` wrote."""
    return (Path(path) / FACTS).is_file()


def read_facts(folder: Path) -> OnnxFacts:
    """What ``melcodec.json`` of ``folder`` says.

    Raises:
        MelcodecError: it is missing, damaged or of a newer melcodec, or a graph is missing.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise MelcodecError(f"{folder}: no {name} in it", "write the folder with melcodec export-onnx", "missing")
    try:
        data: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        version = int(data["format"])
    except (ValueError, TypeError, KeyError):
        raise MelcodecError(f"{folder / FACTS}: damaged: not what melcodec export-onnx writes", code="damaged") from None
    if version > FORMAT_VERSION:
        raise MelcodecError(f"{folder}: written by a newer melcodec (format {version})", "pip install --upgrade melcodec")
    return parse(OnnxFacts, data, str(folder / FACTS))


def facts_text(facts: OnnxFacts) -> str:
    """The content of ``melcodec.json``."""
    return json.dumps(facts.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
