"""Damaged files of every format that is read: whatever the bytes, the answer is a result or a MelcodecError."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from melcodec.audio.io import load
from melcodec.audio.stats import load_mel_norms
from melcodec.cli.info import describe
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import load_checkpoint
from melcodec.formats.mels import load_mel, save_mel
from melcodec.formats.xtts import import_xtts
from melcodec.store.codes import Codes, load_codes, save_codes
from melcodec.vocoder.file import load_vocoder

PER_FORMAT = 30
HEADER = 400  # bytes; damage there is the most inventive
CODES = Codes(np.arange(40)[None] % 32, 40_000, 22_050, "0123456789ab", (32,))
MEL = np.linspace(-11, 2, 800, dtype=np.float32).reshape(80, 10)


WORDS = (
    *(b"codes", b"embed", b"encoder", b"checkpoint", b"shape", b"dtype", b"kind", b"model", b"backbone", b"hop_length", b"fmt "),
    *(b"mel_norms", b"provenance", b"fingerprint", b"decay", b"hidden", b"descr", b"data", b"conv", b"null", b"BOOL", b"F32"),
)


def flip(content: bytearray, rng: random.Random) -> None:
    """Single bits and bytes, half of them in the header."""
    for _ in range(rng.randint(1, 12)):
        end = len(content) if rng.random() < 0.5 else min(len(content), HEADER)
        content[rng.randrange(end)] = rng.choice([0, 255, 32, 45, 34, rng.randrange(256)])


def cut(content: bytearray, rng: random.Random) -> None:
    """The end is missing."""
    del content[rng.randrange(len(content)) :]


def lose(content: bytearray, rng: random.Random) -> None:
    """Some bytes in the middle are missing."""
    start = rng.randrange(len(content))
    del content[start : start + rng.randint(1, 300)]


def blank(content: bytearray, rng: random.Random) -> None:
    """A sector was never written."""
    start = rng.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))


def repeat(content: bytearray, rng: random.Random) -> None:
    """A piece is there twice."""
    start = rng.randrange(len(content))
    content[start:start] = content[start : start + rng.randint(1, 600)]


def rename(content: bytearray, rng: random.Random) -> None:
    """A word of the header is another word of the same length, as of a file that another program wrote."""
    for word in rng.sample(WORDS, 4):
        at = content.find(word)
        if at >= 0:
            content[at : at + len(word)] = bytes(rng.choice(b"abcxyz") for _ in word)


DAMAGES = (flip, flip, flip, cut, lose, blank, repeat, rename)


def codes_file(path: Path, shared: dict[str, Path]) -> None:
    save_codes(path, CODES)


def mel_file(path: Path, shared: dict[str, Path]) -> None:
    save_mel(path, MEL)


def checkpoint_file(path: Path, shared: dict[str, Path]) -> None:
    path.write_bytes(shared["checkpoint"].read_bytes())


def vocoder_file(path: Path, shared: dict[str, Path]) -> None:
    path.write_bytes(shared["vocoder"].read_bytes())


def dvae_file(path: Path, shared: dict[str, Path]) -> None:
    path.write_bytes((shared["golden"] / "tiny_dvae.pth").read_bytes())


def legacy_dvae_file(path: Path, shared: dict[str, Path]) -> None:
    content = torch.load(shared["golden"] / "tiny_dvae.pth", weights_only=True)
    torch.save(content, path, _use_new_zipfile_serialization=False)


def norms_file(path: Path, shared: dict[str, Path]) -> None:
    path.write_bytes((shared["golden"] / "mel_stats.pth").read_bytes())


def norms_array(path: Path, shared: dict[str, Path]) -> None:
    np.save(path, np.linspace(-9, -1, 80, dtype=np.float32))


def sound_file(path: Path, shared: dict[str, Path]) -> None:
    wav, rate = soundfile.read(shared["speech"], dtype="float32", frames=16_000)
    soundfile.write(path, wav, rate)


def read_sound(path: Path) -> None:
    informed(path)
    load(path, 22_050)


def read_codes(path: Path) -> None:
    informed(path)
    load_codes(path)


def read_mel(path: Path) -> None:
    informed(path)
    load_mel(path)


def read_checkpoint(path: Path) -> None:
    informed(path)
    load_checkpoint(path)


def read_vocoder(path: Path) -> None:
    informed(path)
    load_vocoder(path)


def informed(path: Path) -> None:
    """``melcodec info`` reads the header alone; it may well find nothing wrong where the whole file is refused."""
    with suppress(MelcodecError):
        describe(str(path))


Make, Read = Callable[[Path, dict[str, Path]], None], Callable[[Path], object]
FORMATS: dict[str, tuple[Make, Read]] = {
    "codes.npy": (codes_file, read_codes),
    "codes.npz": (codes_file, read_codes),
    "codes.safetensors": (codes_file, read_codes),
    "mel.npy": (mel_file, read_mel),
    "mel.npz": (mel_file, read_mel),
    "mel.safetensors": (mel_file, read_mel),
    "checkpoint.safetensors": (checkpoint_file, read_checkpoint),
    "vocoder.safetensors": (vocoder_file, read_vocoder),
    "dvae.pth": (dvae_file, import_xtts),
    "legacy.pth": (legacy_dvae_file, import_xtts),
    "mel_stats.pth": (norms_file, load_mel_norms),
    "mel_stats.npy": (norms_array, load_mel_norms),
    "speech.wav": (sound_file, read_sound),
    "speech.flac": (sound_file, read_sound),
    "speech.ogg": (sound_file, read_sound),
    "speech.mp3": (sound_file, read_sound),
}


@pytest.fixture(scope="module")
def shared(tiny_checkpoint, tiny_vocoder, golden_folder, examples) -> dict[str, Path]:
    return {"checkpoint": tiny_checkpoint, "vocoder": tiny_vocoder, "golden": golden_folder, "speech": examples["lj_en"]}


def answer(read: Read, path: Path, seed: int) -> str | None:
    """The refusal's message, None when the file was read; anything else fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a remark of numpy or torch on stderr is no answer either
        try:
            read(path)
        except MelcodecError as error:
            return error.message
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    return None


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_refused(name, shared, tmp_path):
    make, read = FORMATS[name]
    path = tmp_path / name
    make(path, shared)
    read(path)  # whole, it is read
    whole, outcomes = path.read_bytes(), Counter()
    for seed in range(PER_FORMAT):
        rng = random.Random(f"{name} {seed}")
        content = bytearray(whole)
        for damage in rng.sample(DAMAGES, rng.randint(1, 2)):
            damage(content, rng)
            content = content or bytearray(b"\0")
        path.write_bytes(content)
        refusal = answer(read, path, seed)
        if refusal is not None:
            assert refusal.startswith(str(path)), refusal
            assert "\n" not in refusal
        outcomes["read" if refusal is None else "refused"] += 1
    assert outcomes["refused"] >= PER_FORMAT // 8, outcomes  # or nothing was damaged
