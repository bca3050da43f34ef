"""How a codebook is used: codes counted over files, stores and speech, and the latents that became them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from melcodec.audio.io import find_audio, open_blocks
from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.formats.arrays import SUFFIXES
from melcodec.store.codes import Codes, find_codes, load_codes
from melcodec.store.layout import is_store, parts, read_spec
from melcodec.store.parquet import codes_of, read_part

LATENT_SECONDS = 10.0  # of each file: thousands of latents say no more than hundreds do
Update = Callable[[int, int], None]


def find_speech(data: Sequence[Path]) -> list[Path]:
    """Audio files as they are, and those of folders."""
    files: list[Path] = []
    for item in data:
        found = find_audio(item) if item.is_dir() else [item]
        if not found:
            raise MelcodecError(f"{item}: no audio in this folder", "wav, flac, mp3, ogg and opus are read")
        files += found
    return files


def find_codes_or_sound(inputs: Sequence[Path]) -> list[Path]:
    """Files and stores as they are; of a folder its codes files or, where it has none, its audio: both would count twice."""
    files: list[Path] = []
    for item in inputs:
        if not item.is_dir() or is_store(item):
            files.append(item)
        elif found := find_codes(item) or find_audio(item):
            files += found
        else:
            raise MelcodecError(f"{item}: neither codes nor audio in this folder")
    return files


@dataclass(frozen=True)
class Counted:
    """How often each code occurs: (Q K,), codebook after codebook; ``left_out``: files that cannot be read, and why."""

    counts: np.ndarray
    left_out: dict[Path, MelcodecError]


def count_codes(files: Sequence[Path], open_codec: Callable[[], Codec], update: Update) -> Counted:
    """Count the codes of codes files, code stores and audio.

    Args:
        open_codec: gives the codec that encodes audio, and that says K where no file does; called when it is needed.
        update: told (files done, files in all).

    Raises:
        MelcodecError: no file can be read, a damaged store, or codes of different checkpoints.
    """
    totals: dict[int, np.ndarray] = {}  # by codebook; as long as the largest code so far
    left_out: dict[Path, MelcodecError] = {}
    size, made_by = 0, ""
    for index, path in enumerate(files, start=1):
        for codes in read_codes(path, open_codec, left_out):
            made_by = made_by or codes.fingerprint or ""
            if codes.fingerprint not in (None, made_by):
                raise MelcodecError(
                    f"{path}: made by checkpoint {codes.fingerprint}, files before it by {made_by}",
                    "their codes mean different things: count them apart",
                )
            size = max(size, codes.codebook_size or 0)
            for book, row in enumerate(codes.codes):
                totals[book] = _added(totals.get(book, np.zeros(0, np.int64)), np.bincount(row))
        update(index, len(files))
    if not totals:
        raise next(iter(left_out.values()), MelcodecError(f"{files[0]}: holds no codes"))
    size = size or open_codec().codebook_size
    if (largest := max(map(len, totals.values()))) > size:
        raise MelcodecError(f"code {largest - 1} is none of a codebook of {size}", "give the checkpoint with --checkpoint")
    return Counted(np.concatenate([_added(np.zeros(size, np.int64), totals[book]) for book in sorted(totals)]), left_out)


def read_codes(path: Path, open_codec: Callable[[], Codec], left_out: dict[Path, MelcodecError]) -> Iterator[Codes]:
    """The codes of one file, or of every utterance of a store; why there are none goes to ``left_out``."""
    if not is_store(path):
        stored = path.suffix.lower() in SUFFIXES
        codec = None if stored else open_codec()  # what is wrong with a checkpoint is no fault of the file's
        try:
            yield codec.encode_file(path) if codec else load_codes(path)
        except MelcodecError as error:
            left_out[path] = error
        return
    spec = read_spec(path)
    for part in parts(path):
        for codes in codes_of(read_part(part, ["codes", "num_codebooks"])):
            if codes is not None:
                yield Codes(codes.astype(np.int64), None, None, spec["fingerprint"], spec["codebook_size"])


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sum of two counts, the shorter one as if it went on with zeros."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def first_latents(codec: Codec, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, D) before quantisation of the first ten seconds of each file, and their codes (n,) of codebook 1."""
    latents, codes = [], []
    for path in files:
        taken, needed = [], int(LATENT_SECONDS * codec.sample_rate)
        with open_blocks(path, codec.sample_rate) as (_, blocks):
            for block in blocks:
                taken.append(block[:needed])
                needed -= len(taken[-1])
                if not needed:
                    break
        with torch.inference_mode():
            found = codec.model.encode_latents(codec.frontend.normalize(codec.mel(np.concatenate(taken))))
            latents.append(found[0].T.cpu().numpy())
            codes.append(codec.model.quantizer.encode(found)[0, 0].cpu().numpy())
    return np.concatenate(latents), np.concatenate(codes)
