"""The run specification: all that decides which codes come out. A run goes on only under the one it began with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from melcodec.codec import Codec
from melcodec.config import MelConfig, flat
from melcodec.corpus.reading import Rules
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.store import FORMAT, MAX_CODE, RUN, VERSION, marked_parts, part_spec, read_spec
from melcodec.version import __version__

MISSING = "nothing"
# what stands in a specification -> the option that says it, and its word there -> the user's
OPTIONS = {
    "checkpoint": "--checkpoint",
    "settings.on_truncated": "--on-truncated",
    "settings.min_seconds": "--min-seconds",
}
WORDS = {("settings.on_truncated", "drop"): "fail or drop"}


def decoder_versions() -> dict[str, str | None]:
    """What decodes sound here; another decoder may give other samples."""
    import soundfile

    try:
        av = version("av")
    except PackageNotFoundError:
        av = None
    return {"soundfile": soundfile.__version__, "libsndfile": soundfile.__libsndfile_version__, "av": av}


def run_spec(codec: Codec, mel: MelConfig, checkpoint: str, rules: Rules) -> dict[str, Any]:
    """The specification of a run, JSON values.

    Raises:
        MelcodecError: codes of this checkpoint do not fit the store.
    """
    if codec.codebook_size > MAX_CODE + 1:
        raise MelcodecError(f"{checkpoint}: {codec.codebook_size} codes; a store holds codes up to {MAX_CODE}")
    return {
        "format": FORMAT,
        "version": VERSION,
        "melcodec": __version__,
        "checkpoint": checkpoint,
        "fingerprint": codec.fingerprint,
        "mel": mel.model_dump(mode="json"),
        "codebook_size": codec.codebook_size,
        "num_codebooks": codec.num_codebooks,
        "samples_per_code": codec.samples_per_code,
        "sample_rate": codec.sample_rate,
        "settings": asdict(rules),
        "decoder": decoder_versions(),
    }


def begin_or_resume(folder: Path, spec: dict[str, Any], say: Callable[[str], None] = print) -> dict[str, Any]:
    """Write ``spec`` as the run's in a new folder; in an old one, the specification that stands there.

    Every part holds it, too: where parts are done and the run's own file is gone, it is written anew after them.

    Raises:
        MelcodecError: the old one differs; every difference is named.
    """
    path = folder / RUN
    there = path.exists()
    before = read_spec(folder) if there else _spec_of_parts(folder)
    if before is not None and (found := list(differences(before, spec))):
        raise MelcodecError(
            f"{folder}: was begun under another specification: {'; '.join(found)}",
            "give what it was begun with, or another output folder",
        )
    if not there:
        with written_aside(path) as aside:
            aside.write_text(json.dumps(before or spec, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if before is not None:
            say(f"{path}: was gone; it is written anew after what the parts say")
    return before or spec


def _spec_of_parts(folder: Path) -> dict[str, Any] | None:
    """What all committed parts of ``folder`` were made under; None where none is readable, so that all are made anew."""
    found: dict[str, Any] | None = None
    for part in marked_parts(folder):
        try:
            made = part_spec(part)
        except MelcodecError:  # the survey says so, and it is done again
            continue
        if found is not None and made != found:
            raise MelcodecError(
                f"{folder}: has no {RUN}, and its parts are of different runs: {'; '.join(differences(found, made))}",
                f"put {RUN} back, or give another output folder",
            )
        found = made
    return found


def check_worker(codec: Codec, spec: dict[str, Any]) -> None:
    """Raise MelcodecError unless this process has the checkpoint, the melcodec and the decoders of ``spec``."""
    here = {"melcodec": __version__, "fingerprint": codec.fingerprint, "decoder": decoder_versions()}
    if found := list(differences({key: spec[key] for key in here}, here)):
        raise MelcodecError(f"a worker differs from the run: {'; '.join(found)}", "install the same on every machine")


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """``--min-seconds was 0.0 and is 0.5``, one for every difference that can change results."""
    old, new = flat(before), flat(now)
    if old.get("fingerprint") == new.get("fingerprint"):  # a checkpoint may move, and its decoder may be trained further
        new["checkpoint"] = old.get("checkpoint")
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            yield f"{OPTIONS.get(key, key)} was {_shown(key, old.get(key))} and is {_shown(key, new.get(key))}"


def _shown(key: str, value: Any) -> str:
    return MISSING if value is None else WORDS.get((key, value), str(value))
