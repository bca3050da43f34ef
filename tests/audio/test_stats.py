"""Norms: measured as XTTS means them, and the three files that hold them."""

import json

import numpy as np
import pytest
import soundfile
import torch

from melcodec.audio.io import find_audio, load
from melcodec.audio.mel import build_frontend
from melcodec.audio.stats import load_mel_norms, mel_statistics, save_mel_norms
from melcodec.config import MelConfig, xtts_mel_norms
from melcodec.errors import MelcodecError

SUFFIXES = [".pth", ".npy", ".json"]


@pytest.fixture(scope="module")
def frontend():
    # not ones: the norms must not enter their own measurement
    return build_frontend(MelConfig(), xtts_mel_norms())


def test_the_mean_over_all_frames_of_all_files(frontend, speech_folder):
    paths, seen = find_audio(speech_folder), []
    stats = mel_statistics(paths, frontend, lambda done, total: seen.append((done, total)))
    mels = [frontend(torch.from_numpy(load(path, 22_050))[None])[0].double() for path in paths]
    frames = torch.cat(mels, dim=1)
    assert len({mel.shape[1] for mel in mels}) > 1, "of different lengths, or a mean of means would pass"
    np.testing.assert_allclose(stats.norms, frames.mean(dim=1), rtol=1e-6)
    assert stats.num_frames == frames.shape[1]
    assert stats.failures == {}
    assert seen == [(number, len(paths)) for number in range(1, len(paths) + 1)]


def test_speech_comes_near_the_norms_of_xtts(frontend, examples):
    norms = np.array(mel_statistics(list(examples.values()), frontend).norms)
    assert np.corrcoef(norms, xtts_mel_norms())[0, 1] > 0.9
    assert (norms < 0).all()


def test_bad_files_are_named_and_do_not_count(frontend, examples, tmp_path):
    good = examples["lj_en"]
    text, half = tmp_path / "text.wav", tmp_path / "half.wav"
    text.write_text("no sound")
    wav = np.tile(load(good, 22_050), 20)  # long enough for the first mels to be there before the NaN is met
    wav[-1] = np.nan
    soundfile.write(half, wav, 22_050, subtype="FLOAT")
    stats = mel_statistics([text, good, half, tmp_path / "gone.wav"], frontend)
    assert stats.norms == mel_statistics([good], frontend).norms
    assert list(stats.failures) == [text, half, tmp_path / "gone.wav"]
    assert "not readable as audio" in stats.failures[text]
    assert "NaN" in stats.failures[half]
    assert "no such file" in stats.failures[tmp_path / "gone.wav"]


def test_no_readable_file_is_an_error(frontend, tmp_path):
    with pytest.raises(MelcodecError, match="no file of the corpus could be read") as caught:
        mel_statistics([tmp_path / "gone.wav"], frontend)
    assert "no such file" in caught.value.hint
    with pytest.raises(MelcodecError, match="no file of the corpus"):
        mel_statistics([], frontend)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_keep_the_norms_and_are_repeatable(tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in paths:
        save_mel_norms(path, xtts_mel_norms())
        assert load_mel_norms(path) == xtts_mel_norms()
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(MelcodecError, match="exists already"):
        save_mel_norms(paths[0], xtts_mel_norms(), overwrite=False)


def test_the_files_are_what_others_read(tmp_path, golden_folder):
    for suffix in SUFFIXES:
        save_mel_norms(tmp_path / f"norms{suffix}", xtts_mel_norms())
    tensor = torch.load(tmp_path / "norms.pth", weights_only=True)
    reference = torch.load(golden_folder / "mel_stats.pth", weights_only=True)
    assert (tensor.shape, tensor.dtype) == (reference.shape, reference.dtype)
    assert torch.equal(tensor, reference)
    array = np.load(tmp_path / "norms.npy", allow_pickle=False)
    assert (array.shape, array.dtype) == ((80,), np.float32)
    assert json.loads((tmp_path / "norms.json").read_text()) == list(xtts_mel_norms())


def test_the_file_of_xtts_gives_the_norms_of_the_presets(golden_folder):
    """Equal to the last digit: they enter the fingerprint."""
    assert load_mel_norms(golden_folder / "mel_stats.pth") == xtts_mel_norms()


def without(index, value):
    norms = np.array(xtts_mel_norms(), dtype=np.float32)
    norms[index] = value
    return norms


@pytest.mark.parametrize(
    ("norms", "reason"),
    [
        (np.full(79, -5.0), r"shape \(79,\), not \(80,\)"),
        (np.full((80, 1), -5.0), r"shape \(80, 1\)"),
        (np.float32(-5), r"shape \(\)"),
        (without(3, 0), "zeros, NaN or infinity"),
        (without(79, np.nan), "zeros, NaN or infinity"),
        (without(0, -np.inf), "zeros, NaN or infinity"),
    ],
)
def test_norms_that_cannot_be_divided_by(tmp_path, norms, reason):
    norms = np.asarray(norms, dtype=np.float32)
    torch.save(torch.from_numpy(norms), tmp_path / "bad.pth")
    np.save(tmp_path / "bad.npy", norms)
    (tmp_path / "bad.json").write_text(json.dumps(norms.tolist()))
    for suffix in SUFFIXES:
        with pytest.raises(MelcodecError, match=reason) as caught:
            load_mel_norms(tmp_path / f"bad{suffix}")
        assert caught.value.message.startswith(str(tmp_path / f"bad{suffix}"))
    with pytest.raises(MelcodecError, match=reason):
        save_mel_norms(tmp_path / "new.json", norms)
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_something_else(tmp_path, suffix):
    path = tmp_path / f"norms{suffix}"
    with pytest.raises(MelcodecError, match="no such file"):
        load_mel_norms(path)
    for content in (b"", b"hello", b"\x80\x04garbage", b'{"a": [1, 2]}', b"[1, [2]]"):
        path.write_bytes(content)
        with pytest.raises(MelcodecError, match="holds no mel norms"):
            load_mel_norms(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(MelcodecError, match="cannot be read"):
        load_mel_norms(path)


class Harm:
    """Would write a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickle_is_never_run(tmp_path):
    mark = tmp_path / "mark"
    torch.save(Harm(str(mark)), tmp_path / "evil.pth")
    np.save(tmp_path / "evil.npy", np.array([Harm(str(mark))], dtype=object), allow_pickle=True)
    for suffix in (".pth", ".npy"):
        with pytest.raises(MelcodecError, match="holds no mel norms"):
            load_mel_norms(tmp_path / f"evil{suffix}")
    assert not mark.exists()


def test_another_suffix_names_the_three(tmp_path):
    with pytest.raises(MelcodecError) as caught:
        save_mel_norms(tmp_path / "norms.txt", xtts_mel_norms())
    assert caught.value.hint == "use one of .pth, .npy, .json"
