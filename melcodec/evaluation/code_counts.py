"""How a codebook is used: codes counted over files, stores and speech, and the latents that became them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from melcodec.audio.io import Span, find_audio, open_blocks
from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.formats.arrays import SUFFIXES
from melcodec.manifests.base import Utterance
from melcodec.manifests.build import find_utterances
from melcodec.store.codes import find_codes
from melcodec.store.layout import is_store
from melcodec.store.reader import Item, Origin, read_items

LATENT_SECONDS = 10.0  # of each file: thousands of latents say no more than hundreds do
Update = Callable[[int, int], None]
Note = Callable[[str], None]
Counts = Path | Utterance  # a codes file or a store; or speech


def find_codes_or_sound(inputs: Sequence[Path], note: Note) -> list[Counts]:
    """What to count: codes files and stores by their paths, speech as utterances.

    Codes files in a folder of audio are taken in place of it only if every audio file has one of its name: both would count
    twice, and a stray array must not stand for the sounds.

    Args:
        note: called with sentences about what is not counted.

    Raises:
        MelcodecError: a folder holds neither, or cannot be entered.
    """
    files: list[Counts] = []
    for item in inputs:
        if item.suffix.lower() in SUFFIXES or is_store(item):
            files.append(item)
        elif item.is_dir():
            files += _of_folder(item, note)
        else:
            files += find_utterances([item], note)
    return files


def _of_folder(folder: Path, note: Note) -> Sequence[Counts]:
    codes, sounds = find_codes(folder), find_audio(folder)
    if not codes and not sounds:
        raise MelcodecError(f"{folder}: neither codes nor audio in this folder", code="missing")
    if not codes:
        return find_utterances([folder], note)
    coded = {path.with_suffix("") for path in codes}
    if all(path.with_suffix("") in coded for path in sounds):
        return codes
    note(f"{folder}: {len(codes)} arrays beside {len(sounds)} audio files are not counted; name them alone to count them")
    return find_utterances([folder], note)


def name_of(item: Counts) -> str:
    """What messages call it."""
    return item.id if isinstance(item, Utterance) else str(item)


@dataclass(frozen=True)
class Counted:
    """How often each code occurs.


    Args:
        books: (K,) of each codebook.
        left_out: what cannot be read, by its name, and why.
        unknown: files that do not say which checkpoint made them.
    """

    books: list[np.ndarray]
    left_out: dict[str, MelcodecError]
    unknown: list[Path]


def count_codes(files: Sequence[Counts], open_codec: Callable[[], Codec], update: Update) -> Counted:
    """Count the codes of codes files, code stores and audio.

    Args:
        open_codec: gives the codec that encodes audio, and that says K where no file does; called when it is needed.
        update: told (files done, files in all).

    Raises:
        MelcodecError: no file can be read, a damaged store, or codes of different checkpoints.
    """
    totals: list[np.ndarray] = []  # of each codebook, as long as its largest code so far
    left_out: dict[str, MelcodecError] = {}
    origin = Origin()
    for index, path in enumerate(files, start=1):
        for item in _items(path, open_codec, left_out):
            origin.check(item.codes, item.path)
            totals = totals or [np.zeros(0, np.int64) for _ in item.codes.codes]
            totals = [_added(total, np.bincount(row)) for total, row in zip(totals, item.codes.codes, strict=True)]
        update(index, len(files))
    if not totals:
        raise next(iter(left_out.values()), MelcodecError(f"{name_of(files[0])}: holds no codes"))
    sizes = origin.known_sizes or open_codec().sizes
    for total, size in zip(totals, sizes, strict=False):
        if len(total) > size:
            raise MelcodecError(
                f"code {len(total) - 1} does not exist in a codebook of {size} codes", "give the checkpoint with --checkpoint"
            )
    counts = [_added(np.zeros(size, np.int64), total) for total, size in zip(totals, sizes, strict=False)]
    return Counted(counts, left_out, origin.unknown)


def _items(item: Counts, open_codec: Callable[[], Codec], left_out: dict[str, MelcodecError]) -> Iterator[Item]:
    """The codes of one file, or of every utterance of a store; why there are none goes to ``left_out``."""
    if not isinstance(item, Utterance):
        yield from read_items(Path(str(item)), lambda path, error: left_out.update({str(path): error}))
        return
    codec = open_codec()  # what is wrong with a checkpoint is no fault of the file's
    try:
        codes = codec.encode_file(item.path, 0, Span(item.start, item.duration), item.member)
        yield Item(item.id, codes, Path(item.path))
    except MelcodecError as error:
        left_out[name_of(item)] = error


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sum of two counts, the shorter one as if it went on with zeros."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def first_latents(codec: Codec, files: Sequence[Utterance]) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, D) before quantisation of the first ten seconds of each file, and their codes (n,) of codebook 1."""
    latents, codes = [], []
    for path in files:
        taken, needed = [], int(LATENT_SECONDS * codec.sample_rate)
        with open_blocks(path.path, codec.sample_rate, Span(path.start, path.duration), path.member) as (_, blocks):
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
