"""Checkpoints: weights that carry their own recipe, and the name of their code space."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from melcodec.config import MelConfig
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import for_inference, from_model, load_checkpoint, save_checkpoint
from melcodec.formats.container import read_container, read_header, write_container

EMA_BUFFERS = ("codebook.cluster_size", "codebook.embed_avg")


@pytest.fixture
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


def changed(checkpoint, key: str, by: float = 1e-3):
    return replace(checkpoint, tensors={**checkpoint.tensors, key: checkpoint.tensors[key] + by})


def rewritten(checkpoint, path, change) -> str:
    """Save, let ``change`` alter the tensors and the metadata behind melcodec's back, load: the message of the refusal."""
    save_checkpoint(path, checkpoint)
    meta, tensors = read_container(path, "checkpoint")
    change(meta, tensors)
    write_container(path, tensors, meta)
    with pytest.raises(MelcodecError) as caught:
        load_checkpoint(path)
    return caught.value.message.removeprefix(f"{path}: ")


def test_round_trip(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", checkpoint)
    back = load_checkpoint(tmp_path / "a.safetensors")
    assert (back.config, back.mel_norms, back.provenance) == (checkpoint.config, checkpoint.mel_norms, checkpoint.provenance)
    assert back.fingerprint == checkpoint.fingerprint
    assert back.tensors.keys() == checkpoint.tensors.keys()
    assert all(torch.equal(value, checkpoint.tensors[key]) for key, value in back.tensors.items())


def test_the_built_model_gives_the_reference_codes(checkpoint, golden):
    model = checkpoint.build()
    assert not model.training
    for index in range(3):
        mel = torch.from_numpy(golden[f"{index}.mel"])[None]
        assert torch.equal(model.encode(mel)[0, 0], torch.from_numpy(golden[f"{index}.codes"]))


def test_from_model_copies(checkpoint):
    model = checkpoint.build()
    copied = from_model(model, checkpoint.config, checkpoint.mel_norms, {})
    assert copied.fingerprint == checkpoint.fingerprint
    with torch.no_grad():
        model.codebook.embed.add_(1)
    assert copied.fingerprint == checkpoint.fingerprint


def test_the_same_content_gives_the_same_bytes(checkpoint, tmp_path):
    reverse = replace(checkpoint, tensors=dict(reversed(checkpoint.tensors.items())))
    save_checkpoint(tmp_path / "a", checkpoint)
    save_checkpoint(tmp_path / "b", reverse)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_float16_halves_the_file(checkpoint, tmp_path):
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(full, checkpoint)
    save_checkpoint(half, checkpoint, "float16")
    sizes = {path: sum(stop - start for start, stop in offsets(path)) for path in (full, half)}
    buffers = sum(checkpoint.tensors[key].nbytes for key in EMA_BUFFERS)
    assert sizes[half] * 2 == sizes[full] - buffers
    assert {entry["dtype"] for entry in read_header(half)[1].values()} == {"F16"}
    back = load_checkpoint(half)
    assert {value.dtype for value in back.tensors.values()} == {torch.float32}
    assert not back.tensors.keys() & set(EMA_BUFFERS)
    # the name on the file is that of the rounded weights, which are what one gets
    assert read_header(half)[0]["fingerprint"] == back.fingerprint == for_inference(checkpoint, torch.float16).fingerprint
    assert back.fingerprint != checkpoint.fingerprint
    save_checkpoint(tmp_path / "again.safetensors", back, "float16")
    assert (tmp_path / "again.safetensors").read_bytes() == half.read_bytes()


def offsets(path):
    """Where each tensor begins and ends, as the file's own header says."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]


def test_missing_averages_are_rebuilt_so_that_training_goes_on(checkpoint):
    model = for_inference(checkpoint, torch.float32).build().train()
    embed = model.codebook.embed.clone()
    assert torch.equal(model.codebook.cluster_size, torch.ones(32))
    assert torch.equal(model.codebook.embed_avg, embed)
    model.codebook(embed.T[None, :5].transpose(1, 2))  # five codewords, each met exactly: nothing moves
    torch.testing.assert_close(model.codebook.embed, embed, rtol=1e-4, atol=1e-5)


def test_the_fingerprint_names_the_code_space(checkpoint):
    name = checkpoint.fingerprint
    assert len(name) == 12
    assert set(name) <= set("0123456789abcdef")
    decoders = [key for key in checkpoint.tensors if key.startswith("decoder.")]
    assert len(decoders) == 24 + 2
    for key in (*decoders, *EMA_BUFFERS):
        assert changed(checkpoint, key).fingerprint == name, key
    for key in ("encoder.0.0.weight", "encoder.5.bias", "encoder.3.net.2.weight", "codebook.embed"):
        assert changed(checkpoint, key).fingerprint != name, key
    other_mel = checkpoint.config.model_copy(update={"mel": MelConfig(floor=1e-6)})
    assert replace(checkpoint, config=other_mel).fingerprint != name
    assert replace(checkpoint, mel_norms=(-1.0, *checkpoint.mel_norms[1:])).fingerprint != name
    assert replace(checkpoint, provenance={"other": 1}).fingerprint == name
    # norms are float32: how many digits a text file gave them changes nothing
    assert replace(checkpoint, mel_norms=tuple(float(f"{norm:.9g}") for norm in checkpoint.mel_norms)).fingerprint == name


def test_missing_superfluous_and_misshapen_tensors_are_named(checkpoint, tmp_path):
    path = tmp_path / "bad.safetensors"

    def missing(meta, tensors):
        del tensors["decoder.6.bias"]

    def superfluous(meta, tensors):
        tensors["decoder.7.bias"] = torch.zeros(3)

    def misshapen(meta, tensors):
        tensors["encoder.5.weight"] = torch.zeros(8, 31, 1)

    def misshapen_averages(meta, tensors):
        tensors["codebook.cluster_size"] = torch.zeros(31)

    def unknown_setting(meta, tensors):
        meta["model"]["backbone"]["hidde"] = 3

    assert rewritten(checkpoint, path, missing) == "tensor 'decoder.6.bias' is missing"
    assert rewritten(checkpoint, path, superfluous) == "tensor 'decoder.7.bias' does not belong to its model"
    assert rewritten(checkpoint, path, misshapen) == "tensor 'encoder.5.weight' is (8, 31, 1), not (8, 32, 1)"
    assert rewritten(checkpoint, path, misshapen_averages) == "tensor 'codebook.cluster_size' is (31,), not (32,)"
    assert rewritten(checkpoint, path, unknown_setting) == "unknown setting 'backbone.hidde'"


def test_something_else_than_a_checkpoint(tmp_path):
    path = tmp_path / "codes.safetensors"
    write_container(path, {"codes": torch.zeros(1, 3)}, {"kind": "codes"})
    with pytest.raises(MelcodecError, match="holds codes, not checkpoint"):
        load_checkpoint(path)


def test_no_overwriting_unless_asked(checkpoint, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, checkpoint, overwrite=False)
    with pytest.raises(MelcodecError, match="exists already"):
        save_checkpoint(path, checkpoint, overwrite=False)
    save_checkpoint(path, changed(checkpoint, "codebook.embed"))
    assert load_checkpoint(path).fingerprint != checkpoint.fingerprint
