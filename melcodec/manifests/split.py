"""Which utterances are learned from, and which are held out to judge by."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance

ENOUGH_SPEAKERS = 10  # to hold some of them out without losing much


def split(
    utterances: Sequence[Utterance], fraction: float, by: Literal["auto", "speaker", "file"] = "auto"
) -> tuple[list[Utterance], list[Utterance]]:
    """(train, valid): disjoint, each in the order given. ``test`` is in neither.

    Where the sources say what is ``valid``, and leave something to learn from, they are taken at their word; what they
    put into no set trains. Otherwise whole speakers or whole files are held out, chosen by a hash of their names, so that
    the choice hardly changes when others come: as many as fit into ``fraction`` of the utterances, at least one, never all.

    Args:
        fraction: share of the utterances to hold out; 0 holds out nothing.
        by: speakers, files, or whichever suits: speakers where 10 or more are named. Utterances that name no speaker stand
            for themselves, and parts of one file stay together.

    Raises:
        MelcodecError: nothing to learn from, or ``by`` is speaker and fewer than two are named.
    """
    rest = [utterance for utterance in utterances if utterance.split != "test"]
    if not rest:
        raise MelcodecError("there is nothing to learn from: every utterance is marked as test")
    train = [utterance for utterance in rest if utterance.split != "valid"]
    if train and len(train) < len(rest):
        return train, [utterance for utterance in rest if utterance.split == "valid"]
    speakers = {utterance.speaker for utterance in rest} - {""}
    if by == "speaker" and len(speakers) < 2 and fraction:
        known = f"only one, '{min(speakers)}', is named" if speakers else "none is named"
        raise MelcodecError(f"speakers cannot be held out: {known}", "--set data.split=file holds out files")
    by_speaker = by == "speaker" or (by == "auto" and len(speakers) >= ENOUGH_SPEAKERS)
    names = [each.speaker or each.id for each in rest] if by_speaker else _files(rest)
    held_out = _held_out(Counter(names), fraction)
    pairs = list(zip(rest, names, strict=True))
    return [each for each, name in pairs if name not in held_out], [each for each, name in pairs if name in held_out]


def _files(utterances: Sequence[Utterance]) -> list[str]:
    """What stands for the file of each utterance: the id of the first one in it."""
    first: dict[tuple[str, str], str] = {}
    names = [first.setdefault((each.path, each.member), each.id) for each in utterances]
    return names if len(first) > 1 else [each.id for each in utterances]  # one long recording: better its parts than none


def _held_out(sizes: Counter[str], fraction: float) -> set[str]:
    """The groups to hold out: in the order of their names' hashes, each that still fits, or else the smallest."""
    if not fraction or len(sizes) < 2:
        return set()
    room = min(sizes.total() - 1, math.ceil(fraction * sizes.total()))
    ranked = sorted(sizes, key=lambda name: hashlib.sha256(name.encode(errors="surrogatepass")).digest())
    chosen = set()
    for name in ranked:
        if sizes[name] <= room:
            chosen.add(name)
            room -= sizes[name]
    return chosen or {min(ranked, key=sizes.__getitem__)}
