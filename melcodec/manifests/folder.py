"""Folders of audio files, and files named one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from melcodec.audio.io import is_audio
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.manifests.names import SPLITS, absolute, common_folder, ids_of, relative_names
from melcodec.manifests.trees import Trees
from melcodec.walk import Found, walk

READABLE = "wav, flac, mp3, ogg and opus are read"


def read_folder(folder: str, others: Found, note: Callable[[str], None]) -> list[Utterance]:
    """Every audio file below ``folder``; its id is its path from there, without suffix.

    If the folder holds both ``train`` and ``valid`` (or ``validation``, ``val``, ``dev``), these two are used as the sets
    of these names, and all that lies beside them is ``test``: not used for training nor validation. LJSpeech, VCTK,
    LibriTTS and LibriSpeech give speakers, texts and sets (see ``trees``). In any other folder, the first folder on the
    way to a file is its speaker when every file has one and there are several.

    Args:
        others: takes up what else lies in the folder.
        note: called with a sentence about a list of texts that is not used.

    Raises:
        MelcodecError: no audio there, or a folder in it cannot be entered.
    """
    there = walk(Path(folder), is_audio)
    found = there.checked()
    base = str(Path(folder))
    names = relative_names(found, "" if base == "." else base)  # pathlib leaves a leading './' out
    if not found:
        tar = next(Path(folder).glob("*.tar"), None)
        raise MelcodecError(f"no audio files in {folder}", f"for the archives there, '{tar.parent}/*.tar'" if tar else READABLE)
    others.add(there)
    trees = Trees(absolute(folder), note)
    known = [trees.known(name) for name in names]
    splits = declared_splits(names)
    speakers = [""] * len(names) if any(known) else first_folders(names, splits)
    ids = ids_of([place.name if place else name for name, place in zip(names, known, strict=True)])
    return [
        Utterance(
            id=ids[index],
            path=str(found[index]),
            speaker=place.speaker if place else speakers[index],
            text=place.text if place else "",
            split=splits[index] or (place.split if place else ""),
        )
        for index, place in enumerate(known)
    ]


def declared_splits(names: Sequence[str]) -> list[str]:
    """The set of every file by the first folder of its name; all empty unless there are both train and valid."""
    tops = [SPLITS.get(first.lower(), "test") if rest else "test" for first, _, rest in (name.partition("/") for name in names)]
    return tops if {"train", "valid"} <= set(tops) else [""] * len(names)


def first_folders(names: Sequence[str], splits: Sequence[str]) -> list[str]:
    """The speaker of every file: the first folder below its set's, if every file has one and they are not all the same.

    Files of the test set take part in neither question: what lies beside train and valid may look like anything.
    """
    rests = [name.partition("/")[2] if split else name for name, split in zip(names, splits, strict=True)]
    firsts = [rest.partition("/")[0] if "/" in rest else "" for rest in rests]
    counted = {first for first, split in zip(firsts, splits, strict=True) if split != "test"}
    return firsts if len(counted) > 1 and "" not in counted else [""] * len(names)


def read_files(paths: Sequence[str], folder: str | None = None) -> list[Utterance]:
    """Audio files named one by one; ids are seen from ``folder``, or from the deepest folder that holds them all."""
    base = common_folder(paths) if folder is None else absolute(folder)
    ids = ids_of(relative_names((absolute(path) for path in paths), base))
    return [Utterance(id=name, path=path) for name, path in zip(ids, paths, strict=True)]
