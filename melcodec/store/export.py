"""A folder of codes in the forms that others read. Part by part, aside, then renamed; the same store gives the same bytes.

    npy           ID.npy, (Q, N) in the smallest unsigned type that holds K, and index.jsonl
    bin           codes.bin: all codes in a row, uint16, little-endian, code by code (for Q > 1: the Q of a code together);
                  offsets.bin: int64, where each utterance starts, and the end; index.jsonl
    tokens        tokens.bin: numbers for a language model as ``melcodec.tokens`` gives them, each utterance from begin to end;
                  uint16 or uint32, little-endian; offsets.bin and index.jsonl as in bin; with runs also durations.bin, uint32
    webdataset    shard-000000.tar ...: KEY.npy, (Q, N), and KEY.json
    huggingface   data/train-00000.parquet ... and a README.md that says so: datasets.load_dataset("out/")
    lhotse        cuts.jsonl.gz and codes/KEY.npy, (N, Q): CutSet.from_file(...), cut.load_codes(); no recordings

Utterances without codes are left out. Ids keep their tree; what a file name or key cannot hold is written ``%2E``, and the
index says the id. Every export has a ``melcodec.json``: the run specification, the form and the count.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from melcodec.errors import MelcodecError
from melcodec.store import layout, parquet
from melcodec.store.codes import smallest_unsigned
from melcodec.store.numbering import Numbering, TokenForm
from melcodec.store.parquet import Row

FACTS = "melcodec.json"
SHARD_SIZE = 10_000  # utterances: 25 MB of tar, 5 MB of Parquet at ten seconds each
MAX_NAME = 200  # bytes of one part of a path; systems allow 255, and a suffix follows
HUGGINGFACE_BATCH = 1024  # rows written at once


@dataclass(frozen=True)
class Exported:
    """What was exported: the form and how many utterances; ``left_out`` had no codes."""

    form: str
    utterances: int
    left_out: int


def export(
    folder: Path,
    output: Path,
    form: str,
    overwrite: bool = False,
    shard_size: int = SHARD_SIZE,
    update: Callable[[int, int], None] = lambda done, total: None,
    numbering: TokenForm | None = None,
) -> Exported:
    """Write the committed utterances of ``folder`` to the folder ``output``.

    Args:
        form: one of ``FORMS``.
        overwrite: replace ``output`` when it is an earlier export.
        shard_size: utterances per file, for webdataset and huggingface.
        update: told how many parts of how many are done.
        numbering: for the form tokens.

    Raises:
        MelcodecError: not a folder of codes, a damaged part, an unknown form, or ``output`` exists and must stay.
    """
    if form not in FORMS:
        raise MelcodecError(f"{form}: not a format of export", f"use one of {', '.join(FORMS)}")
    spec, paths = layout.read_spec(folder), layout.parts(folder)
    output = output.resolve()  # a link stays one
    _check(folder.resolve(), output, overwrite)
    counts = {"utterances": 0, "left_out": 0}

    def rows() -> Iterator[Row]:
        for done, path in enumerate(paths, start=1):
            for row in parquet.read_rows(path):
                counts["left_out" if row.codes is None else "utterances"] += 1
                if row.codes is not None:
                    yield row
            update(done, len(paths))

    with _folder_aside(output) as aside:
        sizes = tuple(spec["sizes"])
        target = _Target(spec, output, shard_size, Numbering(sizes, numbering or TokenForm()))
        FORMS[form](rows(), aside, target)
        facts: dict[str, Any] = {"format": f"melcodec export {form}", **counts, "run": spec}
        if form == "tokens":
            facts["tokens"] = target.numbering.facts
        (aside / FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return Exported(form, **counts)


@dataclass(frozen=True)
class _Target:
    """What a writer needs to know beside the rows; ``final`` is where its folder will be."""

    spec: dict[str, Any]
    final: Path
    shard_size: int
    numbering: Numbering

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds K."""
        return smallest_unsigned(max(self.spec["sizes"]))

    @property
    def seconds_per_code(self) -> float:
        """46.4 ms for XTTS."""
        return self.spec["samples_per_code"] / self.spec["sample_rate"]


