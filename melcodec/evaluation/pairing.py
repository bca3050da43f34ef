"""Two tokenizers' codes for the same utterances: from speech, or from folders of codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.subjects import Subject, load_sound
from melcodec.metrics.spectral import band_l1
from melcodec.store.reader import Origin, read_items

Update = Callable[[int, int], None]


@dataclass(frozen=True)
class Tokenizer:
    """What made codes: its name, its fingerprint if it is known, and K of each codebook, or the largest code and one."""

    name: str
    fingerprint: str | None
    sizes: tuple[int, ...]


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


def from_speech(
    a: str | Path, b: str | Path, subjects: Sequence[Subject], update: Update, device: str = "cpu"
) -> tuple[Tokenizer, Tokenizer, Pairs]:
    """Two checkpoints, and what they make of ``subjects``."""
    codecs = [Codec.from_pretrained(side, device) for side in (a, b)]
    one, other = (Tokenizer(str(name), it.fingerprint, it.sizes) for name, it in zip((a, b), codecs, strict=True))

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


def from_folders(a: Path, b: Path, update: Update) -> tuple[Tokenizer, Tokenizer, Pairs]:
    """Two folders of codes, and the utterances that both have; B's codes are held in memory."""
    one, other = (_tokenizer(folder) for folder in (a, b))

    def pairs() -> Pairs:
        later = {item.id: item for item in read_items(b)}
        total = len(later)
        for done, before in enumerate(read_items(a), start=1):
            after = later.pop(before.id, None)
            if after is None:
                yield LeftOut(before.id, f"only in {a}")
            else:
                codes = before.codes.codes, after.codes.codes
                yield checked(Pair(before.id, before.language or after.language, codes))
            update(min(done, total), total)
        yield from (LeftOut(name, f"only in {b}") for name in later)

    return one, other, pairs()


def _tokenizer(folder: Path) -> Tokenizer:
    """What made the codes in ``folder``; raises MelcodecError where that is not one checkpoint."""
    origin = Origin()
    for item in read_items(folder):
        origin.check(item.codes, item.path)
    return Tokenizer(str(folder), origin.fingerprint, origin.sizes)


def reconstruct(codec: Codec, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Codes (Q, N) and per-band log-mel L1 (M,) of one utterance."""
    mel = codec.mel(load_sound(subject, codec.sample_rate))
    codes = codec.encode_mel(mel)
    made = codec.decode_to_mel(codes)[..., : mel.shape[-1]]
    return codes[0].cpu().numpy(), band_l1(mel[0].cpu().numpy(), made[0].cpu().numpy())


def checked(pair: Pair) -> Pair | LeftOut:
    """``pair``, unless its codes stand for different stretches of sound."""
    shapes = [codes.shape for codes in pair.codes]
    if shapes[0] == shapes[1]:
        return pair
    return LeftOut(pair.id, f"codes of shape {shapes[0]} and {shapes[1]} do not cover the same segments")
