"""Every kind of model as graphs: the same codes and mels as torch, alone and in batches, or an honest refusal."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.config import (
    ConvConfig,
    ConvNeXtConfig,
    EMAConfig,
    FSQConfig,
    GradientConfig,
    GriffinLimConfig,
    GroupedConfig,
    GumbelConfig,
    LearnedVocoderConfig,
    LibraryConfig,
    MambaConfig,
    MLPConfig,
    ModelConfig,
    ResidualConfig,
    TransformerConfig,
    VQVAE2018Config,
    xtts_mel_norms,
)
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import from_model, load_checkpoint
from melcodec.onnx import check
from melcodec.onnx import export as exporting
from melcodec.onnx.check import margins, near_ties, session
from melcodec.onnx.export import export_onnx
from melcodec.onnx.folder import DECODER, ENCODER, FILES, OPSET, VOCODER, read_facts
from melcodec.vqvae import build_vqvae

SMALL = {"hidden": 8, "num_blocks": 1}
EMA = EMAConfig(codebook_size=16)
KINDS = {
    "conv": (ConvConfig(**SMALL), EMA),
    "vqvae-2018": (VQVAE2018Config(residual=4, **SMALL), GradientConfig(codebook_size=16, code_dim=4, normalize=True)),
    "pictures": (VQVAE2018Config(residual=4, axes="time-and-bands", **SMALL), GumbelConfig(codebook_size=16)),
    "convnext": (ConvNeXtConfig(**SMALL), FSQConfig(levels=(5, 4, 3))),
    "attention": (ConvNeXtConfig(attention=True, heads=2, **SMALL), ResidualConfig(stages=3, inner=EMA)),
    "mlp": (MLPConfig(overlap=2, smooth=True, **SMALL), EMA),
    "transformer": (TransformerConfig(heads=2, window=3, **SMALL), GroupedConfig(inner=ResidualConfig(stages=2, inner=EMA))),
    "learned positions": (TransformerConfig(heads=2, positions="learned", patch=3, **SMALL), EMA),
}


def checkpoint_of(backbone, quantizer):
    torch.manual_seed(0)
    config = ModelConfig(dim=20, backbone=backbone, quantizer=quantizer)
    return from_model(build_vqvae(config), config, xtts_mel_norms(), {})


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "conv")) for kind in KINDS])
def test_graphs_of_every_kind_give_the_codes_and_mels_of_torch(kind, tmp_path, examples):
    checkpoint = checkpoint_of(*KINDS[kind])
    facts = export_onnx(checkpoint, GriffinLimConfig(), tmp_path / "onnx", [examples["kerstin_de"]])
    codec = Codec.from_checkpoint(checkpoint, "cpu")
    wave = torch.from_numpy(load(examples["lj_en"], 22_050))
    encoder, decoder = session(tmp_path / "onnx" / ENCODER), session(tmp_path / "onnx" / DECODER)
    # lengths that leave 0 .. 3 frames in the last code, and fewer samples than reflection needs
    parts = [wave[5_000 : 5_000 + size] for size in (22_050, 20_000, 1_024, 513, 300, 1)]
    batch = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=0.7).numpy()
    codes, counts = encoder.run(None, {"wave": batch, "lengths": np.array([len(part) for part in parts])})
    assert codes.dtype == np.int64
    for part, row, count in zip(parts, codes, counts, strict=True):
        expected = codec.encode(part)
        assert count == expected.shape[-1]
        margin = margins(codec.model.quantizer, check.latents_of(codec, part))[0]
        assert near_ties(torch.from_numpy(row[:, :count]), expected[0], margin) <= 1
    lengths = np.array(counts)
    mels = decoder.run(None, {"codes": codes, "lengths": lengths})[0]
    theirs = codec.decode_to_mel(torch.from_numpy(codes), lengths=torch.from_numpy(lengths))
    assert float((torch.from_numpy(mels) - theirs).abs().max()) < 1e-3
    assert facts.sizes == codec.sizes
    assert facts.agreement.codes == codec.num_codes(len(load(examples["kerstin_de"], 22_050))) * len(codec.sizes)


def test_what_cannot_be_exported_is_refused(tmp_path):
    mamba = checkpoint_of(MambaConfig(heads=2, state=4, **SMALL), EMA)
    with pytest.raises(MelcodecError, match="mamba backbone cannot be exported"):
        export_onnx(mamba, GriffinLimConfig(), tmp_path / "onnx")
    pytest.importorskip("vector_quantize_pytorch")
    library = checkpoint_of(ConvConfig(**SMALL), GroupedConfig(inner=LibraryConfig(codebook_size=16)))
    with pytest.raises(MelcodecError, match="quantizer of the library cannot be exported"):
        export_onnx(library, GriffinLimConfig(), tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_says_what_it_is(exported, tiny_checkpoint):
    checkpoint = load_checkpoint(tiny_checkpoint)
    facts = read_facts(exported)
    assert facts.fingerprint == checkpoint.fingerprint
    assert facts.model == checkpoint.config
    assert facts.mel_norms == checkpoint.mel_norms
    assert "HTK scale" in facts.mel_scale
    assert (facts.stride, facts.encoder_halo, facts.decoder_halo, facts.sizes) == (4, 27, 7, (32,))
    assert facts.agreement.near_ties == 0
    assert {path.name for path in exported.iterdir()} == set(FILES)
    for name in (ENCODER, DECODER, VOCODER):
        graph = onnx.load(exported / name)
        onnx.checker.check_model(graph)
        assert [each.version for each in graph.opset_import if not each.domain] == [OPSET]
        (metadata,) = (each.value for each in graph.metadata_props)
        assert json.loads(metadata) == json.loads((exported / "melcodec.json").read_text())
        kinds = {each.data_type for each in graph.graph.initializer}
        kinds |= {each.type.tensor_type.elem_type for each in (*graph.graph.input, *graph.graph.output)}
        assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


@pytest.mark.slow
@pytest.mark.parametrize("refine", [0, 8])
def test_a_learned_vocoder_becomes_a_graph(tiny_checkpoint, tiny_vocoder, tmp_path, examples, refine):
    vocoder = LearnedVocoderConfig(weights=str(tiny_vocoder), refine=refine)
    checkpoint = load_checkpoint(tiny_checkpoint)
    facts = export_onnx(checkpoint, vocoder, tmp_path / "onnx", [examples["kerstin_de"]])
    assert facts.vocoder == LearnedVocoderConfig(weights=tiny_vocoder.name, refine=refine)
    codec = Codec.from_checkpoint(checkpoint, "cpu", vocoder)
    loudest = codec.frontend.loudest[:, None]  # codes in a row that no speech has
    mels = [torch.minimum(codec.decode_to_mel(torch.arange(count)[None, None]), loudest) for count in (9, 5)]
    lengths = [mel.shape[-1] * 256 - 1 for mel in mels]
    batch = torch.zeros(2, 80, 36)
    for row, mel in zip(batch, mels, strict=True):
        row[:, : mel.shape[-1]] = mel[0]
    (waves,) = session(tmp_path / "onnx" / VOCODER).run(None, {"mel": batch.numpy(), "lengths": np.array(lengths)})
    for wave, mel, length in zip(waves, mels, lengths, strict=True):
        expected = codec.vocoder(mel, length)[0].numpy()
        assert np.abs(wave[:length] - expected).mean() < 1e-2 * np.abs(expected).mean()
        assert not wave[length:].any()


def test_a_graph_that_gives_other_codes_is_not_written(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "WaveToCodes", type("Other", (exporting.WaveToCodes,), {"mel": louder}))
    with pytest.raises(MelcodecError, match=r"codes of the exported encoder differ .* no near ties"):
        export_onnx(load_checkpoint(tiny_checkpoint), GriffinLimConfig(), tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def louder(self, wave, lengths):
    return super(type(self), self).mel(wave * 1.5, lengths)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), [("CodesToMel", "decoder's mels"), ("MelToMagnitude", "vocoder's output")])
def test_a_graph_that_gives_another_mel_or_sound_is_not_written(tiny_checkpoint, tmp_path, monkeypatch, name, change):
    whole = getattr(exporting, name)
    monkeypatch.setattr(
        exporting, name, type("Other", (whole,), {"forward": lambda self, *args: whole.forward(self, *args) * 1.1 + 0.1})
    )
    with pytest.raises(MelcodecError, match=f"exported {change}"):
        export_onnx(load_checkpoint(tiny_checkpoint), GriffinLimConfig(), tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_difference_is_excused_where_the_tie_is_near_and_nowhere_else():
    expected, margin = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1e-5, 0.5], [0.5, 0.5]])
    assert near_ties(expected, expected, margin) == 0
    # the second stage quantizes what the first one left, and is not judged where that differs
    assert near_ties(torch.tensor([[9, 2], [9, 4]]), expected, margin) == 2
    with pytest.raises(MelcodecError, match="1 of 4 codes"):
        near_ties(torch.tensor([[1, 9], [3, 4]]), expected, margin)
    with pytest.raises(MelcodecError, match="shape"):
        near_ties(expected[:, :1], expected, margin)


def test_margins_are_distances_to_the_second_best():
    torch.manual_seed(0)
    quantizer = checkpoint_of(ConvConfig(**SMALL), EMA).build().quantizer
    latents = torch.randn(1, 20, 5)
    squares = (latents[0].T[:, None] - quantizer.codewords().T).pow(2).sum(-1).sort(dim=1).values
    assert torch.allclose(margins(quantizer, latents)[0, 0], (squares[:, 1] - squares[:, 0]) / squares[:, 0], atol=1e-4)
    between = (quantizer.codewords()[:, 0] + quantizer.codewords()[:, 1]) / 2
    near = quantizer.codewords() - between[:, None]
    if near.pow(2).sum(0).argsort()[:2].sum() == 1:  # no third codeword lies nearer to the middle
        assert margins(quantizer, between[None, :, None]).item() < 1e-4


def test_packages_that_are_missing_are_named(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MelcodecError, match="needs the package onnx") as caught:
        export_onnx(load_checkpoint(tiny_checkpoint), GriffinLimConfig(), tmp_path / "onnx")
    assert caught.value.code == "needs-package"
