"""Entropy coding: lossless at the model's rate, the same under any order of summation, and never wrong codes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from melcodec.errors import MelcodecError
from melcodec.prior import coding, mlc
from melcodec.prior.models import load_prior, save_prior
from melcodec.store.codes import Codes
from tests.prior.conftest import SIZE, make_prior, spoken_codes

pytest.importorskip("constriction")
pytest.importorskip("transformers")
KINDS = [("llama", (SIZE,), "flat"), ("llama", (SIZE, 16), "delay"), ("llama", (SIZE, 16), "flat"), ("mamba", (SIZE,), "flat")]
KINDS += [("ngram", (SIZE,), "flat"), ("ngram", (SIZE, 16), "flat")]


@pytest.mark.parametrize(("kind", "sizes", "pattern"), KINDS)
def test_lossless_at_the_rate_of_the_model(kind, sizes, pattern):
    prior = make_prior(kind, sizes, pattern)
    codes = spoken_codes(1, 9, 50, sizes)[0]  # beyond the window of 16
    content = coding.compress(prior, Codes(codes, 51_199, 44_100))
    again = coding.decompress(prior, content, "x.mlc")
    assert np.array_equal(again.codes, codes)
    assert (again.num_samples, again.source_rate, again.fingerprint) == (51_199, 44_100, prior.space.fingerprint)
    header, payload = mlc.unpack(content, "x.mlc", 1024)
    assert header.num_codes == codes.shape[1]
    assert len(content) - len(payload) <= 20
    assert 8 * len(payload) <= prior.surprise(codes).sum() * 1.001 + 32
    unknown = coding.decompress(prior, coding.compress(prior, Codes(codes)), "x.mlc")
    assert (unknown.num_samples, unknown.source_rate) == (None, None)


@pytest.mark.parametrize("samples", [None, 0, 1_023, 1_024, 10**9])
@pytest.mark.parametrize("rate", [None, 4_000, 8_000, 96_000, 192_000])
@pytest.mark.parametrize("count", [1, 50, 2_000_000])
def test_headers_there_and_back(samples, rate, count):
    header = mlc.Header(7, "0123", "89abcd", count, samples, rate, 5)
    assert mlc.unpack(mlc.pack(header, b"xyz", 1024), "x.mlc", 1024) == (header, b"xyz")


def test_the_table_of_frequencies_is_fixed():
    """Files that exist depend on it: math libraries must not change it, and nor must we."""
    table = coding.frequencies()
    assert (table[0], table[-1], len(table)) == (2**20, 1, 1025)
    assert hashlib.sha256(table.astype("<i8").tobytes()).hexdigest()[:16] == "fc2acd4e0200d391"


def test_the_rounding_keeps_clear_of_borders():
    logits = np.array([[0.0, -0.5 / 256 / coding.STEPS_PER_NAT, -3.0]])  # the second lies on a border for r = 0
    assert not coding.is_safe(logits - 1e-13, 0)
    safe = next(r for r in range(256) if coding.is_safe(logits, r))
    moved = logits + 1e-12 * np.array([[1, -1, 1]])
    assert np.array_equal(coding.quantized(moved, safe), coding.quantized(logits, safe))
    hair = np.array([[0, 1e-12, 0]])
    assert not np.array_equal(coding.quantized(logits + hair, 0), coding.quantized(logits - hair, 0))


DECODE = """
import sys, json, torch
from pathlib import Path
from melcodec.prior.coding import load_mlc
from melcodec.prior.models import load_prior
torch.set_num_threads(int(sys.argv[3]))
print(json.dumps(load_mlc(Path(sys.argv[1]), load_prior(Path(sys.argv[2]))).codes.tolist()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "mamba", "ngram"])
def test_other_threads_and_instruction_sets_give_the_same_codes(tmp_path, kind):
    prior, codes = make_prior(kind), spoken_codes(1, 9, 20)[0]
    (tmp_path / "prior").mkdir()
    save_prior(tmp_path / "prior", prior)
    coding.save_mlc(tmp_path / "x.mlc", prior, Codes(codes))
    words = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", DECODE, str(tmp_path / "x.mlc"), str(tmp_path / "prior"), "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | words, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == codes.tolist()


