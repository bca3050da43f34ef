"""Three codebooks through everything that stores codes: preprocess, info, verify, dataset, exports, files, compare, usage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from melcodec.cli.info import describe
from melcodec.codec import Codec
from melcodec.config import ConvConfig, EMAConfig, ModelConfig, ResidualConfig, xtts_mel_norms
from melcodec.corpus.driver import Callbacks, PreprocessSettings, preprocess
from melcodec.evaluation.code_counts import count_codes
from melcodec.evaluation.compare import compare
from melcodec.formats.checkpoint import from_model, save_checkpoint
from melcodec.manifests.build import find_utterances
from melcodec.store.codes import load_codes, save_codes
from melcodec.store.dataset import CodesDataset, collate
from melcodec.store.export import FORMS, export
from melcodec.store.info import corpus_info
from melcodec.store.reader import read_codes, read_items
from melcodec.store.verify import verify
from melcodec.vqvae import build_vqvae

SIZES = (300, 300, 300)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained model with three residual codebooks of 300 entries each."""
    torch.manual_seed(0)
    quantizer = ResidualConfig(stages=3, inner=EMAConfig(codebook_size=300))
    config = ModelConfig(dim=8, backbone=ConvConfig(hidden=16), quantizer=quantizer)
    path = tmp_path_factory.mktemp("three") / "three.safetensors"
    save_checkpoint(path, from_model(build_vqvae(config), config, xtts_mel_norms(), {}))
    return path


@pytest.fixture(scope="module")
def store(checkpoint, speech_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three") / "store"
    job = PreprocessSettings(str(checkpoint), device="cpu", workers=1, unit_size=4)
    summary = preprocess(find_utterances([speech_folder]), folder, job, Callbacks(say=lambda line: None))
    assert (summary.ok, summary.missing) == (6, 0)
    return folder


def test_a_store_of_three_codebooks(store, checkpoint, speech_folder, tmp_path):
    codec = Codec.from_pretrained(checkpoint, "cpu")
    assert json.loads((store / "run.json").read_text())["sizes"] == list(SIZES)
    assert verify(store).problems == []
    expected = codec.encode_file(speech_folder / "b/1.wav")
    found = read_codes(store, "b/1")
    assert np.array_equal(found.codes, expected.codes)
    assert found.facts == expected.facts

    info = corpus_info(store)
    assert (info.sizes, len(info.usage)) == (SIZES, 3)
    assert info.codes == info.usage[0].total == sum(item.codes.codes.shape[1] for item in read_items(store))
    seconds = sum(item.codes.num_samples for item in read_items(store)) / codec.sample_rate
    assert info.bits_per_second == pytest.approx(info.codes / seconds * 3 * np.log2(300))

    dataset = CodesDataset(store)
    assert (dataset.sizes, dataset.num_codebooks, len(dataset)) == (SIZES, 3, 6)
    batch = collate([dataset.by_id("b/1"), dataset.by_id("a/0")])
    assert batch.codes.shape[:2] == (2, 3)
    assert np.array_equal(batch.codes[0, :, : batch.lengths[0]].numpy(), expected.codes)

    for form in FORMS:
        assert export(store, tmp_path / form, form).utterances == 6
    plain = np.load(tmp_path / "npy/b/1.npy")
    assert (plain.dtype, plain.tolist()) == (np.uint16, expected.codes.tolist())
    assert "3 codebook(s) of 300, 300, 300 entries" in (tmp_path / "huggingface/README.md").read_text()


def test_files_of_three_codebooks_are_the_same_as_the_store(store, checkpoint, speech_folder, tmp_path):
    codec = Codec.from_pretrained(checkpoint, "cpu")
    for path in sorted(speech_folder.glob("*/*.wav")):
        target = tmp_path / "files" / path.parent.name / f"{path.stem}.npz"
        save_codes(target, codec.encode_file(path))
    assert load_codes(target).sizes == SIZES
    assert {key: describe(str(target))[key] for key in ("shape", "sizes")} == {
        "shape": list(load_codes(target).codes.shape),
        "sizes": list(SIZES),
    }
    found = compare(store, tmp_path / "files", [])
    assert (found.files, len(found.books), found.a.sizes, found.b.sizes) == (6, 3, SIZES, SIZES)
    assert [book.exact for book in found.books] == [1.0, 1.0, 1.0]
    one, other = (count_codes([path], lambda: codec, lambda *at: None) for path in (store, target))
    assert [len(counts) for counts in one.books] == list(SIZES)
    assert all((few <= many).all() for few, many in zip(other.books, one.books, strict=True))
