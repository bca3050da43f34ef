"""The store of codes: rows in, the same rows out; the same bytes; damage is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from melcodec.errors import MelcodecError
from melcodec.store import layout, parquet
from melcodec.store.parquet import Row
from tests.stores import make_store, speech_rows


@pytest.fixture(scope="module")
def speech(tiny_checkpoint, examples):
    return speech_rows(tiny_checkpoint, examples)


def same(one, other):
    """Whether two rows are equal, codes included."""
    if (one.codes is None) != (other.codes is None) or (one.codes is not None and not np.array_equal(one.codes, other.codes)):
        return False
    return all(getattr(one, name) == getattr(other, name) for name in parquet.PLAIN)


def test_rows_come_back(tmp_path, speech):
    rows, spec = speech
    parquet.write_part(tmp_path / "p.parquet", rows, spec)
    again = list(parquet.read_rows(tmp_path / "p.parquet"))
    assert len(again) == len(rows) == 26
    assert all(map(same, rows, again))
    assert {row.codes.dtype for row in again if row.codes is not None} == {np.dtype(np.uint16)}
    assert parquet.part_spec(tmp_path / "p.parquet") == spec


def test_rows_come_back_from_several_row_groups(tmp_path, speech, monkeypatch):
    rows, spec = speech
    monkeypatch.setattr(parquet, "ROW_GROUP", 4)
    parquet.write_part(tmp_path / "p.parquet", rows, spec)
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups == 7
    assert all(map(same, rows, parquet.read_rows(tmp_path / "p.parquet")))


@pytest.mark.parametrize("books", [1, 2, 8])
def test_several_codebooks(tmp_path, books):
    codes = np.arange(books * 5, dtype=np.int64).reshape(books, 5) * (65_535 // (books * 5 - 1))
    parquet.write_part(tmp_path / "p.parquet", [Row("a", codes), Row("b", status="nan"), Row("c", codes[:, :1])], {})
    first, second, third = parquet.read_rows(tmp_path / "p.parquet")
    assert np.array_equal(first.codes, codes)
    assert second.codes is None
    assert third.codes.shape == (books, 1)
    table = parquet.read_part(tmp_path / "p.parquet")
    assert table.column("num_codebooks").to_pylist() == [books, None, books]
    assert table.column("num_codes").to_pylist() == [5, None, 1]
    assert table.column("codes").to_pylist()[0] == codes.reshape(-1).tolist()  # row by row


def test_the_same_rows_give_the_same_bytes(tmp_path, speech):
    rows, spec = speech
    digests = [parquet.write_part(tmp_path / name, rows, dict(sorted(spec.items(), reverse=name == "b"))) for name in "ab"]
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert digests == [hashlib.sha256(content).hexdigest()] * 2
    other = [dataclasses.replace(rows[0], text="another"), *rows[1:]]
    assert parquet.write_part(tmp_path / "c", other, spec) not in digests


def test_the_file_is_as_promised(tmp_path, speech):
    rows, spec = speech
    parquet.write_part(tmp_path / "p.parquet", rows, spec)
    meta = pq.ParquetFile(tmp_path / "p.parquet").metadata
    columns = [meta.row_group(0).column(index) for index in range(meta.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    assert [column.path_in_schema.partition(".")[0] for column in columns] == parquet.SCHEMA.names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.parquet"]  # nothing aside is left


def test_codes_take_little_more_than_their_bits(tmp_path):
    """1,000 utterances of evenly drawn codes, the worst case: 10 bits each and a little."""
    random = np.random.default_rng(0)
    rows = [Row(f"a/{index}", random.integers(0, 1024, (1, 200)), 204_000, 22_050, 9.25) for index in range(1000)]
    parquet.write_part(tmp_path / "p.parquet", rows, {})
    assert (tmp_path / "p.parquet").stat().st_size * 8 < 10.6 * 200_000


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        (np.zeros(4, np.uint16), r"shape \(4,\)"),
        (np.zeros((1, 4), np.float32), "type float32"),
        (np.array([[0, 65_536]]), "outside 0 .. 65535"),
        (np.array([[-1, 0]]), "outside 0 .. 65535"),
    ],
)
def test_what_are_no_codes(tmp_path, codes, reason):
    with pytest.raises(MelcodecError, match=f"^a: codes .*{reason}"):
        parquet.write_part(tmp_path / "p.parquet", [Row("a", codes)], {})
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_utf8(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    parquet.write_part(tmp_path / "p.parquet", [Row(name, source=name, status="crash")], {})
    (row,) = parquet.read_rows(tmp_path / "p.parquet")
    assert row.id == row.source == parquet.storable(name) == r"caf\udce9"


def test_columns_that_are_asked_for(tmp_path, speech):
    rows, spec = speech
    parquet.write_part(tmp_path / "p.parquet", rows, spec)
    assert parquet.read_part(tmp_path / "p.parquet", ["status", "id"]).column_names == ["id", "status"]


def test_every_page_is_checked(tmp_path, speech):
    """Turn one byte in every page's data: reading the column must say so."""
    rows, spec = speech
    path = tmp_path / "p.parquet"
    parquet.write_part(path, rows, spec)
    whole, meta = path.read_bytes(), pq.ParquetFile(path).metadata.row_group(0)
    for index in range(meta.num_columns):
        column = meta.column(index)
        last = column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
        last += column.total_compressed_size - 1  # the end of the last page's data
        path.write_bytes(whole[:last] + bytes([whole[last] ^ 1]) + whole[last + 1 :])
        with pytest.raises(MelcodecError, match=r"p\.parquet: damaged \(.*CRC"):
            parquet.read_part(path)
        with pytest.raises(MelcodecError, match="CRC"):
            list(parquet.read_rows(path))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda whole: whole[: len(whole) // 2], "damaged"),
        (lambda whole: b"", "damaged"),
        (lambda whole: b"PAR1 but not really", "damaged"),
        (lambda whole: whole[:-20] + bytes(20), "damaged"),
    ],
)
def test_damaged_files(tmp_path, speech, damage, reason):
    path = tmp_path / "p.parquet"
    parquet.write_part(path, *speech)
    path.write_bytes(damage(path.read_bytes()))
    for read in (parquet.read_part, parquet.part_spec, lambda path: list(parquet.read_rows(path))):
        with pytest.raises(MelcodecError, match=rf"p\.parquet: {reason}"):
            read(path)


