"""Every form of export, read back as its users read it; the same bytes each time; nothing lost when it fails."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import sys
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from melcodec.errors import MelcodecError
from melcodec.store import layout
from melcodec.store.codes import load_codes
from melcodec.store.export import FORMS, Exported, export, file_key
from melcodec.store.numbering import TokenForm
from melcodec.store.parquet import Row
from melcodec.tokens import Tokens
from tests import forked
from tests.stores import make_store, speech_rows


@pytest.fixture(scope="module")
def speech(tiny_checkpoint, examples):
    return speech_rows(tiny_checkpoint, examples)


@pytest.fixture(scope="module")
def folder(speech, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "codes", *speech)


@pytest.fixture(scope="module")
def rows(speech):
    """Those that have codes."""
    return [row for row in speech[0] if row.codes is not None]


@pytest.fixture
def wide(speech, tmp_path):
    """A store with Q = 2, of K = 1,024 and 300: rows and folder."""
    random, sizes = np.random.default_rng(0), [1024, 300]
    rows = [Row(f"a/{index}", np.stack([random.integers(0, size, 3 + index) for size in sizes]), 100) for index in range(5)]
    return rows, make_store(tmp_path / "wide", rows, speech[1] | {"sizes": sizes})


def index_of(out):
    return [json.loads(line) for line in (out / "index.jsonl").read_text(encoding="utf-8").splitlines()]


def digests(out):
    files = (path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_store_gives_the_same_bytes(folder, tmp_path, form):
    assert export(folder, tmp_path / "out", form) == Exported(form, 24, 2)
    first = digests(tmp_path / "out")
    assert export(folder, tmp_path / "out", form, overwrite=True) == Exported(form, 24, 2)
    assert digests(tmp_path / "out") == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    facts = json.loads((tmp_path / "out/melcodec.json").read_text())
    assert (facts["format"], facts["utterances"], facts["left_out"]) == (f"melcodec export {form}", 24, 2)
    assert facts["run"] == layout.read_spec(folder)


def test_npy(folder, rows, tmp_path):
    export(folder, tmp_path / "out", "npy")
    for row, facts in zip(rows, index_of(tmp_path / "out"), strict=True):
        path = tmp_path / "out" / facts["file"]
        assert path == tmp_path / "out" / f"{row.id}.npy"
        assert np.load(path).dtype == np.uint8  # K = 32
        assert np.array_equal(load_codes(path).codes, row.codes)
        assert (facts["id"], facts["num_samples"], facts["speaker"]) == (row.id, row.num_samples, row.speaker)
        assert facts.get("text", "") == row.text
        assert (facts["num_codebooks"], facts["num_codes"]) == row.codes.shape
    assert len(list((tmp_path / "out").rglob("*.npy"))) == 24


def test_npy_of_large_codebooks(wide, tmp_path):
    export(wide[1], tmp_path / "out", "npy")
    found = np.load(tmp_path / "out/a/4.npy")
    assert (found.dtype, found.shape) == (np.uint16, (2, 7))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a/b c/ü.x", "a/b c/ü.x"),
        ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
        ("/a//b/.", "%/a/%/b/%2E"),
        ("100%/a\n", "100%25/a%0A"),
    ],
)
def test_keys_stay_below_their_folder(name, key):
    assert file_key(name) == key


@pytest.mark.parametrize("form", ["npy", "lhotse", "webdataset"])
def test_ids_that_no_file_can_have(speech, tmp_path, form):
    row = next(row for row in speech[0] if row.codes is not None)
    names = ["../out of it", "/root/x", "a//b", "..", "x\0y", "x" * 300]
    strange = [dataclasses.replace(row, id=name) for name in names[:-1]]
    folder = make_store(tmp_path / "codes", strange, speech[1])
    assert export(folder, tmp_path / "out", form).utterances == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes", "out"]
    folder = make_store(tmp_path / "codes", [*strange, dataclasses.replace(row, id=names[-1])], speech[1])
    with pytest.raises(MelcodecError, match=r"xxx\.\.\.: too long an id"):
        export(folder, tmp_path / "more", form)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes", "out"]


def test_bin(folder, rows, tmp_path):
    export(folder, tmp_path / "out", "bin")
    codes = np.memmap(tmp_path / "out/codes.bin", "<u2", "r")
    offsets = np.fromfile(tmp_path / "out/offsets.bin", "<i8")
    index = index_of(tmp_path / "out")
    assert (len(offsets), offsets[0], offsets[-1]) == (25, 0, len(codes))
    for row, facts, start, stop in zip(rows, index, offsets[:-1], offsets[1:], strict=True):
        assert facts["id"] == row.id
        assert np.array_equal(codes[start:stop], row.codes[0])


def test_bin_keeps_the_codebooks_of_a_code_together(wide, tmp_path):
    rows, folder = wide
    export(folder, tmp_path / "out", "bin")
    codes = np.fromfile(tmp_path / "out/codes.bin", "<u2")
    offsets = np.fromfile(tmp_path / "out/offsets.bin", "<i8")
    for row, start, stop in zip(rows, offsets[:-1], offsets[1:], strict=True):
        assert np.array_equal(codes[start:stop].reshape(-1, 2).T, row.codes)


def test_webdataset(folder, rows, tmp_path):
    export(folder, tmp_path / "out", "webdataset", shard_size=9)
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in shards] == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    members = []
    for path, count in zip(shards, [9, 9, 6], strict=True):
        with tarfile.open(path) as tar:
            found = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]
        assert len(found) == 2 * count
        members += found
    assert {(member.mtime, member.uid, member.uname, member.mode) for member, _ in members} == {(0, 0, "", 0o644)}
    for row, (npy, content), (side, facts) in zip(rows, members[::2], members[1::2], strict=True):
        assert (npy.name, side.name) == (f"{row.id.replace('.', '%2E')}.npy", f"{row.id.replace('.', '%2E')}.json")
        assert np.array_equal(np.load(io.BytesIO(content)), row.codes)
        assert json.loads(facts)["id"] == row.id
        assert json.loads(facts).get("text", "") == row.text


def test_huggingface(folder, rows, tmp_path):
    export(folder, tmp_path / "out", "huggingface", shard_size=20)
    parts = sorted((tmp_path / "out/data").iterdir())
    assert [path.name for path in parts] == ["train-00000.parquet", "train-00001.parquet"]
    tables = [pq.read_table(path).to_pylist() for path in parts]
    assert [len(table) for table in tables] == [20, 4]
    for row, entry in zip(rows, tables[0] + tables[1], strict=True):
        assert np.array_equal(np.array(entry["codes"]), row.codes)
        assert (entry["id"], entry["num_samples"], entry["duration"]) == (row.id, row.num_samples, row.duration)
        assert (entry["text"] or "", entry["language"], entry["num_codes"]) == (row.text, row.language, row.codes.shape[1])
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\nconfigs:\n")
    assert f"fingerprint `{layout.read_spec(folder)['fingerprint']}`" in card
    assert "21.53 codes a second, of mono speech at 22050 Hz" in card


def test_lhotse(folder, rows, tmp_path):
    export(folder, tmp_path / "out", "lhotse")
    cuts = [json.loads(line) for line in gzip.open(tmp_path / "out/cuts.jsonl.gz", "rt", encoding="utf-8")]
    for row, cut in zip(rows, cuts, strict=True):
        array = cut["custom"]["codes"]["array"]
        found = np.load(f"{array['storage_path']}/{array['storage_key']}")
        assert np.array_equal(found.T, row.codes)
        assert array["shape"] == list(found.shape)
        assert cut["duration"] == pytest.approx(found.shape[0] * 1024 / 22_050)
        assert cut["supervisions"][0].get("text", "") == row.text
        assert (cut["id"], cut["supervisions"][0]["speaker"]) == (row.id, row.speaker)
        assert cut["custom"]["num_samples"] == row.num_samples


OTHERS = {
    "huggingface": ("datasets", """
