import sys

import numpy as np
import pytest

from melcodec.audio.io import load
from melcodec.errors import MelcodecError
from melcodec.metrics.speech import estoi, pesq_nb, pesq_wb, stoi

RATE = 22_050
SCORES = {"stoi": stoi, "estoi": estoi, "pesq_wb": pesq_wb, "pesq_nb": pesq_nb}
PACKAGES = {"stoi": "pystoi", "estoi": "pystoi", "pesq_wb": "pesq", "pesq_nb": "pesq"}


@pytest.fixture(scope="module")
def wav(examples):
    return load(examples["lj_en"], RATE)


@pytest.fixture(params=SCORES)
def score(request):
    pytest.importorskip(PACKAGES[request.param])
    return SCORES[request.param]


def noisy(wav, amplitude):
    return wav + amplitude * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)


def test_equal_sounds_get_the_best_score(wav):
    pytest.importorskip("pystoi")
    assert stoi(wav, wav, RATE) == pytest.approx(1.0, abs=1e-4)
    assert estoi(wav, wav, RATE) == pytest.approx(1.0, abs=1e-4)
    pytest.importorskip("pesq")
    assert pesq_wb(wav, wav, RATE) == pytest.approx(4.64, abs=0.01)
    assert pesq_nb(wav, wav, RATE) == pytest.approx(4.55, abs=0.01)


def test_the_variants_are_scores_of_their_own(wav):
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    worse = noisy(wav, 0.02)
    assert estoi(wav, worse, RATE) < stoi(wav, worse, RATE) - 0.05
    assert abs(pesq_nb(wav, worse, RATE) - pesq_wb(wav, worse, RATE)) > 0.2


def test_more_noise_scores_lower(score, wav):
    scores = [score(wav, noisy(wav, amplitude), RATE) for amplitude in (0.001, 0.01, 0.1)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 1.2 * scores[2]


def test_the_rate_matters(score, wav, examples):
    """Scores of one sound at 22.05 and 48 kHz agree; a wrong rate gives another one."""
    high = load(examples["lj_en"], 48_000)
    right = score(wav, noisy(wav, 0.01), RATE)
    assert abs(score(wav, noisy(wav, 0.01), 48_000) - right) > 0.005
    assert score(high, 0.5 * high, 48_000) == pytest.approx(score(wav, 0.5 * wav, RATE), rel=0.02)


@pytest.mark.parametrize("shape", [(1000,), (1, 114_659)])
def test_other_shapes_are_refused(score, wav, shape):
    with pytest.raises(MelcodecError, match="cannot compare sounds of shape"):
        score(wav, np.ones(shape, np.float32), RATE)


def test_too_little_speech_is_refused(score, wav):
    with pytest.raises(MelcodecError, match="needs at least"):
        score(wav[10_000:12_000], wav[10_000:12_000], RATE)
    with pytest.raises(MelcodecError, match="the reference is silent"):
        score(0 * wav, wav, RATE)


def test_pesq_of_a_silent_output_is_refused(wav):
    pytest.importorskip("pesq")
    with pytest.raises(MelcodecError, match="the output is silent"):
        pesq_wb(wav, 0 * wav, RATE)


@pytest.mark.slow
def test_pesq_of_a_long_sound_is_a_mean_over_parts(wav):
    """The ITU's code crashes the process on what has more than 50 utterances, as three minutes of speech do."""
    pytest.importorskip("pesq")
    long = np.tile(wav, 40)
    assert len(long) / RATE > 180
    assert pesq_wb(long, noisy(long, 0.01), RATE) == pytest.approx(pesq_wb(wav, noisy(wav, 0.01), RATE), abs=0.3)
    half_silent = np.concatenate([wav, np.zeros(35 * RATE, np.float32)])
    assert pesq_wb(half_silent, noisy(half_silent, 0.01), RATE) > 1


@pytest.mark.parametrize("name", SCORES)
def test_a_missing_package_is_named(monkeypatch, wav, name):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(MelcodecError, match=PACKAGES[name]) as caught:
        SCORES[name](wav, wav, RATE)
    assert "melcodec[eval]" in caught.value.hint