def _check(folder: Path, output: Path, overwrite: bool) -> None:
    """Refuse an output that would destroy something; -f must not replace a folder that melcodec did not export."""
    if output == folder or output in folder.parents:
        raise MelcodecError(f"{output}: the codes themselves are in this folder", "give another place with -o")
    if output.exists() and not output.is_dir():
        raise MelcodecError(f"{output}: is a file; an export is a folder")
    if os.path.ismount(output):
        raise MelcodecError(f"{output}: a disk is mounted there, and cannot be renamed into place", f"give {output}/codes")
    if not output.exists() or not any(output.iterdir()):
        return
    if not overwrite:
        raise MelcodecError(f"{output}: exists already and is not empty", "add -f to replace it")
    if not (output / FACTS).is_file():
        raise MelcodecError(f"{output}: is not an export of melcodec, and is not replaced", "delete it, or give another place")


@contextmanager
def _folder_aside(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that becomes it when the block ends well, and goes when it does not."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:32]}.", dir=output.parent) as name:
        aside = Path(name) / "new"
        aside.mkdir()
        yield aside
        if output.exists():
            output.replace(Path(name) / "old")
        aside.replace(output)


def file_key(name: str) -> str:
    """``name`` as a relative path that stays below its folder: no ``.``, ``..``, empty or overlong parts."""
    return "/".join(_safe(part) for part in name.split("/"))


def _safe(part: str) -> str:
    text = "".join(f"%{ord(char):02X}" if char in "%\x7f" or ord(char) < 32 else char for char in part)
    if text.strip(".") == "":
        text = text.replace(".", "%2E") or "%"
    if len(text.encode()) > MAX_NAME:
        raise MelcodecError(f"{part[:60]}...: too long an id for a file name", "export to bin or huggingface")
    return text


def facts_of(row: Row) -> dict[str, Any]:
    """What is known about ``row`` beside its codes, as JSON values; what is not known is left out."""
    known = {name: getattr(row, name) for name in parquet.PLAIN if name not in ("status", "error")}
    codes = row.codes
    shape = {} if codes is None else {"num_codebooks": codes.shape[0], "num_codes": codes.shape[1]}
    return {name: value for name, value in {**known, **shape}.items() if value not in (None, "")}


