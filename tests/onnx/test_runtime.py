"""Codes and sound without torch: equal to torch's, in windows as in one pass, on the command line as in Python."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from melcodec.audio.io import load
from melcodec.audio.resample import resample_blocks, resample_without_torch
from melcodec.cli.main import main
from melcodec.codec import Codec
from melcodec.config import (
    ConvNeXtConfig,
    EMAConfig,
    GriffinLimConfig,
    LearnedVocoderConfig,
    MelConfig,
    ModelConfig,
    xtts_mel_norms,
)
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import from_model, load_checkpoint
from melcodec.onnx.folder import ENCODER, FACTS, read_facts
from melcodec.onnx.griffin_lim import NumpyGriffinLim
from melcodec.onnx.runtime import OnnxCodec
from melcodec.vocoder.griffin_lim import GriffinLim
from melcodec.vqvae import build_vqvae

RATES = [8_000, 11_025, 16_000, 22_051, 24_000, 44_056, 44_100, 48_000, 96_000, 192_000]


@pytest.fixture(scope="module")
def codec(tiny_checkpoint) -> Codec:
    return Codec.from_checkpoint(load_checkpoint(tiny_checkpoint), "cpu", GriffinLimConfig(iterations=4))


@pytest.mark.parametrize("rate", RATES)
def test_resampling_in_numpy_equals_ours(rate):
    """The bound that docs/onnx.md states: 1e-6 of full scale, and the same samples whatever the blocks."""
    wave = np.random.default_rng(0).uniform(-1, 1, 2 * rate + 7).astype(np.float32)
    blocks = np.split(wave, [1, 1000, 1001, rate])
    ours = np.concatenate(list(resample_blocks(blocks, rate, 22_050)))
    given = np.concatenate(list(resample_without_torch(blocks, rate, 22_050)))
    assert given.dtype == np.float32
    assert given.shape == ours.shape
    assert np.abs(given - ours).max() < 1e-6


def test_the_same_rate_is_left_alone():
    wave = np.ones(5, np.float32)
    assert next(resample_without_torch([wave], 22_050, 22_050)) is wave


@pytest.mark.parametrize("name", ["lj_en", "nathalie_nl", "kerstin_de", "kathleen_en_48k_stereo"])
@pytest.mark.parametrize("chunk_codes", [1, 7, 1024])
def test_files_in_windows_of_any_size(exported, codec, examples, name, chunk_codes):
    ours, given = codec.encode_file(examples[name]), OnnxCodec(exported, chunk_codes).encode_file(examples[name])
    assert np.array_equal(given.codes, ours.codes)
    assert given.facts == ours.facts


@pytest.mark.parametrize("size", [1, 300, 512, 513, 1_023, 1_024, 1_025, 2_048, 9_000, 10_240, 30_720])
@pytest.mark.parametrize("pad_to", [0, 12_000])
def test_every_length_has_its_codes(exported, codec, golden, size, pad_to):
    wave = golden["0.wav"][:size]
    ours, _ = codec.encode_stream([wave], pad_to)
    for chunk_codes in (2, 1024):
        given, num_samples = OnnxCodec(exported, chunk_codes).encode_stream(np.array_split(wave, 3), pad_to)
        assert num_samples == size
        assert np.array_equal(given, ours)


def test_mels_and_sound(exported, codec, examples):
    codes = codec.encode_file(examples["lj_en"])
    for chunk_codes in (10, 1024):
        runtime = OnnxCodec(exported, chunk_codes)
        mel = runtime.decode_to_mel(codes.codes, codes.num_samples)
        assert np.abs(mel - codec.decode_to_mel(codes.codes, codes.num_samples)[0].numpy()).max() < 1e-4
        normalized = runtime.decode_to_mel(codes.codes, normalized=True)
        assert np.abs(normalized - codec.decode_to_mel(codes.codes, normalized=True)[0].numpy()).max() < 1e-4
        sound, ours = runtime.decode(codes.codes, codes.num_samples), codec.decode(codes.codes, codes.num_samples)[0].numpy()
        assert sound.shape == ours.shape == (codes.num_samples,)
        assert np.abs(sound - ours).mean() < 1e-2 * np.abs(ours).mean()
    assert len(runtime.decode(codes.codes)) == codec.decode(codes.codes).shape[-1]


def test_griffin_lim_in_numpy_also_across_seams(codec, golden, monkeypatch):
    """Chunks of 48 frames: the same phases are drawn, held and faded."""
    monkeypatch.setattr("melcodec.onnx.griffin_lim.CHUNK_FRAMES", 48)
    frontend = codec.frontend
    ours = GriffinLim(frontend, iterations=3, seed=5, chunk_frames=48)
    codes = codec.encode(golden["0.wav"])
    mel = np.minimum(codec.decode_to_mel(codes)[0, :, :160].numpy(), frontend.loudest[:, None].numpy())
    num_samples = mel.shape[1] * 256 - 100
    magnitude = lambda part: ours.magnitude(torch.from_numpy(part.copy())[None])[0].numpy()  # noqa: E731
    config = GriffinLimConfig(iterations=3, seed=5)
    given = np.concatenate(list(NumpyGriffinLim(config, MelConfig(), magnitude).stream([mel[:, :50], mel[:, 50:]], num_samples)))
    expected = np.concatenate(list(ours.stream([mel[:, :50], mel[:, 50:]], num_samples)))
    assert given.shape == expected.shape
    assert np.abs(given - expected).mean() < 1e-2 * np.abs(expected).mean()
    other = NumpyGriffinLim(GriffinLimConfig(iterations=3, seed=6), MelConfig(), magnitude).stream([mel], num_samples)
    assert np.abs(np.concatenate(list(other)) - expected).mean() > 0.1 * np.abs(expected).mean()


@pytest.mark.slow
def test_a_learned_vocoder_in_windows(tiny_checkpoint, tiny_vocoder, tmp_path, monkeypatch, examples):
    pytest.importorskip("onnx")
    from melcodec.onnx.export import export_onnx

    vocoder = LearnedVocoderConfig(weights=str(tiny_vocoder), refine=0)
    checkpoint = load_checkpoint(tiny_checkpoint)
    export_onnx(checkpoint, vocoder, tmp_path / "onnx", [examples["kerstin_de"]])
    codes, ours = np.arange(60)[None] % 32, Codec.from_checkpoint(checkpoint, "cpu", vocoder)
    expected = ours.decode(codes)[0].numpy()
    for chunk_frames in (50, 4096):
        monkeypatch.setattr("melcodec.onnx.runtime.CHUNK_FRAMES", chunk_frames)
        sound = OnnxCodec(tmp_path / "onnx").decode(codes)
        assert sound.shape == expected.shape
        assert np.abs(sound - expected).max() < 1e-3


@pytest.mark.slow
def test_a_model_that_sees_all_runs_whole_and_refuses_beyond(tmp_path, examples):
    pytest.importorskip("onnx")
    from melcodec.onnx.export import export_onnx

    torch.manual_seed(0)
    backbone = ConvNeXtConfig(hidden=8, num_blocks=1, attention=True, heads=2, longest=440)
    config = ModelConfig(dim=8, backbone=backbone, quantizer=EMAConfig(codebook_size=16))
    checkpoint = from_model(build_vqvae(config), config, xtts_mel_norms(), {})
    export_onnx(checkpoint, GriffinLimConfig(), tmp_path / "onnx", [examples["kerstin_de"]])
    runtime, ours = OnnxCodec(tmp_path / "onnx", chunk_codes=5), Codec.from_checkpoint(checkpoint, "cpu")
    assert np.array_equal(runtime.encode_file(examples["kerstin_de"]).codes, ours.encode_file(examples["kerstin_de"]).codes)
    for do in (lambda: runtime.encode_file(examples["lj_en"]), lambda: runtime.decode(np.zeros((1, 111), np.int64))):
        with pytest.raises(MelcodecError, match="longer than 5 s"):
            do()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda runtime: runtime.encode(np.zeros(5, np.float32)), r"waves of shape \(5,\)"),
        (lambda runtime: runtime.encode(np.full((1, 600), np.nan)), "NaN"),
        (lambda runtime: runtime.encode_stream([]), "no samples"),
        (lambda runtime: runtime.decode(np.zeros((2, 4), np.int64)), r"codes of shape \(2, 4\)"),
        (lambda runtime: runtime.decode(np.zeros((1, 4))), "float64"),
        (lambda runtime: runtime.decode(np.array([[32]])), r"outside 0 \.\. 31"),
        (lambda runtime: runtime.decode(np.array([[-1]])), "outside"),
        (lambda runtime: runtime.decode(np.zeros((1, 4), np.int64), 10), "4 codes do not fit 10 samples"),
    ],
)
def test_wrong_arrays_are_refused(exported, wrong, words):
    with pytest.raises(MelcodecError, match=words):
        wrong(OnnxCodec(exported))


def test_a_damaged_folder(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "onnx")
    (folder / ENCODER).write_bytes(b"not a graph")
    with pytest.raises(MelcodecError, match="onnxruntime cannot read it"):
        OnnxCodec(folder).encode(np.zeros((1, 600), np.float32))
    text = (folder / FACTS).read_text()
    (folder / FACTS).write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(MelcodecError, match="newer melcodec"):
        OnnxCodec(folder)
    (folder / FACTS).write_text("{")
    with pytest.raises(MelcodecError, match="damaged"):
        OnnxCodec(folder)
    (folder / ENCODER).unlink()
    with pytest.raises(MelcodecError, match=r"no encoder\.onnx"):
        read_facts(folder)


SILENT = """
import sys
from melcodec.cli.main import main
sys.argv = ["melcodec", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
slow = {"torch", "torchaudio", "librosa", "scipy", "matplotlib", "transformers"} & set(sys.modules)
assert not slow, slow
"""


@pytest.mark.parametrize("rate", ["lj_en", "kathleen_en_48k_stereo"])
def test_the_command_line_never_imports_torch(exported, codec, examples, tmp_path, run_python, rate):
    codes, sound = tmp_path / "codes.npz", tmp_path / "sound.wav"
    run_python(SILENT, "encode", examples[rate], "-o", codes, "--runtime", "onnx", "-c", exported)
    with np.load(codes) as arrays:
        assert np.array_equal(arrays["codes"], codec.encode_file(examples[rate]).codes)
    run_python(SILENT, "decode", codes, "-o", sound, "--runtime", "onnx", "-c", exported)
    assert len(load(sound, 22_050)) == codec.encode_file(examples[rate]).num_samples


def melcodec(monkeypatch, capsys, *args) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["melcodec", *map(str, args)])
    status = 0
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.err + captured.out


def test_a_folder_and_a_bad_file(exported, codec, speech_folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(speech_folder, tmp_path / "in")
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFF")
    command = ("encode", tmp_path / "in", "-o", tmp_path / "codes", "--to", "npz", "-c", exported, "--runtime", "onnx")
    status, err = melcodec(monkeypatch, capsys, *command)
    assert status == 1
    assert "6 files encoded" in err
    assert "bad.wav" in err
    with np.load(tmp_path / "codes" / "b" / "1.npz") as arrays:
        assert np.array_equal(arrays["codes"], codec.encode_file(speech_folder / "b" / "1.wav").codes)
    (tmp_path / "in" / "bad.wav").unlink()
    assert "6 existed already" in melcodec(monkeypatch, capsys, *command)[1]  # the recipe of such a folder is known, too
    status, err = melcodec(monkeypatch, capsys, "decode", tmp_path / "codes", "--to", "npy", "-c", exported, "--runtime", "onnx")
    assert status == 0, err
    assert (tmp_path / "codes" / "a" / "0.mel.npy").is_file()


@pytest.mark.slow
def test_any_checkpoint_is_exported_once(tiny_checkpoint, codec, examples, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / "cache"))
    command = ("encode", examples["lj_en"], "-o", tmp_path / "codes.npz", "-c", tiny_checkpoint, "--runtime", "onnx", "-f")
    said = [melcodec(monkeypatch, capsys, *command)[1] for _ in range(2)]
    assert ["exporting" in each for each in said] == [True, False]
    with np.load(tmp_path / "codes.npz") as arrays:
        assert np.array_equal(arrays["codes"], codec.encode_file(examples["lj_en"]).codes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--runtime", "jax"), "no such runtime"),
        (("--runtime", "onnx", "--device", "cuda"), "not on --device cuda"),
        (("--runtime", "onnx", "--batch-size", "4"), "--batch-size"),
        (("--runtime", "onnx", "--num-workers", "4"), "--num-workers"),
        (("--runtime", "onnx", "-o", "-"), "a stream"),
        ((), "an export to ONNX"),
    ],
)
def test_what_does_not_go_together_is_refused(exported, examples, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    output = () if "-o" in words else ("-o", "codes.npz")
    status, err = melcodec(monkeypatch, capsys, "encode", examples["lj_en"], *output, "-c", exported, *words)
    assert status == 1
    assert said in err


def test_decode_refuses_what_it_cannot_do(exported, tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "codes.npz", codes=np.zeros((1, 4), np.uint8))
    command = ("decode", tmp_path / "codes.npz", "-o", tmp_path / "x.npy", "-c", exported, "--runtime", "onnx")
    assert "--codebooks" in melcodec(monkeypatch, capsys, *command, "--codebooks", "1")[1]
    assert melcodec(monkeypatch, capsys, *command)[0] == 0


def test_codes_of_another_checkpoint_are_refused(exported, tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "codes.npz", codes=np.zeros((1, 4), np.uint8), fingerprint="0123456789ab")
    command = ("decode", tmp_path / "codes.npz", "-o", tmp_path / "x.npy", "-c", exported, "--runtime", "onnx")
    assert "made by checkpoint 0123456789ab" in melcodec(monkeypatch, capsys, *command)[1]
    assert melcodec(monkeypatch, capsys, *command, "--any-checkpoint")[0] == 0


def test_export_onnx_and_info(tiny_checkpoint, examples, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "onnx"
    command = ("export-onnx", tiny_checkpoint, "-o", folder, "--speech", examples["kerstin_de"])
    status, err = melcodec(monkeypatch, capsys, *command)
    assert status == 0, err
    assert "compared with torch on 4.8 s of speech: 103 codes, 0 near ties" in err
    assert read_facts(folder).agreement.codes == 103
    assert "holds an export already" in melcodec(monkeypatch, capsys, *command)[1]
    (tmp_path / "settings.toml").write_text('kind = "griffin-lim"\niterations = 3\n')
    assert melcodec(monkeypatch, capsys, *command, "-f", "--vocoder", tmp_path / "settings.toml")[0] == 0
    assert read_facts(folder).vocoder == GriffinLimConfig(iterations=3)
    facts = json.loads(melcodec(monkeypatch, capsys, "info", folder, "--json")[1])
    assert (facts["kind"], facts["fingerprint"], facts["sizes"]) == ("ONNX export", read_facts(folder).fingerprint, [32])
    (tmp_path / "file").touch()
    assert "is a file" in melcodec(monkeypatch, capsys, "export-onnx", tiny_checkpoint, "-o", tmp_path / "file")[1]


def test_without_onnxruntime_the_package_is_named(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MelcodecError, match="needs the package onnxruntime"):
        OnnxCodec(exported)
