"""What lies in a store, the folder that ``melcodec preprocess`` writes: names, markers and the run specification.

    OUT/run.json                      what made it: checkpoint, fingerprint, K of each codebook, rates, settings
    OUT/segments/0000/plan.jsonl      one line per planned utterance, frozen; plan.json holds its hash
    OUT/parts/0000-00017.parquet      unit 17 of segment 0: a row per utterance, codes or the reason there are none
    OUT/parts/0000-00017.done.json    marker: counts and the part's SHA-256; a part without it does not exist yet

Neither Arrow nor torch is imported here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from melcodec.errors import MelcodecError

RUN, SEGMENTS, PARTS, MARKER_SUFFIX = "run.json", "segments", "parts", ".done.json"
LOCK = ".lock"  # held by the process that works in the folder
FORMAT, VERSION = "melcodec codes", 2  # 1 had one codebook_size for all num_codebooks
COUNTS = ("samples_per_code", "sample_rate")  # of a run specification
RESTORE = f"remove {RUN} and run melcodec preprocess again as before: it restores the file from the parts"


def part_name(segment: int, unit: int) -> str:
    """``0000-00017``: from the plan alone, never from a process or a clock."""
    return f"{segment:04d}-{unit:05d}"


def part_path(folder: Path, segment: int, unit: int) -> Path:
    """Where unit ``unit`` of ``segment`` lies in the store ``folder``."""
    return folder / PARTS / f"{part_name(segment, unit)}.parquet"


def marker_path(part: Path) -> Path:
    """The marker beside ``part``."""
    return part.with_name(part.stem + MARKER_SUFFIX)


def is_store(folder: Path) -> bool:
    """Whether ``folder`` is one that melcodec preprocess wrote, or began to."""
    return (folder / RUN).is_file()


def parts(folder: Path) -> list[Path]:
    """The committed parts of the store ``folder``, sorted: those with a marker.

    Raises:
        MelcodecError: not a store.
    """
    read_spec(folder)
    return marked_parts(folder)


def marked_parts(folder: Path) -> list[Path]:
    """What has a marker among the parts of ``folder``, sorted, whether or not there is a run specification."""
    return sorted(path for path in (folder / PARTS).glob("[0-9]*.parquet") if marker_path(path).is_file())


def read_spec(folder: Path) -> dict[str, Any]:
    """The run specification of the store ``folder``.

    Raises:
        MelcodecError: no such folder, not a store, damaged, or from a newer melcodec.
    """
    path = folder / RUN
    if not path.is_file():
        hint = "run melcodec preprocess again as before: it restores the file"
        if not marked_parts(folder):
            hint = "melcodec preprocess makes one"
        raise MelcodecError(f"{folder}: not a folder of codes: it has no {RUN}", hint, "missing")
    spec = read_json(path, RESTORE)
    if spec.get("format") != FORMAT:
        raise MelcodecError(f"{path}: not a run of melcodec preprocess")
    spec = upgraded(spec)
    if spec.get("version") != VERSION:
        raise MelcodecError(
            f"{folder}: written by a newer melcodec (version {spec.get('version')})", "pip install --upgrade melcodec"
        )
    mel, sizes = spec.get("mel"), spec.get("sizes")
    numbers = {key: spec.get(key) for key in COUNTS} | {
        "mel.hop_length": mel.get("hop_length") if isinstance(mel, dict) else None
    }
    numbers |= (
        {f"sizes[{book}]": size for book, size in enumerate(sizes)} if isinstance(sizes, list) and sizes else {"sizes": None}
    )
    if wrong := [key for key, value in numbers.items() if not isinstance(value, int) or value < 1]:
        raise MelcodecError(f"{path}: damaged: {', '.join(wrong)} should be a positive number", RESTORE, "damaged")
    if not isinstance(spec.get("fingerprint"), str):
        raise MelcodecError(f"{path}: damaged: it lacks the fingerprint", RESTORE, "damaged")
    return spec


def upgraded(spec: dict[str, Any]) -> dict[str, Any]:
    """``spec`` as it would be written now: version 1 had one ``codebook_size`` for all ``num_codebooks``."""
    if spec.get("version") != 1:
        return spec
    size, books = spec.get("codebook_size"), spec.get("num_codebooks")
    kept = {key: value for key, value in spec.items() if key not in ("codebook_size", "num_codebooks")}
    return {**kept, "version": VERSION, "sizes": [size] * books if isinstance(books, int) else None}


def read_marker(part: Path) -> dict[str, Any]:
    """What the marker of ``part`` says; raises MelcodecError when it is missing or damaged."""
    return read_json(marker_path(part))


def read_json(path: Path, cure: str | None = None) -> dict[str, Any]:
    """The JSON object in ``path``; MelcodecError when there is none, with ``cure`` as its hint when it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise MelcodecError(f"{path}: damaged: not JSON", cure, "damaged") from None
    if not isinstance(found, dict):
        raise MelcodecError(f"{path}: damaged: not a JSON object", cure, "damaged")
    return found
