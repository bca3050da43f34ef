"""CodesDataset: every committed utterance, in memory and mapped, in workers of both kinds, in batches of like lengths."""

from __future__ import annotations

import dataclasses
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import melcodec
from melcodec.errors import MelcodecError
from melcodec.store import layout, parquet
from melcodec.store.dataset import CodesBatch, CodesDataset, collate
from tests.stores import make_store, speech_rows, write_plan, write_unit


@pytest.fixture(scope="module")
def speech(tiny_checkpoint, examples):
    return speech_rows(tiny_checkpoint, examples)


@pytest.fixture(scope="module")
def folder(speech, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "codes", *speech, unit_size=7)


@pytest.fixture(params=[True, False], ids=["memory", "mapped"])
def dataset(request, folder):
    return CodesDataset(folder, in_memory=request.param)


def test_every_utterance_with_codes(dataset, speech):
    rows = [row for row in speech[0] if row.codes is not None]
    assert melcodec.CodesDataset is CodesDataset
    assert len(dataset) == len(rows) == 24
    assert dataset.ids == [row.id for row in rows]
    assert dataset.lengths.tolist() == [row.codes.shape[1] for row in rows]
    assert (dataset.sizes, dataset.num_codebooks) == ((32,), 1)
    for row, item in zip(rows, dataset, strict=True):
        assert item.codes.dtype == torch.int64
        assert np.array_equal(item.codes.numpy(), row.codes)
        assert all(getattr(item, name) == getattr(row, name) for name in parquet.PLAIN)


def test_by_number_and_by_id(dataset):
    assert dataset[-1].id == dataset[len(dataset) - 1].id == dataset.ids[-1]
    for bad in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError, match=f"there is no item {bad}: .*codes holds {len(dataset)}$"):
            dataset[bad]
    assert dataset[np.int64(1)].id == dataset[1].id
    for several in (slice(0, 2), [0, 1], 1.0, "lj_en/3.a b"):
        with pytest.raises(TypeError, match="an index is one number, not "):
            dataset[several]
    assert dataset.by_id("lj_en/3.a b").id == "lj_en/3.a b"
    assert "lj_en/3.a b" in dataset
    assert "lj_en/broken" not in dataset
    assert 3 not in dataset
    with pytest.raises(MelcodecError, match="holds no utterance 'lj_en/broken'"):
        dataset.by_id("lj_en/broken")


@pytest.mark.parametrize("in_memory", [True, False])
def test_with_errors(folder, in_memory):
    dataset = CodesDataset(folder, in_memory, with_errors=True)
    assert len(dataset) == 26
    item = dataset.by_id("lj_en/broken")
    assert (item.codes.shape, item.status, item.error) == ((0, 0), "unreadable", "lj_en/broken.wav: unreadable it is")
    assert pickle.loads(pickle.dumps(dataset)).ids == dataset.ids
    batched = sorted(index for batch in dataset.length_bucketed_batches(batch_size=4) for index in batch)
    assert batched == [index for index in range(26) if dataset.lengths[index]]


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_was_kept_of_a_truncated_file(speech, tmp_path, in_memory):
    rows, spec = list(speech[0]), speech[1]
    rows[0] = dataclasses.replace(rows[0], status="truncated", error="cut")
    item = CodesDataset(make_store(tmp_path / "codes", rows, spec), in_memory)[0]
    assert (item.id, item.status, item.codes.numel()) == (rows[0].id, "truncated", rows[0].codes.size)


def test_items_do_not_hold_the_whole_table(dataset):
    item = dataset[0]
    item.codes.add_(1)  # a copy, writable
    assert torch.equal(dataset[0].codes + 1, item.codes)
    assert item.codes.untyped_storage().nbytes() == 8 * item.codes.numel()


def test_only_what_was_committed_when_it_was_made(speech, tmp_path):
    rows, spec = speech
    folder = make_store(tmp_path / "codes", rows[:20], spec, unit_size=10)
    layout.marker_path(layout.part_path(folder, 0, 0)).unlink()
    for in_memory in (True, False):
        first = CodesDataset(folder, in_memory)
        assert first.ids == [row.id for row in rows[10:20] if row.codes is not None]
        pickled = pickle.dumps(first)
        write_plan(folder, [(row.id, 0) for row in rows[20:]], segment=1)
        part = write_unit(folder, 0, rows[20:], spec, segment=1)
        assert pickle.loads(pickled).ids == first.ids
        assert CodesDataset(folder, in_memory).ids == [row.id for row in rows[10:] if row.codes is not None]
        layout.marker_path(part).unlink()


def test_the_mapped_file_is_made_once_for_the_same_parts(speech, tmp_path):
    rows, spec = speech
    folder = make_store(tmp_path / "codes", rows[:20], spec)
    ids = CodesDataset(folder, in_memory=False).ids
    (cached,) = (folder / "cache").iterdir()
    made = cached.stat().st_mtime_ns
    assert CodesDataset(folder, in_memory=False).ids == ids
    assert cached.stat().st_mtime_ns == made
    write_unit(folder, 1, [*rows[11:20], rows[24]], spec)  # a part that was made anew has another SHA-256
    again = CodesDataset(folder, in_memory=False)
    assert rows[24].id in again
    assert [path.name for path in (folder / "cache").iterdir()] != [cached.name]
    assert len(list((folder / "cache").iterdir())) == 1


