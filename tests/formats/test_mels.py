"""Mel files: three formats, two domains, and everything that is no mel."""

from __future__ import annotations

import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.formats.arrays import SUFFIXES, read_array_header
from melcodec.formats.mels import load_mel, save_mel
from melcodec.store.codes import Codes, save_codes


@pytest.fixture
def mel(golden):
    return golden["0.mel"].reshape(80, -1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, mel, suffix):
    path = tmp_path / f"m{suffix}"
    save_mel(path, mel.astype(np.float64))
    found = load_mel(path)
    assert found.dtype == np.float32
    assert np.array_equal(found, mel)
    name, header = read_array_header(path)
    assert (name, header.shape) == (None if suffix == ".npy" else "mel", mel.shape)
    assert header.facts.get("domain") == (None if suffix == ".npy" else "natural")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_models_domain_is_known_where_the_file_can_say_it(tmp_path, mel, suffix):
    save_mel(tmp_path / f"m{suffix}", mel, normalized=True)
    if suffix == ".npy":
        assert load_mel(tmp_path / "m.npy").shape == mel.shape
        return
    with pytest.raises(MelcodecError, match="is in the model's domain") as error:
        load_mel(tmp_path / f"m{suffix}")
    assert error.value.hint == "decode again without --normalized"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_fine(tmp_path, mel, dtype):
    np.save(tmp_path / "m.npy", mel.astype(dtype))
    found = load_mel(tmp_path / "m.npy")
    assert found.dtype == np.float32
    assert np.allclose(found, mel, atol=0.02)


def test_another_number_of_bands(tmp_path):
    save_mel(tmp_path / "m.npz", np.zeros((100, 3)))
    assert load_mel(tmp_path / "m.npz", n_mels=100).shape == (100, 3)
    with pytest.raises(MelcodecError, match=r"shape \(100, 3\), not \(80, T\)"):
        load_mel(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((80, 3), np.uint16), "uint16 values are not a mel spectrogram"),
        (np.zeros(80, np.float32), r"shape \(80,\)"),
        (np.zeros((80, 0), np.float32), r"shape \(80, 0\)"),
        (np.full((80, 3), np.nan, np.float32), "NaN or infinity"),
        (np.full((80, 3), -np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_arrays_that_are_no_mel(tmp_path, array, reason):
    np.save(tmp_path / "m.npy", array)
    with pytest.raises(MelcodecError, match=f"m.npy: .*{reason}"):
        load_mel(tmp_path / "m.npy")


def test_codes_are_no_mel(tmp_path):
    save_codes(tmp_path / "c.npz", Codes(np.zeros((1, 3), np.int64)))
    with pytest.raises(MelcodecError, match="holds codes, not mel"):
        load_mel(tmp_path / "c.npz")


def test_overwrite(tmp_path, mel):
    save_mel(tmp_path / "m.npy", mel)
    with pytest.raises(MelcodecError, match="exists already"):
        save_mel(tmp_path / "m.npy", mel, overwrite=False)
