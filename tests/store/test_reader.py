"""One reader for files, folders and stores: the same items, mixtures refused, and what older files say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.store import layout
from melcodec.store.codes import Codes, load_codes, save_codes, sizes_of
from melcodec.store.parquet import Row
from melcodec.store.reader import Origin, is_stored, read_codes, read_items
from tests.stores import make_store

SIZES = (300, 8, 20)  # Q = 3, each codebook of its own K


def codes(seed=0, num_codes=9):
    """(3, N) codes of codebooks of ``SIZES``."""
    random = np.random.default_rng(seed)
    return np.stack([random.integers(0, size, num_codes) for size in SIZES])


def spec(**changes):
    facts = {"format": layout.FORMAT, "version": layout.VERSION, "fingerprint": "0123456789ab", "sizes": list(SIZES)}
    return facts | {"samples_per_code": 1024, "sample_rate": 22_050, "mel": {"hop_length": 256}, "settings": {}} | changes


@pytest.fixture
def both(tmp_path):
    """The same three utterances as a folder of files and as a store."""
    rows = []
    for index, suffix in enumerate((".npz", ".safetensors", ".npz")):
        name = f"spk{index % 2}/utt{index}"
        facts = {"num_samples": 9_000, "source_rate": 16_000}
        save_codes(tmp_path / "files" / f"{name}{suffix}", Codes(codes(index), fingerprint="0123456789ab", sizes=SIZES, **facts))
        rows.append(Row(name, codes(index).astype(np.uint16), speaker=f"spk{index % 2}", language="nl", **facts))
    rows.append(Row("broken", status="unreadable", error="broken it is"))
    rows.sort(key=lambda row: row.id)
    return tmp_path / "files", make_store(tmp_path / "store", rows, spec(), unit_size=2)


def plain(item):
    known = item.codes
    return item.id, known.codes.tolist(), known.num_samples, known.source_rate, known.fingerprint, known.sizes


def test_a_folder_and_a_store_give_the_same_items(both):
    files, store = (list(read_items(path)) for path in both)
    assert [plain(item) for item in files] == [plain(item) for item in store]
    assert [item.id for item in store] == ["spk0/utt0", "spk0/utt2", "spk1/utt1"]
    assert [(item.speaker, item.language) for item in store] == [("spk0", "nl"), ("spk0", "nl"), ("spk1", "nl")]
    (single,) = read_items(files[0].path)
    assert plain(single)[1:] == plain(files[0])[1:]
    assert all(item.codes.codes.dtype == np.int64 for item in files + store)


def test_one_utterance_of_either(both):
    files, store = both
    one, other = read_codes(files / "spk0/utt0.npz"), read_codes(store, "spk0/utt0")
    assert (one.codes.tolist(), one.facts) == (other.codes.tolist(), other.facts)
    with pytest.raises(MelcodecError, match="no utterance 'gone'"):
        read_codes(store, "gone")
    with pytest.raises(MelcodecError, match="broken: has no codes: unreadable: broken it is"):
        read_codes(store, "broken")


def test_what_is_stored_codes(both, examples):
    assert all(map(is_stored, (*both[0].glob("*/*"), both[1])))
    assert not any(map(is_stored, (both[0], examples["lj_en"])))


def test_files_that_cannot_be_read_are_raised_or_told(both):
    (both[0] / "bad.npz").write_text("no codes")
    with pytest.raises(MelcodecError, match=r"bad\.npz: not a numpy file"):
        list(read_items(both[0]))
    told = {}
    assert len(list(read_items(both[0], told.__setitem__))) == 3
    assert {path.name: error.code for path, error in told.items()} == {"bad.npz": "unreadable"}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Codes(codes(), fingerprint="ffffffffffff", sizes=SIZES), "made by checkpoint ffffffffffff, files before it by 0123"),
        (Codes(codes()[:2], fingerprint="0123456789ab"), "codes of 2 codebooks, files before it of 3"),
    ],
)
def test_codes_of_two_checkpoints_are_no_folder(both, other, reason):
    save_codes(both[0] / "z.npz", other)
    with pytest.raises(MelcodecError, match=reason) as caught:
        list(read_items(both[0]))
    assert caught.value.code == "mismatch"


def test_an_empty_folder(tmp_path):
    with pytest.raises(MelcodecError, match="no codes in this folder") as caught:
        list(read_items(tmp_path))
    assert caught.value.code == "missing"


def test_where_nobody_says_the_largest_codes_count(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0, 3], [1, 9]]))
    np.save(tmp_path / "b.npy", np.array([[5, 3], [1, 2]]))
    origin = Origin()
    for item in read_items(tmp_path):
        origin.check(item.codes, item.path)
    assert (origin.fingerprint, origin.sizes, origin.known_sizes) == (None, (6, 10), None)
    assert [path.name for path in origin.unknown] == ["a.npy", "b.npy"]


def test_files_of_an_older_melcodec_say_one_size_for_all(tmp_path):
    np.savez(tmp_path / "old.npz", codes=codes()[:2].astype(np.uint16), codebook_size=1024, fingerprint="0123456789ab")
    found = load_codes(tmp_path / "old.npz")
    assert (found.sizes, found.fingerprint) == ((1024, 1024), "0123456789ab")
    assert sizes_of({}, 2) is None


def test_stores_of_an_older_melcodec_say_one_size_for_all(tmp_path):
    old = {key: value for key, value in spec(version=1).items() if key != "sizes"} | {"codebook_size": 300, "num_codebooks": 3}
    folder = make_store(tmp_path / "store", [Row("a", codes().astype(np.uint16))], old)
    assert json.loads((folder / "run.json").read_text())["version"] == 1
    (item,) = read_items(folder)
    assert item.codes.sizes == (300, 300, 300)
