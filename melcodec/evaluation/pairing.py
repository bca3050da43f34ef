"""Two tokenizers' codes for the same utterances: from speech, or from folders of codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.kept import CodeFolder
from melcodec.evaluation.subjects import Subject, load_sound
from melcodec.metrics.spectral import band_l1

Update = Callable[[int, int], None]


@dataclass(frozen=True)
class Maker:
    """What made codes: its name, and its fingerprint and K as far as they are known."""

    name: str
    fingerprint: str | None
    codebook_size: int


@dataclass(frozen=True)
class Pair:
    """One utterance by both: codes (Q, N), and per-band log-mel L1 (M,) where there is sound."""

    id: str
    language: str
    codes: tuple[np.ndarray, np.ndarray]
    bands: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class LeftOut:
    """An utterance that cannot be compared, and why."""

    id: str
    reason: str


Pairs = Iterator[Pair | LeftOut]


def from_speech(a: str | Path, b: str | Path, subjects: Sequence[Subject], update: Update) -> tuple[Maker, Maker, Pairs]:
    """Two checkpoints, and what they make of ``subjects``."""
    codecs = [Codec.from_pretrained(side, "cpu") for side in (a, b)]
    one, other = (Maker(str(name), it.fingerprint, it.codebook_size) for name, it in zip((a, b), codecs, strict=True))

    def pairs() -> Pairs:
        for done, subject in enumerate(subjects, start=1):
            item = subject.utterance
            try:
                (codes_a, bands_a), (codes_b, bands_b) = (reconstruct(codec, subject) for codec in codecs)
            except MelcodecError as error:
                yield LeftOut(item.id, error.message)
            else:
                yield checked(Pair(item.id, item.language, (codes_a, codes_b), (bands_a, bands_b)))
            update(done, len(subjects))

    return one, other, pairs()


def from_folders(a: Path, b: Path, update: Update) -> tuple[Maker, Maker, Pairs]:
    """Two folders of codes, and the utterances that both have; B's codes are held in memory."""
    folders = CodeFolder.open(a), CodeFolder.open(b)
    one, other = (Maker(str(folder.path), folder.fingerprint, folder.codebook_size) for folder in folders)

    def pairs() -> Pairs:
        later = dict(folders[1].items())
        total = len(later)
        for done, (name, before) in enumerate(folders[0].items(), start=1):
            after = later.pop(name, None)
            if after is None:
                yield LeftOut(name, f"only in {a}")
            else:
                yield checked(Pair(name, before.language or after.language, (before.codes, after.codes)))
            update(min(done, total), total)
        yield from (LeftOut(name, f"only in {b}") for name in later)

    return one, other, pairs()


def reconstruct(codec: Codec, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Codes (Q, N) and per-band log-mel L1 (M,) of one utterance."""
    mel = codec.mel(load_sound(subject, codec.sample_rate))
    codes = codec.encode_mel(mel)
    made = codec.decode_to_mel(codes)[..., : mel.shape[-1]]
    return codes[0].numpy(), band_l1(mel[0].numpy(), made[0].numpy())


def checked(pair: Pair) -> Pair | LeftOut:
    """``pair``, unless its codes stand for different stretches of sound."""
    shapes = [codes.shape for codes in pair.codes]
    if shapes[0] == shapes[1]:
        return pair
    return LeftOut(pair.id, f"codes of shape {shapes[0]} and {shapes[1]} do not stand for the same stretches")
