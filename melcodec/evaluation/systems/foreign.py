"""Codecs of other projects, by their command-line programs: Codec2 and Opus."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from melcodec.audio.io import load, save
from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.scores import Sound
from melcodec.evaluation.systems.base import System, run_program
from melcodec.metrics.waves import resample

CODEC2_RATE, CODEC2_MODE = 8_000, "700C"  # Hz


class Foreign(System):
    """What such codecs share: programs that must be installed, and an output with a delay."""

    programs: tuple[str, ...]

    @classmethod
    def unavailable(cls, codec: Codec, train: bool) -> str:
        """See ``base.System``."""
        lacking = [program for program in cls.programs if not shutil.which(program)]
        return f"the program '{lacking[0]}' is not installed" if lacking else ""

    def output(self, original: Sound, codes: np.ndarray) -> Sound:
        """See ``base.System``."""
        return self.tools.from_wave(self.through(original.wave, original.rate), original)

    def through(self, wav: np.ndarray, rate: int) -> np.ndarray:
        """(S,) at ``rate`` Hz -> (S',) at ``rate``."""
        raise NotImplementedError


class Codec2(Foreign):
    """Codec2 at 8 kHz."""

    name, label, bit_rate, programs = "codec2", "Codec2, 700 bit/s", 700.0, ("c2enc", "c2dec")  # without bits that fill up bytes

    def through(self, wav: np.ndarray, rate: int) -> np.ndarray:
        """See ``Foreign``."""
        with tempfile.TemporaryDirectory() as name:
            raw, bits, out = (Path(name, file) for file in ("in.raw", "bits", "out.raw"))
            low = resample(wav, rate, CODEC2_RATE)
            raw.write_bytes((np.clip(low, -1, 1) * 32_767).astype("<i2").tobytes())
            run_program("c2enc", CODEC2_MODE, str(raw), str(bits))
            run_program("c2dec", CODEC2_MODE, str(bits), str(out))
            made = np.frombuffer(out.read_bytes(), "<i2").astype(np.float32) / 32_768
        if not len(made):
            raise MelcodecError("Codec2 gave no sound: too short")
        return resample(made, CODEC2_RATE, rate)


class Opus(Foreign):
    """Opus in frames of 60 ms, at the least bit rate that opusenc accepts; without Ogg's own bits."""

    name, label, bit_rate, programs = "opus", "Opus, 6 kbit/s", 6_000.0, ("opusenc",)

    def through(self, wav: np.ndarray, rate: int) -> np.ndarray:
        """See ``Foreign``."""
        with tempfile.TemporaryDirectory() as name:
            plain, coded = Path(name, "in.wav"), Path(name, "out.opus")
            save(plain, wav, rate)
            settings = ("--quiet", "--hard-cbr", "--framesize", "60", "--bitrate", f"{self.bit_rate / 1000:g}")
            run_program("opusenc", *settings, str(plain), str(coded))
            return load(coded, rate)