def test_probabilities_that_differ_are_an_error(monkeypatch):
    """A decoder whose arithmetic differs by more than the margin: an error, never other codes."""
    prior, codes = make_prior("llama"), spoken_codes(1, 9, 50)[0]
    content = coding.compress(prior, Codes(codes))
    start = type(prior).start
    for size in (1e-2, 1.0):

        class Shaken:
            def __init__(self, growing):
                self.growing, self.random = growing, np.random.default_rng(0)

            def next(self, rows, size=size):
                logits = self.growing.next(rows)
                return logits + size * self.random.standard_normal(logits.shape)

        with monkeypatch.context() as patch:
            patch.setattr(type(prior), "start", lambda self, *args: Shaken(start(self, *args)))
            with pytest.raises(MelcodecError, match="other probabilities here"):
                coding.decompress(prior, content, "x.mlc")
    assert np.array_equal(coding.decompress(prior, content, "x.mlc").codes, codes)


def test_a_difference_in_the_last_digits_changes_nothing(monkeypatch):
    prior, codes = make_prior("llama"), spoken_codes(1, 9, 50)[0]
    content = coding.compress(prior, Codes(codes))
    read = type(prior.core(torch.float64)).read
    random = torch.Generator().manual_seed(0)

    def shaken(self, rows, state):
        logits = read(self, rows, state)
        return logits + 1e-12 * torch.randn(logits.shape, generator=random, dtype=torch.float64)

    monkeypatch.setattr(type(prior.core(torch.float64)), "read", shaken)
    assert np.array_equal(coding.decompress(prior, content, "x.mlc").codes, codes)


def test_every_damaged_byte_is_an_error(tmp_path):
    prior, codes = make_prior("ngram"), spoken_codes(1, 9, 30)[0]
    content = coding.compress(prior, Codes(codes, 30_000, 16_000))
    for place in range(len(content)):
        for broken in (content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :], content[:place]):
            with pytest.raises(MelcodecError, match=r"x\.mlc: (damaged|not a \.mlc file|written by a newer)"):
                coding.decompress(prior, broken, "x.mlc")
    with pytest.raises(MelcodecError, match="damaged"):
        coding.decompress(prior, content + b"\0", "x.mlc")


def test_another_prior_or_codec_is_refused():
    one, other = make_prior("ngram"), make_prior("llama")
    content = coding.compress(one, Codes(spoken_codes(1, 9)[0]))
    with pytest.raises(MelcodecError, match=rf"made with prior {one.fingerprint[:6]}\.\.\., but this one is {other.fingerprint}"):
        coding.decompress(other, content, "x.mlc")
    with pytest.raises(MelcodecError, match="codes of checkpoint ffffffffffff"):
        coding.compress(one, Codes(spoken_codes(1, 9)[0], fingerprint="f" * 12))


def test_a_saved_prior_is_the_same_and_a_damaged_one_is_refused(tmp_path):
    prior = make_prior("llama")
    save_prior(tmp_path, prior)
    again = load_prior(tmp_path)
    codes = spoken_codes(1, 9)[0]
    assert again.fingerprint == prior.fingerprint
    assert np.array_equal(again.surprise(codes), prior.surprise(codes))
    assert [table.order for table in (*again.baselines, again.table)] == [1, 2, 3]
    facts = json.loads((tmp_path / "prior.json").read_text())
    (tmp_path / "prior.json").write_text(json.dumps(facts | {"pattern": "delay"}))
    with pytest.raises(MelcodecError, match="fingerprint"):
        load_prior(tmp_path)
    (tmp_path / "prior.json").write_text(json.dumps(facts))
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-2] ^= 0x7F
    (tmp_path / "model.safetensors").write_bytes(bytes(weights))
    with pytest.raises(MelcodecError, match="damaged"):
        load_prior(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(weights[:100]))
    with pytest.raises(MelcodecError, match="cannot be read"):
        load_prior(tmp_path)
    with pytest.raises(MelcodecError, match="not a prior"):
        load_prior(tmp_path / "nothing")
