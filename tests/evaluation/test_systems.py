from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.subjects import find_subjects
from melcodec.evaluation.systems.base import Tools
from melcodec.evaluation.systems.build import SYSTEMS, build_systems, plan_systems
from melcodec.evaluation.systems.bypassed import bypassed
from melcodec.evaluation.systems.foreign import Opus
from melcodec.evaluation.systems.kmeans import learn_centres, through_kmeans
from melcodec.evaluation.systems.untouched import Mel


@pytest.fixture(scope="module")
def codec(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def wav(examples):
    return load(examples["lj_en"], 22_050)


@pytest.fixture(scope="module")
def floor(codec, speech_folder):
    return learn_centres(codec, find_subjects([speech_folder]), 0, lambda done, total: None)


def made(tools, name, original, codes):
    """What the system called ``name`` makes of ``original``."""
    (system,) = build_systems(tools, [name])
    return system.output(original, codes)


def names(systems):
    return [system.name for system in systems]


def test_without_anchors_there_are_the_codes_alone(codec):
    systems, absent = plan_systems(codec, anchors=False, train=True)
    assert (names(systems), absent) == (["codes"], {})
    assert systems[0].bit_rate == codec.bitrate


def test_what_is_missing_says_what_would_bring_it(codec, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    systems, absent = plan_systems(codec, anchors=True, train=False)
    assert names(systems) == ["codes", "unquantized", "mel", "original"]
    assert absent == {
        "kmeans": "it is learned from training speech, which is given with --train",
        "codec2": "the program 'c2enc' is not installed",
        "opus": "the program 'opusenc' is not installed",
    }


def test_what_is_there_is_planned(codec, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: f"bin/{program}")
    systems, absent = plan_systems(codec, anchors=True, train=True)
    assert names(systems) == ["codes", "unquantized", "kmeans", "codec2", "opus", "mel", "original"]
    assert absent == {}
    assert [system.bit_rate for system in systems[2:5]] == [codec.bitrate, 700, 6000]


def test_long_equals_short_without_the_quantizer(wav):
    codec = Codec.from_pretrained("melcodec-base", "cpu")  # the tiny model's latents are so large that rounding shows
    mel = codec.mel(wav)
    whole = bypassed(codec, mel)
    assert whole.shape[-1] == 4 * codec.num_codes(len(wav))
    codec.chunk_codes = 10
    torch.testing.assert_close(bypassed(codec, mel), whole, rtol=0, atol=1e-4)


def test_the_bypass_leaves_out_the_codebook_alone(codec, wav):
    mel = codec.mel(wav)
    with torch.inference_mode():
        model = codec.model
        expected = codec.frontend.denormalize(model.decoder(model.encode_latents(codec.frontend.normalize(mel))))
    torch.testing.assert_close(bypassed(codec, mel), expected)
    assert not torch.equal(expected, codec.decode_to_mel(codec.encode_mel(mel)))


def test_every_way_gives_the_original_s_length(codec, wav, floor):
    tools = Tools(codec, floor, audible=True)
    original = tools.original(wav[:30_001])
    codes = tools.encode(original)
    for system in ("codes", "unquantized", "kmeans", "mel"):
        output = made(tools, system, original, codes)
        assert output.mel.shape == original.mel.shape, system
        assert output.wave.shape == original.wave.shape, system
    assert made(tools, "original", original, codes) is original
    np.testing.assert_array_equal(made(tools, "mel", original, codes).mel, original.mel)


def test_the_codes_way_is_the_codec_s_own(codec, wav):
    tools = Tools(codec, audible=True)
    original = tools.original(wav[:30_001])
    codes = tools.encode(original)
    np.testing.assert_array_equal(codes, codec.encode(wav[:30_001])[0].numpy())
    heard = made(tools, "codes", original, codes).wave
    np.testing.assert_allclose(heard, codec.decode(codes, 30_001)[0].numpy(), atol=1e-6)


def test_no_sound_is_made_that_nobody_wants(codec, wav):
    tools = Tools(codec, audible=False)
    original = tools.original(wav[:30_001])
    assert made(tools, "mel", original, tools.encode(original)).wav is None


def test_the_floor_is_learned_from_speech_and_by_the_seed(codec, floor, speech_folder, wav):
    subjects = find_subjects([speech_folder])
    assert floor.shape == (32, 4 * 80)
    np.testing.assert_array_equal(learn_centres(codec, subjects, 0, lambda *_: None), floor)
    assert not np.array_equal(learn_centres(codec, subjects, 1, lambda *_: None), floor)
    mel = codec.mel(wav)
    rough = through_kmeans(torch.from_numpy(floor), mel, 4)[..., : mel.shape[-1]]
    flat = mel.mean(dim=-1, keepdim=True).expand_as(mel)
    assert (rough - mel).abs().mean() < 0.8 * (flat - mel).abs().mean()


def test_k_means_takes_the_nearest_vector_of_four_frames():
    floor = torch.stack([torch.zeros(8), torch.ones(8)])
    mel = torch.tensor([[[0.1, 0.0, 0.2, 0.1, 0.9, 0.8], [0.0, 0.1, 0.0, 0.1, 1.0, 0.9]]])
    assert through_kmeans(floor, mel, 4)[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_floor_needs_speech_that_can_be_read(codec, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"nonsense")
    with pytest.raises(MelcodecError, match="no speech in --train can be read"):
        learn_centres(codec, find_subjects([tmp_path]), 0, lambda *_: None)


@pytest.mark.parametrize(("system", "program"), [("codec2", "c2enc"), ("opus", "opusenc")])
def test_foreign_codecs_come_back_in_step(codec, wav, system, program):
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    tools = Tools(codec, audible=True)
    original = tools.original(wav)
    output = made(tools, system, original, tools.encode(original))
    assert output.mel.shape == original.mel.shape
    silent = np.full_like(original.mel, original.mel.mean())
    assert np.abs(output.mel - original.mel).mean() < np.abs(silent - original.mel).mean()
    # Codec2 is some 20 to 40 ms late; opusenc's own delay is taken out by the decoder
    assert (300 < output.moved < 1103) if system == "codec2" else abs(output.moved) <= 2


def test_a_program_that_fails_is_named(codec, wav, monkeypatch, tmp_path):
    fake = tmp_path / "opusenc"
    fake.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MelcodecError, match="opusenc failed: out of order"):
        Opus(Tools(codec)).through(wav, 22_050)


class Halved(Mel):
    """A further system, as somebody would add it: half as loud."""

    name = "halved"
    label = "half as loud"
    bit_rate = 1.0

    def output(self, original, codes):
        return self.tools.from_mel(torch.from_numpy(original.mel)[None] + np.log(0.25), original)


def test_a_further_system_is_one_class_and_one_line(codec, wav, monkeypatch):
    monkeypatch.setitem(SYSTEMS, Halved.name, Halved)
    systems, _ = plan_systems(codec, anchors=True, train=False)
    assert names(systems)[-1] == "halved"
    tools = Tools(codec)
    original = tools.original(wav[:30_001])
    quiet = made(tools, "halved", original, tools.encode(original))
    np.testing.assert_allclose(quiet.mel, original.mel - 2 * np.log(2), atol=1e-5)