import datasets
for item in datasets.load_dataset(out, split="train", cache_dir=out + ".cache"):
    print(json.dumps([item["id"], item["codes"]]))
"""),
    "lhotse": ("lhotse", """
import lhotse
cuts = lhotse.CutSet.from_file(out + "/cuts.jsonl.gz")
for cut in cuts:
    codes = cut.load_codes()
    print(json.dumps([cut.id, codes.T.tolist()]))
    half = cut.truncate(duration=cut.duration / 2).load_codes()
    assert abs(len(half) - len(codes) / 2) <= 1 and (half == codes[: len(half)]).all()
"""),
    "webdataset": ("webdataset", """
import glob, webdataset
for item in webdataset.WebDataset(sorted(glob.glob(out + "/*.tar")), shardshuffle=False).decode():
    print(json.dumps([item["json"]["id"], item["npy"].tolist()]))
"""),
}  # fmt: skip


@pytest.mark.parametrize("form", OTHERS)
def test_the_packages_themselves_read_it(folder, rows, tmp_path, form):
    package, script = OTHERS[form]
    pytest.importorskip(package)
    export(folder, tmp_path / "out", form, shard_size=10)
    command = [sys.executable, "-c", f"import json, sys\nout = sys.argv[1]\n{script}", str(tmp_path / "out")]
    done = forked.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines == [[row.id, row.codes.tolist()] for row in rows]


def test_what_exists_must_stay(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export(folder, out, "bin")  # an empty folder may be filled
    with pytest.raises(MelcodecError, match="exists already and is not empty"):
        export(folder, out, "npy")
    assert (out / "codes.bin").is_file()
    export(folder, out, "npy", overwrite=True)
    assert not (out / "codes.bin").exists()
    (out / "melcodec.json").unlink()
    with pytest.raises(MelcodecError, match="is not an export of melcodec, and is not replaced"):
        export(folder, out, "npy", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(MelcodecError, match="is a file"):
        export(folder, tmp_path / "file", "npy", overwrite=True)
    for place in (folder, folder.parent):
        with pytest.raises(MelcodecError, match="the codes themselves are in this folder"):
            export(folder, place, "npy", overwrite=True)
    with pytest.raises(MelcodecError, match="zip: not a format of export"):
        export(folder, tmp_path / "new", "zip")


def test_a_link_to_a_folder_stays_one(folder, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    export(folder, tmp_path / "out", "bin")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk/codes.bin").is_file()


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_part_leaves_what_was_there(speech, tmp_path, form):
    folder = make_store(tmp_path / "codes", *speech)
    export(folder, tmp_path / "out", form)
    before = digests(tmp_path / "out")
    part = layout.part_path(folder, 0, 2)
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(MelcodecError, match=r"0000-00002\.parquet: damaged"):
        export(folder, tmp_path / "out", form, overwrite=True)
    assert digests(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes", "out"]


def test_progress_is_told(folder, tmp_path):
    told = []
    export(folder, tmp_path / "out", "bin", update=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_nothing_committed(folder, speech, tmp_path):
    empty = make_store(tmp_path / "codes", [], speech[1])
    for form in FORMS:
        assert export(empty, tmp_path / form, form) == Exported(form, 0, 0)


def test_tokens(folder, rows, tmp_path):
    export(folder, tmp_path / "out", "tokens", numbering=TokenForm(offset=70_000))
    facts = json.loads((tmp_path / "out/melcodec.json").read_text())["tokens"]
    assert facts == {
        **{"begin": 70_032, "end": 70_033, "pad": 70_034, "vocabulary": 70_035, "pattern": "flat", "offset": 70_000, "width": 1},
        **{"dtype": "uint32", "runs": False},
    }
    tokens = np.fromfile(tmp_path / "out/tokens.bin", "<u4")
    offsets = np.fromfile(tmp_path / "out/offsets.bin", "<i8")
    assert len(offsets) == len(rows) + 1
    assert offsets[-1] == len(tokens)
    for row, begin, end in zip(rows, offsets, offsets[1:], strict=False):
        assert tokens[begin:end].tolist() == [70_032, *(70_000 + row.codes[0].astype(int)).tolist(), 70_033]


def test_tokens_of_runs(folder, rows, tmp_path):
    export(folder, tmp_path / "out", "tokens", numbering=TokenForm(runs=True))
    tokens, durations = np.fromfile(tmp_path / "out/tokens.bin", "<u2"), np.fromfile(tmp_path / "out/durations.bin", "<u4")
    offsets = np.fromfile(tmp_path / "out/offsets.bin", "<i8")
    assert len(tokens) == len(durations) < sum(row.codes.shape[1] + 2 for row in rows)
    begin, end = offsets[0] + 1, offsets[1] - 1
    assert np.array_equal(np.repeat(tokens[begin:end], durations[begin:end]), rows[0].codes[0])


def test_tokens_of_several_codebooks(wide, tmp_path):
    rows, store = wide
    for pattern in ("flat", "delay"):
        export(store, tmp_path / pattern, "tokens", numbering=TokenForm(pattern=pattern))
        numbers = Tokens((1024, 300), pattern)
        tokens = np.fromfile(tmp_path / pattern / "tokens.bin", "<u2")
        offsets = np.fromfile(tmp_path / pattern / "offsets.bin", "<i8")
        assert tokens[: offsets[1]].tolist() == numbers.sequence(rows[0].codes).ravel().tolist()
    with pytest.raises(MelcodecError, match="for one codebook"):
        export(store, tmp_path / "runs", "tokens", numbering=TokenForm(runs=True))