def _line(facts: dict[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False) + "\n"


def _npy_bytes(codes: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, codes, allow_pickle=False)
    return buffer.getvalue()


def _write_npy(rows: Iterator[Row], folder: Path, target: _Target) -> None:
    with (folder / "index.jsonl").open("w", encoding="utf-8") as index:
        for row in rows:
            key = file_key(row.id)
            _save(folder / f"{key}.npy", _codes(row).astype(target.dtype))
            index.write(_line({**facts_of(row), "file": f"{key}.npy"}))


def _write_bin(rows: Iterator[Row], folder: Path, target: _Target) -> None:
    with ExitStack() as files:
        codes, offsets = (files.enter_context((folder / name).open("wb")) for name in ("codes.bin", "offsets.bin"))
        index = files.enter_context((folder / "index.jsonl").open("w", encoding="utf-8"))
        position = 0
        offsets.write(np.array(position, "<i8").tobytes())
        for row in rows:
            flat = _codes(row).T.astype("<u2").reshape(-1)
            codes.write(flat.tobytes())
            position += len(flat)
            offsets.write(np.array(position, "<i8").tobytes())
            index.write(_line(facts_of(row)))


def _write_tokens(rows: Iterator[Row], folder: Path, target: _Target) -> None:
    names, position = ("tokens.bin", "offsets.bin", *(("durations.bin",) if target.numbering.form.runs else ())), 0
    with ExitStack() as files:
        out, offsets, *lasting = (files.enter_context((folder / name).open("wb")) for name in names)
        index = files.enter_context((folder / "index.jsonl").open("w", encoding="utf-8"))
        offsets.write(np.array(position, "<i8").tobytes())
        for row in rows:
            tokens, durations = target.numbering.flat(_codes(row))
            out.write(tokens.tobytes())
            if durations is not None:
                lasting[0].write(durations.tobytes())
            position += len(tokens)
            offsets.write(np.array(position, "<i8").tobytes())
            index.write(_line(facts_of(row)))


def _write_webdataset(rows: Iterator[Row], folder: Path, target: _Target) -> None:
    for number, shard in enumerate(_shards(rows, target.shard_size)):
        with tarfile.open(folder / f"shard-{number:06d}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for row in shard:
                key = file_key(row.id).replace(".", "%2E")  # a key ends at its first dot
                _add(tar, f"{key}.npy", _npy_bytes(_codes(row).astype(target.dtype)))
                _add(tar, f"{key}.json", json.dumps(facts_of(row), ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # mode 644, and neither a time nor an owner
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


HUGGINGFACE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("codes", pa.list_(pa.list_(pa.uint16()))),
        *(parquet.SCHEMA.field(name) for name in ("num_codes", "num_samples", "source_rate", "duration")),
        *(parquet.SCHEMA.field(name) for name in ("source", "speaker", "language", "text")),
    ]
)
CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# Speech codes

Written by `melcodec corpus export --to huggingface`. Column `codes` is (Q, N): {books} codebook(s) of {sizes} entries,
{rate:.2f} codes a second, of mono speech at {sample_rate} Hz. Checkpoint {checkpoint}, fingerprint `{fingerprint}`:
only a checkpoint with this fingerprint decodes them. `num_samples` is the length at {sample_rate} Hz.

    dataset = datasets.load_dataset("FOLDER", split="train")
    codes = numpy.array(dataset[0]["codes"])                    # (Q, N)
    wave = melcodec.load("CHECKPOINT").decode(codes, dataset[0]["num_samples"])
"""


def _write_huggingface(rows: Iterator[Row], folder: Path, target: _Target) -> None:
    (folder / "data").mkdir()
    for number, shard in enumerate(_shards(rows, target.shard_size)):
        path = folder / "data" / f"train-{number:05d}.parquet"
        with pq.ParquetWriter(path, HUGGINGFACE_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
            for batch in _shards(shard, HUGGINGFACE_BATCH):
                entries = [{**facts_of(row), "codes": list(_codes(row))} for row in batch]
                writer.write_table(pa.Table.from_pylist(entries, HUGGINGFACE_SCHEMA))
    spec = target.spec
    card = CARD.format(
        books=len(spec["sizes"]), sizes=", ".join(map(str, spec["sizes"])), rate=1 / target.seconds_per_code,
        sample_rate=spec["sample_rate"], checkpoint=spec.get("checkpoint"), fingerprint=spec["fingerprint"],
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")


def _write_lhotse(rows: Iterator[Row], folder: Path, target: _Target) -> None:
    # lhotse cuts arrays along their first axis, which is therefore time; it needs the places of the files, so that
    # a folder that is moved must be exported again
    with (folder / "cuts.jsonl.gz").open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as cuts:
        for row in rows:
            key = file_key(row.id)
            codes = np.ascontiguousarray(_codes(row).T.astype(target.dtype))
            _save(folder / "codes" / f"{key}.npy", codes)
            cuts.write(_line(_cut(row, key, codes.shape, target)).encode())


def _cut(row: Row, key: str, shape: tuple[int, ...], target: _Target) -> dict[str, Any]:
    """A lhotse MonoCut; it lasts as long as its N codes, since lhotse would round the sound's length to fewer."""
    duration = round(shape[0] * target.seconds_per_code, 8)
    array = {
        "storage_type": "numpy_files", "storage_path": str(target.final / "codes"), "storage_key": f"{key}.npy",
        "shape": list(shape),
    }  # fmt: skip
    known = {"speaker": row.speaker, "language": row.language, "text": row.text}
    supervision = {"id": row.id, "recording_id": row.id, "start": 0.0, "duration": duration, "channel": 0}
    custom = {name: value for name, value in facts_of(row).items() if name in ("num_samples", "source_rate", "source")}
    custom["sampling_rate"] = target.spec["sample_rate"]  # a recording would say it; lhotse needs it to truncate a cut
    temporal = {"array": array, "temporal_dim": 0, "frame_shift": target.seconds_per_code, "start": 0.0}
    return {
        "id": row.id,
        "start": 0.0,
        "duration": duration,
        "channel": 0,
        "supervisions": [supervision | {name: value for name, value in known.items() if value}],
        "custom": custom | {"codes": temporal},
        "type": "MonoCut",
    }


FORMS: dict[str, Callable[[Iterator[Row], Path, _Target], None]] = {
    "npy": _write_npy,
    "bin": _write_bin,
    "tokens": _write_tokens,
    "webdataset": _write_webdataset,
    "huggingface": _write_huggingface,
    "lhotse": _write_lhotse,
}


def _shards(rows: Iterable[Row], size: int) -> Iterator[Iterator[Row]]:
    """``rows`` in groups of ``size``, none held; each group must be used up before the next."""
    rows = iter(rows)
    for first in rows:
        yield chain([first], islice(rows, size - 1))


def _codes(row: Row) -> np.ndarray:
    """(Q, N) uint16 of a row that has codes."""
    assert row.codes is not None
    return row.codes


def _save(path: Path, codes: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:  # two ids that would be one file are an error
        np.save(file, codes, allow_pickle=False)
