"""The classes for transformers: the codes and sound of melcodec, files that both read, a hub, and the compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", minversion="5.0")

import melcodec
from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.config import ConvNeXtConfig, EMAConfig, ModelConfig, ResidualConfig, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import from_model, load_checkpoint
from melcodec.formats.shipped import find_checkpoint, is_hub_id
from melcodec.hf import MelcodecConfig, MelcodecFeatureExtractor, MelcodecModel
from melcodec.vqvae import build_vqvae
from tests.hf.hub import hub


@pytest.fixture(scope="module")
def model(tiny_checkpoint) -> MelcodecModel:
    return MelcodecModel.from_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def codec(tiny_checkpoint) -> Codec:
    return Codec.from_checkpoint(load_checkpoint(tiny_checkpoint), "cpu")


@pytest.fixture(scope="module")
def waves(golden) -> list[np.ndarray]:
    """Lengths that leave 0 .. 3 frames in the last code, and fewer samples than reflection needs."""
    return [golden["0.wav"][:size] for size in (30_000, 20_480, 9_000, 513, 300, 1)]


def test_a_batch_has_the_codes_and_the_sound_of_each_wave(model, codec, waves):
    batch = MelcodecFeatureExtractor()(waves, sampling_rate=22_050)
    assert batch["input_values"].shape == (6, 1, 30_000)
    assert batch["padding_mask"].sum(1).tolist() == [len(wave) for wave in waves]
    coded = model.encode(**batch)
    assert coded.audio_codes.shape == (6, 1, 30)
    assert coded.audio_codes.dtype == torch.int64
    decoded = model.decode(coded.audio_codes, batch["padding_mask"])
    assert decoded.audio_values.shape == (6, 1, 30_000)
    for wave, codes, real, sound in zip(
        waves, coded.audio_codes, coded.audio_codes_mask, decoded.audio_values[:, 0], strict=True
    ):
        expected = codec.encode(wave)
        assert int(real.sum()) == expected.shape[-1]
        assert torch.equal(codes[:, real.bool()], expected[0])
        ours = codec.decode(expected, len(wave))[0]
        assert (sound[: len(wave)] - ours).abs().mean() < 1e-2 * ours.abs().mean()
        assert not sound[len(wave) :].any()
    both = model(**batch)
    assert torch.equal(both.audio_codes, coded.audio_codes)
    assert torch.equal(both.audio_values, decoded.audio_values)


def test_without_a_mask_all_samples_count(model, codec, waves):
    wave = torch.from_numpy(waves[0])[None]
    codes = model.encode(wave).audio_codes
    assert torch.equal(codes, codec.encode(wave))
    assert torch.equal(model.encode(wave[:, None]).audio_codes, codes)
    assert torch.equal(model.decode(codes).mel, codec.decode_to_mel(codes))
    assert model.decode(codes).audio_values.shape == (1, 1, codec.decode(codes).shape[-1])


def test_a_batch_as_long_as_asked(model, codec, waves):
    batch = MelcodecFeatureExtractor()(waves[2:4], padding="max_length", max_length=11_000)
    assert batch["input_values"].shape == (2, 1, 11_000)
    codes = model.encode(**batch)
    assert codes.audio_codes_mask.sum(1).tolist() == [codec.num_codes(len(wave)) for wave in waves[2:4]]
    assert torch.equal(codes.audio_codes[0, :, :9], codec.encode(waves[2])[0])


def test_another_rate_is_resampled_as_a_file_is(model, codec, examples):
    import soundfile

    wave, rate = soundfile.read(examples["kathleen_en_48k_stereo"], dtype="float32")
    batch = MelcodecFeatureExtractor()(wave.mean(1), sampling_rate=rate, return_tensors="np")
    assert isinstance(batch["input_values"], np.ndarray)
    codes = model.encode(torch.from_numpy(batch["input_values"])).audio_codes
    assert np.array_equal(codes[0], codec.encode_file(examples["kathleen_en_48k_stereo"]).codes)


def test_several_codebooks_and_another_backbone(waves):
    torch.manual_seed(0)
    quantizer = ResidualConfig(stages=2, inner=EMAConfig(codebook_size=16))
    config = ModelConfig(dim=8, backbone=ConvNeXtConfig(hidden=8, num_blocks=1), quantizer=quantizer)
    checkpoint = from_model(build_vqvae(config), config, xtts_mel_norms(), {})
    model = MelcodecModel(MelcodecConfig(config.model_dump(mode="json"))).eval()
    model.load_state_dict(checkpoint.tensors)
    assert model.config.codebook_sizes == [16, 16]
    codes = model.encode(torch.from_numpy(waves[0])[None]).audio_codes
    assert torch.equal(codes, Codec.from_checkpoint(checkpoint, "cpu").encode(waves[0]))


def test_a_folder_that_both_sides_read(model, codec, tmp_path, waves):
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    model.save_pretrained(tmp_path / "saved")
    MelcodecFeatureExtractor().save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    again = AutoModel.from_pretrained(tmp_path / "saved")
    assert type(again) is MelcodecModel
    assert again.fingerprint == model.fingerprint == codec.fingerprint
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    assert type(AutoConfig.from_pretrained(tmp_path / "saved")) is MelcodecConfig
    features = AutoFeatureExtractor.from_pretrained(tmp_path / "saved")
    assert type(features) is MelcodecFeatureExtractor
    batch = features(waves[0], sampling_rate=22_050)
    assert torch.equal(again.encode(**batch).audio_codes, codec.encode(waves[0]))
    ours = melcodec.load(tmp_path / "saved", device="cpu")
    assert torch.equal(ours.encode(waves[0]), codec.encode(waves[0]))
    facts = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert facts["architectures"] == ["MelcodecModel"]
    assert (facts["sampling_rate"], facts["codebook_sizes"], facts["samples_per_code"]) == (22_050, [32], 1_024)


def test_the_vocoder_of_the_configuration_is_used(model, tmp_path, waves):
    model.save_pretrained(tmp_path / "saved")
    facts = json.loads((tmp_path / "saved" / "config.json").read_text())
    facts["vocoder"]["iterations"] = 1
    (tmp_path / "saved" / "config.json").write_text(json.dumps(facts))
    other = MelcodecModel.from_pretrained(tmp_path / "saved")
    codes = model.encode(torch.from_numpy(waves[0])[None]).audio_codes
    assert torch.equal(other.decode(codes).mel, model.decode(codes).mel)
    assert not torch.equal(other.decode(codes).audio_values, model.decode(codes).audio_values)


PUSHED = """
import sys
import melcodec, melcodec.hf
from transformers import AutoModel
model = melcodec.hf.MelcodecModel.from_checkpoint(sys.argv[1])
model.push_to_hub("user/name")
model.save_pretrained(sys.argv[2], push_to_hub=True, repo_id="user/other")
assert AutoModel.from_pretrained("user/name").fingerprint == model.fingerprint
assert melcodec.load("user/other", device="cpu").fingerprint == model.fingerprint
try:
    melcodec.load("user/none")
