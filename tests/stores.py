"""Stores of real codes, written as preprocess writes them: run.json, a frozen plan, parts and markers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from melcodec.audio.io import load, probe
from melcodec.codec import Codec
from melcodec.store import layout, parquet
from melcodec.store.parquet import Row

PIECES = 6  # of each example: some of other lengths, so that batches have something to sort


def speech_rows(checkpoint, examples):
    """(rows, spec): the examples' pieces through the codec, with two rows that failed in between."""
    codec = Codec.from_pretrained(checkpoint, "cpu")
    rows = []
    for name, path in sorted(examples.items()):
        wave, rate = load(path, codec.sample_rate), probe(path).sample_rate
        for index in range(PIECES):
            piece = wave[: len(wave) * (index + 1) // PIECES]
            codes = codec.encode(piece)[0].numpy()
            facts = {"speaker": name.partition("_")[0], "language": name.split("_")[1], "text": "" if index else f"zin {name} ü"}
            seconds = len(piece) / codec.sample_rate
            rows.append(Row(f"{name}/{index}.a b", codes, len(piece), rate, seconds, str(path), **facts))
    for name, reason in [("lj_en/broken", "unreadable"), ("nathalie_nl/quiet", "silent")]:
        rows.append(Row(name, source=f"{name}.wav", status=reason, error=f"{name}.wav: {reason} it is"))
    spec = {
        "format": layout.FORMAT,
        "version": layout.VERSION,
        "melcodec": "0.1.0",
        "checkpoint": "tiny",
        "fingerprint": codec.fingerprint,
        "mel": {"hop_length": 256, "sample_rate": 22_050},
        "sizes": list(codec.sizes),
        "samples_per_code": codec.samples_per_code,
        "sample_rate": codec.sample_rate,
        "settings": {},
    }
    return sorted(rows, key=lambda row: row.id), spec


def make_store(folder: Path, rows: list[Row], spec: dict, unit_size: int = 10, segment: int = 0) -> Path:
    """Write ``rows`` as one segment of the store ``folder``, ``unit_size`` to a part."""
    (folder / layout.PARTS).mkdir(parents=True, exist_ok=True)
    (folder / layout.RUN).write_text(json.dumps(spec))
    units = [rows[start : start + unit_size] for start in range(0, len(rows), unit_size)]
    write_plan(folder, [(row.id, unit) for unit, members in enumerate(units) for row in members], segment)
    for unit, members in enumerate(units):
        write_unit(folder, unit, members, spec, segment)
    return folder


def write_plan(folder: Path, planned: list[tuple[str, int]], segment: int = 0) -> None:
    """The frozen plan: (id, unit) of each utterance."""
    home = folder / layout.SEGMENTS / f"{segment:04d}"
    home.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"id": name, "path": f"{name}.wav", "unit": unit}) + "\n" for name, unit in planned)
    (home / "plan.jsonl").write_text(lines, encoding="utf-8")
    facts = {"utterances": len(planned), "units": len({unit for _, unit in planned})}
    (home / "plan.json").write_text(json.dumps({"hash": hashlib.sha256(lines.encode()).hexdigest(), **facts}))


def write_unit(folder: Path, unit: int, rows: list[Row], spec: dict, segment: int = 0) -> Path:
    """A part and its marker."""
    part = layout.part_path(folder, segment, unit)
    digest = parquet.write_part(part, rows, spec)
    plan = json.loads((folder / layout.SEGMENTS / f"{segment:04d}" / "plan.json").read_text())
    done = [row for row in rows if row.codes is not None]
    counts = {"rows": len(rows), "ok": len(done), "errors": len(rows) - len(done)}
    codes, seconds = sum(row.codes.shape[1] for row in done), round(sum(row.duration or 0.0 for row in done), 3)
    marker = {"unit": unit, "plan_hash": plan["hash"], **counts, "codes": codes, "seconds": seconds, "sha256": digest}
    layout.marker_path(part).write_text(json.dumps(marker))
    return part
