"""docs/browser/ in headless Chromium: a file and a recording are encoded with the codes of torch, and played."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.config import GriffinLimConfig
from melcodec.formats.checkpoint import load_checkpoint
from tests.onnx.browsing import encoded_in_browser, forget, result, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def codec(tiny_checkpoint) -> Codec:
    return Codec.from_checkpoint(load_checkpoint(tiny_checkpoint), "cpu", GriffinLimConfig(iterations=4))


@pytest.mark.parametrize("kind", ["as it is", "48 kHz stereo", "24 bits"])
def test_a_file_has_the_codes_and_the_sound_of_torch(page, codec, examples, tmp_path, kind):
    source, wav = examples["kathleen_en_48k_stereo" if kind == "48 kHz stereo" else "lj_en"], tmp_path / "in.wav"
    samples, rate = soundfile.read(source, dtype="float32")
    soundfile.write(wav, samples, rate, subtype="PCM_24" if kind == "24 bits" else "PCM_16")
    codes, original, decoded = encoded_in_browser(page, wav)
    ours = codec.encode_file(wav)
    assert np.array_equal(codes, ours.codes)
    assert page.text_content("#codes") == " ".join(map(str, ours.codes[0]))
    assert np.abs(original - load(wav, 22_050)).max() < 2e-6  # the filter is computed in float64 there
    expected = codec.decode(ours.codes, ours.num_samples)[0].numpy()
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).mean() < 1e-2 * np.abs(expected).mean()


def test_both_sounds_play(page, codec, examples, tmp_path):
    soundfile.write(tmp_path / "in.wav", load(examples["kerstin_de"], 22_050)[:22_050], 22_050)
    page.set_input_files("#file", tmp_path / "in.wav")
    wait(page, "1.00 s: 22 codes")
    for player in ("original", "decoded"):
        play = "async id => { const a = document.getElementById(id); a.muted = true; await a.play(); return a.duration; }"
        length = page.evaluate(play, player)
        assert abs(length - 1) < 1e-3
        page.wait_for_function("id => document.getElementById(id).currentTime > 0", arg=player, timeout=30_000)


def test_a_recording_has_the_codes_of_torch(page, codec):
    page.click("#record")
    wait(page, "Recording")
    page.wait_for_timeout(2_500)
    forget(page)
    page.click("#record")
    wait(page, "encoded in")
    codes, original, decoded = result(page)
    assert len(original) > 22_050
    assert np.abs(original).max() > 0.05  # the microphone heard speech
    assert np.array_equal(codes, codec.encode(original)[0].numpy())
    assert decoded.shape == original.shape
    assert page.text_content("#record") == "Record"


def test_what_is_no_sound_is_said(page, tmp_path):
    (tmp_path / "in.wav").write_bytes(b"no sound")
    page.set_input_files("#file", tmp_path / "in.wav")
    wait(page, "That did not work")
