"""Codes to learn from: stores of ``melcodec preprocess`` and folders of codes files, as one list.

The only place of this package that knows how codes are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.manifests.base import Utterance
from melcodec.manifests.folder import declared_splits, first_folders
from melcodec.manifests.names import ids_of, relative_names
from melcodec.manifests.split import split
from melcodec.store.codes import find_codes, load_codes, smallest_unsigned
from melcodec.store.layout import is_store
from melcodec.tokens import checked

if TYPE_CHECKING:
    from melcodec.codec import Codec


@dataclass(frozen=True)
class CodeSpace:
    """What codes mean: all that a prior must know of their codec.

    Args:
        fingerprint: of the checkpoint that made the codes.
        sizes: K of each codebook.
        sample_rate: Hz of the sound.
        samples_per_code: samples at ``sample_rate`` that one code stands for.
    """

    fingerprint: str
    sizes: tuple[int, ...]
    sample_rate: int
    samples_per_code: int

    @property
    def code_rate(self) -> float:
        """Codes of one codebook in a second; 21.53 for XTTS."""
        return self.sample_rate / self.samples_per_code

    @classmethod
    def of(cls, codec: Codec) -> CodeSpace:
        """That of a codec."""
        return cls(codec.fingerprint, codec.sizes, codec.sample_rate, codec.samples_per_code)


@dataclass(frozen=True)
class Spoken:
    """One utterance: codes (Q, N) in the smallest unsigned type that holds them; speaker and split are empty if unknown."""

    id: str
    codes: np.ndarray
    speaker: str = ""
    split: str = ""


@dataclass(frozen=True)
class CodesCorpus:
    """Utterances of one code space, in a fixed order."""

    space: CodeSpace
    items: list[Spoken]

    @property
    def codes(self) -> list[np.ndarray]:
        """(Q, N_i) of each utterance."""
        return [item.codes for item in self.items]

    @property
    def seconds(self) -> float:
        """Length of all utterances together."""
        return sum(item.codes.shape[1] for item in self.items) / self.space.code_rate


def read_codes(sources: Sequence[Path], checkpoint: str = DEFAULT_CHECKPOINT) -> CodesCorpus:
    """Read stores, folders of codes files and single codes files.

    Args:
        sources: a store is told by its ``run.json``. A folder's first level below its sets (``train``, ``valid``) is taken
            for the speaker, as in folders of sound.
        checkpoint: says what codes in files mean; ``.npy`` files, which carry no fingerprint, are believed to be its.

    Raises:
        MelcodecError: nothing there, codes of two checkpoints, or codes outside the codebooks.
    """
    found = [_read_store(path) if is_store(path) else _read_files(path, checkpoint) for path in sources]
    if not any(corpus.items for corpus in found):
        raise MelcodecError(
            f"{', '.join(map(str, sources))}: no codes there", "melcodec preprocess or melcodec encode makes some"
        )
    space = found[0].space
    for path, corpus in zip(sources, found, strict=True):
        if corpus.space != space:
            raise MelcodecError(
                f"{path}: codes of checkpoint {corpus.space.fingerprint}, but {sources[0]} has codes of {space.fingerprint}",
                "one prior models the codes of one checkpoint",
            )
    return CodesCorpus(space, [item for corpus in found for item in corpus.items])


def check_space(corpus: CodesCorpus, space: CodeSpace, where: str) -> None:
    """Raise MelcodecError unless ``corpus`` holds codes of the checkpoint that ``space`` names."""
    if corpus.space.fingerprint != space.fingerprint:
        raise MelcodecError(
            f"{where}: codes of checkpoint {corpus.space.fingerprint}, but the prior models codes of {space.fingerprint}",
            "give codes that the same checkpoint made",
        )


def held_out(
    corpus: CodesCorpus, fraction: float, by: Literal["auto", "speaker", "file"] = "auto"
) -> tuple[CodesCorpus, CodesCorpus]:
    """(train, valid), by the rules of ``manifests.split``: declared sets, else whole speakers, else utterances."""
    numbered = [Utterance(str(index), item.id, speaker=item.speaker, split=item.split) for index, item in enumerate(corpus.items)]
    parts = split(numbered, fraction, by)
    train, valid = ([corpus.items[int(each.id)] for each in part] for part in parts)
    return CodesCorpus(corpus.space, train), CodesCorpus(corpus.space, valid)


def _read_store(folder: Path) -> CodesCorpus:
    from melcodec.store.dataset import CodesDataset

    dataset = CodesDataset(folder)
    spec: dict[str, Any] = dataset.spec
    space = CodeSpace(spec["fingerprint"], dataset.sizes, spec["sample_rate"], spec["samples_per_code"])
    return CodesCorpus(space, [_spoken(item.id, item.codes.numpy(), space, folder, item.speaker) for item in dataset])


def _read_files(path: Path, checkpoint: str) -> CodesCorpus:
    from melcodec.codec import Codec

    codec = Codec.from_pretrained(checkpoint, "cpu")
    space = CodeSpace.of(codec)
    files = find_codes(path) if path.is_dir() else [path]
    names = relative_names(files, str(path)) if path.is_dir() else [path.name]
    splits = declared_splits(names)
    items = []
    facts = zip(ids_of(names), files, first_folders(names, splits), splits, strict=True)
    for name, file, speaker, set_name in facts:
        codes = load_codes(file)
        codec.check_fingerprint(codes, str(file))
        items.append(_spoken(name, codes.codes, space, file, speaker, set_name))
    return CodesCorpus(space, items)


def _spoken(name: str, codes: np.ndarray, space: CodeSpace, where: Path, speaker: str = "", set_name: str = "") -> Spoken:
    try:
        checked(codes, space.sizes)
    except MelcodecError as error:
        raise MelcodecError(f"{where}: {name}: {error.message}", "another checkpoint made them: --checkpoint") from None
    return Spoken(name, codes.astype(smallest_unsigned(max(space.sizes))), speaker, set_name)
