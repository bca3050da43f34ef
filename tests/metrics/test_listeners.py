"""Networks that listen: DNSMOS, DistillMOS, the speaker encoder, and the recogniser. Each needs its own package."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from melcodec.audio.io import load
from melcodec.errors import MelcodecError
from melcodec.metrics import naturalness, speaker
from melcodec.metrics import word_errors as recogniser
from melcodec.metrics.naturalness import distillmos, dnsmos
from melcodec.metrics.optional import is_installed
from melcodec.metrics.speaker import speaker_embedding, speaker_similarity
from melcodec.metrics.word_errors import is_english, plain_words, transcribe, word_errors

RATE = 22_050


def needs(*packages):
    missing = [package for package in packages if not is_installed(package)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def wav(examples):
    return load(examples["lj_en"], RATE)


def noisy(wav, amplitude):
    return wav + amplitude * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)


@needs("speechmos", "onnxruntime", "requests")
def test_dnsmos_prefers_clean_speech(wav):
    clean, noise = dnsmos(wav, RATE), dnsmos(noisy(wav, 0.1), RATE)
    assert 3 < clean.overall < 5
    assert 3 < clean.p808 < 5
    assert noise.overall < clean.overall - 0.5
    assert noise.p808 < clean.p808 - 0.3


@needs("distillmos")
def test_distillmos_prefers_clean_speech_and_says_nothing(wav, capsys):
    clean = distillmos(wav, RATE)
    assert 3.5 < clean < 5
    assert distillmos(noisy(wav, 0.1), RATE) < clean - 1
    assert distillmos(load_at(wav, 16_000), 16_000) == pytest.approx(clean, abs=1e-4)
    assert capsys.readouterr().out == ""


def load_at(wav, rate):
    from melcodec.metrics.waves import resample

    return resample(wav, RATE, rate)


@needs("resemblyzer", "webrtcvad")
def test_a_speaker_is_most_like_herself(wav, examples):
    half = len(wav) // 2
    parts = [speaker_embedding(wav[:half], RATE), speaker_embedding(wav[half:], RATE)]
    other = speaker_embedding(load(examples["kerstin_de"], RATE), RATE)
    assert parts[0].shape == (256,)
    assert speaker_similarity(parts[0], parts[0]) == pytest.approx(1, abs=1e-6)
    assert speaker_similarity(*parts) > speaker_similarity(parts[0], other) + 0.1


@needs("resemblyzer", "webrtcvad")
def test_silence_and_clicks_have_no_speaker(wav):
    with pytest.raises(MelcodecError, match="silence has no speaker"):
        speaker_embedding(0 * wav, RATE)
    with pytest.raises(MelcodecError, match="a speaker needs at least"):
        speaker_embedding(wav[:4000], RATE)


@needs("pocketsphinx", "jiwer")
def test_most_words_are_recognised(examples):
    heard = transcribe(load(examples["lj_en"], RATE), RATE)
    found = word_errors("A very few years saw the birth of Roman character, not only in Italy", heard)
    assert found.words == 14
    assert found.errors <= 6


@needs("jiwer")
def test_errors_by_hand():
    assert word_errors("One, two; three four!", "one too three") == (2, 4)
    assert word_errors("Don\N{RIGHT SINGLE QUOTATION MARK}t", "don't") == (0, 1)
    assert word_errors("a", "a b c") == (2, 1)
    assert word_errors("...", "something") == (0, 0)


def test_plain_words():
    assert plain_words("  The 3rd, \N{EM DASH} \N{LATIN CAPITAL LETTER E WITH ACUTE}tude! ") == "the 3rd étude"


@pytest.mark.parametrize(("tag", "known"), [("en", True), ("en-US", True), ("EN_gb", True), ("de", False), ("", False)])
def test_languages(tag, known):
    assert is_english(tag) is known


def test_silence_has_no_quality(wav, monkeypatch):
    monkeypatch.setattr(naturalness, "_dnsmos", lambda: None)
    monkeypatch.setattr(naturalness, "_distillmos", lambda: None)
    for judge in (dnsmos, distillmos):
        with pytest.raises(MelcodecError, match="the output is silent"):
            judge(0 * wav, RATE)


@pytest.mark.parametrize(
    ("package", "judge"),
    [
        ("onnxruntime", dnsmos),
        ("speechmos.dnsmos", dnsmos),
        ("distillmos", distillmos),
        ("resemblyzer", speaker_embedding),
        ("pocketsphinx", transcribe),
    ],
)
def test_a_missing_package_is_named(monkeypatch, wav, package, judge):
    for cached in (naturalness._dnsmos, naturalness._distillmos, speaker._encoder, recogniser._decoder):
        cached.cache_clear()
    if package.startswith("speechmos"):
        pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MelcodecError, match=f"needs the package '{package}'") as caught:
        judge(wav, RATE)
    assert caught.value.hint.startswith("pip install")


def test_jiwer_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MelcodecError, match="needs the package 'jiwer'"):
        word_errors("a", "b")