def test_in_memory_writes_nothing(speech, tmp_path):
    folder = make_store(tmp_path / "codes", *speech)
    CodesDataset(folder)
    assert not (folder / "cache").exists()


def test_it_pickles_cheaply(dataset):
    content = pickle.dumps(dataset)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert again.in_memory == dataset.in_memory
    assert torch.equal(again[5].codes, dataset[5].codes)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # python 3.12 on; it is what is tested
@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_in_workers(dataset, context, workers):
    batches = dataset.length_bucketed_batches(max_codes=256, seed=3)
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers, multiprocessing_context=context)
    seen = {}
    for batch in loader:
        assert isinstance(batch, CodesBatch)
        seen |= {name: batch.codes[row, :, : batch.lengths[row]] for row, name in enumerate(batch.ids)}
    assert sorted(seen) == sorted(dataset.ids)
    assert all(torch.equal(codes, dataset.by_id(name).codes) for name, codes in seen.items())


def test_collate_pads_and_says_the_lengths(dataset):
    items = [dataset[0], dataset[5], dataset[3]]
    batch = collate(items)
    lengths = [item.codes.shape[1] for item in items]
    assert batch.lengths.tolist() == lengths
    assert batch.codes.shape == (3, 1, max(lengths))
    assert batch.codes.dtype == batch.lengths.dtype == torch.int64
    assert batch.codes[0, 0, lengths[0] :].eq(0).all()
    padded = partial(collate, pad=32)(items)
    assert padded.codes[0, 0, lengths[0] :].eq(32).all()
    assert torch.equal(padded.codes[0, :, : lengths[0]], items[0].codes)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("kind", [{"batch_size": 5}, {"max_codes": 300}, {"max_codes": 1}, {"batch_size": 100}])
def test_batches_hold_every_item_once(dataset, kind, seed):
    batches = dataset.length_bucketed_batches(**kind, seed=seed)
    found = list(batches)
    assert len(found) == len(batches)
    assert sorted(index for batch in found for index in batch) == list(range(len(dataset)))
    lengths = [dataset.lengths[batch] for batch in found]
    if "batch_size" in kind:
        assert all(len(batch) <= kind["batch_size"] for batch in found)
        assert len(found) == -(-len(dataset) // kind["batch_size"])
    else:
        assert all(len(batch) == 1 or len(batch) * max(length) <= 300 for batch, length in zip(found, lengths, strict=True))
        assert len(found) < len(dataset) or kind["max_codes"] == 1


def test_batches_of_like_lengths():
    """Many lengths: sorted company costs little padding, and a seed changes the company from epoch to epoch."""
    from melcodec.store.dataset import LengthBucketedBatches

    lengths = np.random.default_rng(0).integers(20, 400, 5000)
    batches = LengthBucketedBatches(lengths, max_codes=4096, seed=1)
    first = list(batches)
    spent = sum(len(batch) * lengths[batch].max() for batch in first)
    assert spent < 1.05 * lengths.sum()
    assert max(len(batch) * lengths[batch].max() for batch in first) <= 4096
    assert list(batches) == first
    assert list(LengthBucketedBatches(lengths, max_codes=4096, seed=1)) == first
    assert list(LengthBucketedBatches(lengths, max_codes=4096, seed=2)) != first
    batches.set_epoch(1)
    second = list(batches)
    assert len(second) == len(batches)
    assert {frozenset(batch) for batch in first}.isdisjoint(map(frozenset, second))
    means = np.array([lengths[batch].mean() for batch in first])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2  # and not from short to long
    means = [lengths[batch].mean() for batch in LengthBucketedBatches(lengths, max_codes=4096)]
    assert means == sorted(means)


@pytest.mark.parametrize("kind", [{}, {"batch_size": 2, "max_codes": 4}, {"batch_size": 0}, {"max_codes": -1}])
def test_batches_that_make_no_sense(dataset, kind):
    with pytest.raises(MelcodecError, match="batch_size"):
        dataset.length_bucketed_batches(**kind)


@pytest.mark.parametrize("in_memory", [True, False])
def test_damage_is_named_at_once(speech, tmp_path, in_memory):
    folder = make_store(tmp_path / "codes", *speech)
    part = layout.part_path(folder, 0, 1)
    content = part.read_bytes()
    part.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.raises(MelcodecError, match=r"0000-00001\.parquet: damaged"):
        CodesDataset(folder, in_memory)
    assert not list(folder.glob("cache/*"))
    with pytest.raises(MelcodecError, match="not a folder of codes"):
        CodesDataset(tmp_path, in_memory)


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_empty_store(speech, tmp_path, in_memory):
    """Nothing committed yet, or only failures: an empty dataset and no batches."""
    rows, spec = speech
    folder = make_store(tmp_path / "codes", [row for row in rows if row.codes is None], spec)
    for count in (2, 0):
        dataset = CodesDataset(folder, in_memory)
        assert (len(dataset), dataset.ids, list(dataset)) == (0, [], [])
        assert list(dataset.length_bucketed_batches(batch_size=2, seed=0)) == []
        assert list(dataset.length_bucketed_batches(max_codes=2)) == []
        assert len(CodesDataset(folder, in_memory, with_errors=True)) == count
        layout.marker_path(layout.part_path(folder, 0, 0)).unlink(missing_ok=True)