except melcodec.MelcodecError as error:
    print(error.message)
"""


@pytest.mark.slow
def test_a_hub(tiny_checkpoint, tmp_path):
    with hub() as (address, repositories, _):
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", PUSHED, str(tiny_checkpoint), str(tmp_path / "saved")]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("user/none: no such checkpoint, here or on the hub")
    assert {"config.json", "model.safetensors"} <= set(repositories["user/name"])
    assert repositories["user/other"]["model.safetensors"] == repositories["user/name"]["model.safetensors"]


def test_what_may_be_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("user/name")
    assert is_hub_id("user/name-1.2")
    (tmp_path / "runs").mkdir()
    for path in ("runs/name", "name", "user/name.safetensors", "a/b/c", "/user/name", "../name", "user/dvae.pth"):
        assert not is_hub_id(path), path
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MelcodecError, match="no such checkpoint") as caught:
        find_checkpoint("user/name")
    assert "melcodec[hf]" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "mask", "words"),
    [
        (torch.zeros(1, 2, 600), None, r"shape \(1, 2, 600\)"),
        (torch.zeros(600), None, "shape"),
        (torch.zeros(1, 600).double(), None, "float32"),
        (torch.full((1, 600), torch.nan), None, "NaN"),
        (torch.zeros(1, 3), torch.tensor([[0, 1, 1]]), "on the right"),
        (torch.zeros(1, 3), torch.tensor([[0, 0, 0]]), "every item must have a sample"),
    ],
)
def test_what_cannot_be_meant_is_refused(model, values, mask, words):
    with pytest.raises(MelcodecError, match=words):
        model.encode(values, mask)


def test_features_refuse_what_cannot_be_meant():
    features = MelcodecFeatureExtractor()
    for wrong in ([], np.zeros(10, np.int16), np.zeros((2, 100), np.float32)):
        with pytest.raises(MelcodecError):
            features(wrong)
    wave = np.zeros(10, np.float32)
    for wrong in ({"padding": False}, {"padding": "max_length"}, {"max_length": 20}, {"padding": "max_length", "max_length": 9}):
        with pytest.raises(MelcodecError, match=r"padding|max_length"):
            features(wave, **wrong)
    with pytest.raises(MelcodecError, match="torch or NumPy"):
        features(np.zeros(10, np.float32), return_tensors="tf")


def test_half_a_model_is_refused(tiny_checkpoint):
    half = MelcodecModel.from_checkpoint(tiny_checkpoint).half()
    with pytest.raises(MelcodecError, match="computed in float32"):
        half.encode(torch.zeros(1, 600))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # of the compiler, about what it does not compile
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_whole(model, waves, backend):
    batch = MelcodecFeatureExtractor()(waves, sampling_rate=22_050)
    expected = model.encode(**batch)
    torch.compiler.reset()
    encode = torch.compile(model.encode, fullgraph=True, backend=backend)
    assert torch.equal(encode(**batch).audio_codes, expected.audio_codes)
    decode = torch.compile(model.decode, fullgraph=True, backend=backend)
    ours, given = (each(expected.audio_codes, batch["padding_mask"]) for each in (model.decode, decode))
    assert (given.mel - ours.mel).abs().max() < 1e-4
    assert (given.audio_values - ours.audio_values).abs().mean() < 1e-2 * ours.audio_values.abs().mean()


def test_a_missing_package_is_named(run_python):
    script = """
import sys
sys.modules["transformers"] = None
from melcodec.errors import MelcodecError
try:
    import melcodec.hf
except MelcodecError as error:
    print(error.message, error.hint)
"""
    assert "melcodec[hf]" in run_python(script)


def test_the_shipped_default_by_its_name(examples):
    model = MelcodecModel.from_checkpoint("melcodec-base")
    wave = torch.from_numpy(load(examples["kerstin_de"], 22_050))[None]
    assert torch.equal(model.encode(wave).audio_codes, melcodec.load(device="cpu").encode(wave))
