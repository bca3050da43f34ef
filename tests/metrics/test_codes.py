from __future__ import annotations

import math

import numpy as np
import pytest

from melcodec.metrics.codes import bit_rate, code_durations, code_usage, run_lengths, silent_codes


@pytest.mark.parametrize(
    ("counts", "used", "perplexity", "bits", "total"),
    [
        ([5, 5, 5, 5], 4, 4.0, 2.0, 20),
        ([7, 0, 0, 0], 1, 1.0, 0.0, 7),
        ([1, 1, 0, 0], 2, 2.0, 1.0, 2),
        ([2, 1, 1, 0], 3, 2**1.5, 1.5, 4),
        ([0, 0, 0, 0], 0, 1.0, 0.0, 0),
    ],
)
def test_code_usage(counts, used, perplexity, bits, total):
    usage = code_usage(np.array(counts))
    assert (usage.used, usage.total) == (used, total)
    assert usage.perplexity == pytest.approx(perplexity)
    assert usage.entropy_bits == pytest.approx(bits)


def test_usage_of_real_codes(golden):
    codes = np.concatenate([golden[f"{index}.codes"] for index in range(3)])
    usage = code_usage(np.bincount(codes, minlength=32))
    assert usage.used == len(set(codes.tolist()))
    assert usage.total == 39 + 56 + 57
    assert 1 < usage.perplexity <= usage.used
    assert usage.perplexity == pytest.approx(2**usage.entropy_bits)


def test_bit_rate():
    assert bit_rate(22_050, 1024, (1024,)) == pytest.approx(215.33, abs=0.01)
    assert bit_rate(22_050, 1024, (8192,)) == pytest.approx(22_050 / 1024 * 13)
    assert bit_rate(24_000, 320, (1000, 1000, 8)) == pytest.approx(75 * (2 * math.log2(1000) + 3))


def test_runs_by_hand():
    assert run_lengths(np.array([3, 3, 5, 3, 3, 3])).tolist() == [2, 1, 3]
    assert run_lengths(np.array([7])).tolist() == [1]
    assert run_lengths(np.array([], np.int64)).tolist() == []


def test_durations_by_hand():
    stay = code_durations(np.array([2, 1, 3]))
    assert (stay.mean, stay.longest, stay.repeated) == (2.0, 3, 0.5)
    assert code_durations(np.array([], np.int64)).mean == 0


def test_silence_is_a_code_whose_frames_all_lie_at_the_floor():
    mel = np.full((2, 11), math.log(1e-5), np.float32)
    mel[1, 5] = 0.0
    # frames 0-3, 4-7, and 8-10, which are three
    assert silent_codes(mel, 1e-5, 4).tolist() == [True, False, True]
    assert silent_codes(mel, 1e-6, 4).tolist() == [False, False, False]
    assert silent_codes(mel, 1e-5, 1).sum() == 10


def test_real_digital_silence_is_found_and_quiet_speech_is_not(examples):
    """The clip of Nathalie is two prompts joined by 0.3 s of zeros."""
    from melcodec.audio.io import load
    from melcodec.audio.mel import build_frontend
    from melcodec.config import MelConfig, xtts_mel_norms

    frontend = build_frontend(MelConfig(), xtts_mel_norms())
    mels = {name: np.concatenate(list(frontend.stream([load(examples[name], 22_050)])), axis=1) for name in examples}
    assert 3 <= silent_codes(mels["nathalie_nl"], frontend.floor, 4).sum() <= 7
    assert silent_codes(mels["lj_en"], frontend.floor, 4).sum() == 0