def test_other_parquet_files(tmp_path):
    import pyarrow as pa

    with pytest.raises(MelcodecError, match=r"missing\.parquet: no such file"):
        parquet.read_part(tmp_path / "missing.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(MelcodecError, match="not the columns of a part"):
        parquet.read_part(tmp_path / "other.parquet")
    pq.write_table(parquet.table_of([Row("a", status="nan")]), tmp_path / "bare.parquet")
    with pytest.raises(MelcodecError, match="not a part that melcodec wrote"):
        parquet.part_spec(tmp_path / "bare.parquet")


def test_names_come_from_the_plan(tmp_path):
    assert layout.part_name(0, 17) == "0000-00017"
    part = layout.part_path(tmp_path, 3, 123_456)
    assert part == tmp_path / "parts/0003-123456.parquet"
    assert layout.marker_path(part) == tmp_path / "parts/0003-123456.done.json"


def test_only_parts_with_a_marker_count(tmp_path, speech):
    folder = make_store(tmp_path / "codes", *speech)
    (folder / "parts/.0000-00009.abc.parquet").write_bytes(b"half")
    assert [path.name for path in layout.parts(folder)] == ["0000-00000.parquet", "0000-00001.parquet", "0000-00002.parquet"]
    layout.marker_path(layout.part_path(folder, 0, 1)).unlink()
    layout.part_path(folder, 0, 2).unlink()
    assert layout.parts(folder) == [folder / "parts/0000-00000.parquet"]
    assert layout.read_marker(layout.part_path(folder, 0, 0))["rows"] == 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "not a folder of codes: it has no run.json"),
        ("{", "damaged: not JSON"),
        ("[]", "not a JSON object"),
        ({"format": "something"}, "not a run of melcodec preprocess"),
        ({"version": 3}, r"newer melcodec \(version 3\)"),
        ({"mel": None}, r"damaged: mel\.hop_length should be a positive number"),
        ({"mel": {"hop": 256}}, r"damaged: mel\.hop_length should"),
        ({"sample_rate": "22050", "sizes": [32, 0]}, r"damaged: sample_rate, sizes\[1\] should"),
        ({"fingerprint": None}, "it lacks the fingerprint"),
    ],
)
def test_folders_that_are_no_stores(tmp_path, speech, change, reason):
    spec = speech[1]
    if isinstance(change, dict):
        changed = {key: value for key, value in (spec | change).items() if value is not None}
        change = json.dumps(changed)
    if change is not None:
        (tmp_path / "run.json").write_text(change)
    for read in (layout.read_spec, layout.parts):
        with pytest.raises(MelcodecError, match=reason):
            read(tmp_path)


def test_finding_one_row(tmp_path, speech, monkeypatch):
    rows, spec = speech
    monkeypatch.setattr(parquet, "ROW_GROUP", 3)
    folder = make_store(tmp_path / "codes", rows, spec)
    for row in rows:
        assert same(parquet.find_row(folder, row.id), row)
    with pytest.raises(MelcodecError, match="holds no utterance 'lj_en'"):
        parquet.find_row(folder, "lj_en")
    layout.marker_path(layout.part_path(folder, 0, 2)).unlink()
    with pytest.raises(MelcodecError, match="holds no utterance"):
        parquet.find_row(folder, rows[-1].id)


def test_the_store_needs_no_torch(run_python):
    script = "import sys; from melcodec.store import export, info, layout, parquet, verify; print('torch' in sys.modules)"
    assert run_python(script).strip() == "False"
