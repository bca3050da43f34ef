from __future__ import annotations

import sys

import numpy as np
import pytest

from melcodec.audio.io import load
from melcodec.audio.mel import build_frontend
from melcodec.config import MelConfig, xtts_mel_norms
from melcodec.evaluation import scores
from melcodec.evaluation.catalog import choose
from melcodec.evaluation.scores import ITSELF, Pair, Sound, Spoken, score
from melcodec.metrics.optional import is_installed
from melcodec.metrics.waves import resample

RATE = 22_050
NORMS = np.array(xtts_mel_norms(), np.float32)
CORE = choose("core").names
INSTALLED = choose("all").names


@pytest.fixture(scope="module")
def sound_of():
    frontend = build_frontend(MelConfig(), xtts_mel_norms())

    def build(wav, rate=RATE):
        mel = np.concatenate(list(frontend.stream([resample(wav, rate, RATE)])), axis=1)
        return Sound(wav, rate, mel)

    return build


@pytest.fixture(scope="module")
def wav(examples):
    return load(examples["lj_en"], RATE)


def run(original, output, names=CORE, spoken=None):
    return score(Pair(original, output, NORMS, spoken or Spoken()), names)


def noisy(wav, amplitude=0.01):
    return wav + amplitude * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)


def test_an_equal_sound_has_no_error_and_no_infinite_score(wav, sound_of):
    found = run(sound_of(wav), sound_of(wav.copy()))
    assert [found.values[name] for name in ("log_mel_l1", "log_mel_mse", "norm_mel_l1", "norm_mel_mse", "mcd")] == [0] * 5
    # equal but for rounding: a huge ratio, or none
    assert found.values.get("si_sdr", 200) > 100
    assert found.delay == 0


def test_the_original_is_not_compared_with_itself(wav, sound_of):
    original = sound_of(wav)
    found = run(original, original)
    assert found.values == {}
    assert found.absent == dict.fromkeys(CORE, ITSELF)


def test_both_domains(wav, sound_of):
    original, output = sound_of(wav), sound_of(noisy(wav))
    found = run(original, output).values
    difference = original.mel - output.mel
    assert found["log_mel_l1"] == pytest.approx(np.abs(difference).mean(), rel=1e-4)
    assert found["norm_mel_l1"] == pytest.approx(np.abs(difference / NORMS[:, None]).mean(), rel=1e-4)
    assert found["norm_mel_mse"] == pytest.approx(np.square(difference / NORMS[:, None]).mean(), rel=1e-4)


def test_a_late_output_of_another_length_and_rate_is_aligned(wav, sound_of):
    """What an external codec gives back: 5 ms late, at 48 kHz, and longer."""
    plain = run(sound_of(wav), sound_of(noisy(wav)), ("si_sdr",))
    late = np.concatenate([np.zeros(240, np.float32), resample(noisy(wav), RATE, 48_000), np.zeros(3000, np.float32)])
    found = run(sound_of(wav), sound_of(late, 48_000), ("si_sdr", "log_mel_l1"))
    assert found.delay == pytest.approx(5, abs=0.05)
    # half a sample of rounding is left, no more
    assert found.values["si_sdr"] > plain.values["si_sdr"] - 8 > 0
    assert np.isfinite(found.values["log_mel_l1"])


@pytest.mark.slow
def test_pitch_is_compared_in_step(wav, sound_of):
    """A late copy has no error; one that is played a semitone too high is off by 100 cents."""
    late = np.concatenate([np.zeros(3 * 256, np.float32), wav])
    found = run(sound_of(wav), sound_of(late), ("f0_rmse", "voicing_error")).values
    assert (found["f0_rmse"], found["voicing_error"]) == (pytest.approx(0, abs=15), pytest.approx(0, abs=0.02))
    steady = sound_of(np.sin(2 * np.pi * 200 / RATE * np.arange(RATE)).astype(np.float32))
    higher = sound_of(np.sin(2 * np.pi * 200 * 2 ** (1 / 12) / RATE * np.arange(RATE)).astype(np.float32))
    assert run(steady, higher, ("f0_rmse",)).values["f0_rmse"] == pytest.approx(100, abs=15)


def test_silence_is_scored_where_it_can_be_and_absent_elsewhere(wav, sound_of):
    found = run(sound_of(0 * wav), sound_of(0 * wav), INSTALLED)
    assert found.values["log_mel_l1"] == 0
    assert found.absent["si_sdr"] == "the reference is silent: there is no speech to score"
    assert set(found.values) | set(found.absent) == set(INSTALLED)
    assert not set(found.values) - {"log_mel_l1", "log_mel_mse", "norm_mel_l1", "norm_mel_mse", "mcd"}


def test_a_mel_without_sound_has_mel_figures_only(wav, sound_of):
    original = sound_of(wav)
    found = run(original, Sound(None, RATE, original.mel + 0.5))
    assert found.values["log_mel_l1"] == pytest.approx(0.5, abs=1e-5)
    assert found.absent == {"si_sdr": "there is no sound"}
    assert found.delay is None


@pytest.mark.parametrize(
    ("spoken", "reason"),
    [
        (Spoken(), "no text is known"),
        (Spoken("hello", ""), "its language is not known, and the recogniser knows English only"),
        (Spoken("hallo", "de"), "the recogniser knows English only, not 'de'"),
    ],
)
def test_missing_texts_and_other_languages_have_no_word_error_rate(wav, sound_of, spoken, reason):
    assert run(sound_of(wav), sound_of(noisy(wav)), ("wer",), spoken).absent == {"wer": reason}
    if spoken.text:
        assert run(sound_of(wav), sound_of(noisy(wav)), ("dwer",), spoken).absent == {"dwer": reason}


@pytest.mark.skipif(not all(map(is_installed, ("pocketsphinx", "jiwer"))), reason="needs pocketsphinx and jiwer")
def test_word_errors_weigh_as_many_as_there_are_words(wav, sound_of):
    original = sound_of(wav[: 2 * RATE])
    found = run(original, original, ("wer",), Spoken("a very few years saw the birth", "en-GB"))
    assert found.weights == {"wer": 7}
    assert 0 <= found.values["wer"] <= 1


@pytest.mark.skipif(not all(map(is_installed, ("pocketsphinx", "jiwer"))), reason="needs pocketsphinx and jiwer")
def test_words_that_change_need_no_text(wav, sound_of):
    original = sound_of(wav[: 2 * RATE])
    count = len(original.words.split())
    found = run(original, sound_of(0.9 * wav[: 2 * RATE]), ("dwer",), Spoken(language="en"))
    assert found.weights == {"dwer": count}
    assert found.values["dwer"] < 0.5
    assert run(original, sound_of(wav[2 * RATE : 4 * RATE]), ("dwer",), Spoken(language="en")).values["dwer"] > 0.5
    hum = sound_of(0.1 * np.sin(np.arange(RATE) / 20).astype(np.float32))
    assert run(hum, original, ("dwer",), Spoken(language="en")).absent == {
        "dwer": "the recogniser understands no word of the original"
    }


def test_a_missing_package_is_a_reason_and_no_number(monkeypatch, wav, sound_of):
    monkeypatch.setitem(sys.modules, "pystoi", None)
    assert run(sound_of(wav), sound_of(noisy(wav)), ("stoi",)).absent == {
        "stoi": "needs the package 'pystoi', which is not installed"
    }


def test_whatever_a_foreign_package_raises_is_a_reason(monkeypatch, wav, sound_of):
    def broken(pair):
        raise ZeroDivisionError("inside")

    monkeypatch.setitem(scores.SCORERS, "stoi", broken)
    monkeypatch.setitem(scores.SCORERS, "estoi", lambda pair: float("nan"))
    found = run(sound_of(wav), sound_of(noisy(wav)), ("stoi", "estoi", "mcd"))
    assert found.absent == {"stoi": "ZeroDivisionError: inside", "estoi": "not a finite number (nan)"}
    assert found.values.keys() == {"mcd"}
