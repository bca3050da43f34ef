"""Every command reads all of a file whose header does not say how long it is, and refuses what it cannot read whole."""

import io
import sys

import numpy as np
import pytest
import soundfile

from melcodec.audio.mpeg import parse
from melcodec.store.codes import load_codes
from melcodec.store.dataset import CodesDataset

RATE = 22_050


@pytest.fixture(scope="module")
def bare(golden, tmp_path_factory):
    """An mp3 of ten seconds, silence first, whose bit rate varies and whose frames nobody counted: (path, samples)."""
    path = tmp_path_factory.mktemp("bare") / "x.mp3"
    wav = np.concatenate([np.zeros(6 * RATE, np.float32), golden["0.wav"].reshape(-1), golden["1.wav"].reshape(-1)])
    with soundfile.SoundFile(path, "w", RATE, 1, bitrate_mode="VARIABLE", compression_level=0.1) as file:
        file.write(wav)
    content = path.read_bytes()
    path.write_bytes(content[parse(content).size :])  # without the frame that counts the others
    with soundfile.SoundFile(path) as file:
        assert not 0.95 < file.frames / len(wav) < 1.05, "libsndfile's guess should be wrong"
    frames, at, content = 0, 0, path.read_bytes()
    while frame := parse(content[at : at + 4]):
        frames, at = frames + 1, at + frame.size
    assert frames * 576 > len(wav)
    return path, frames * 576


def test_info(cli, bare):
    status, out, _ = cli("info", bare[0], "--json")
    assert status == 0
    assert f'"samples": {bare[1]}' in out


def test_encode_a_file_and_standard_input(cli, bare, tiny_checkpoint, tmp_path, monkeypatch):
    path, samples = bare
    assert cli("encode", path, "-o", "a.npz", "-c", tiny_checkpoint).status == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert cli("encode", "-", "-o", "b.npz", "-c", tiny_checkpoint).status == 0
    one, other = load_codes(tmp_path / "a.npz"), load_codes(tmp_path / "b.npz")
    assert one.num_samples == other.num_samples == samples
    assert np.array_equal(one.codes, other.codes)


def test_preprocess(cli, bare, tiny_checkpoint, tmp_path):
    words = ["-o", "codes", "-c", tiny_checkpoint, "--device", "cpu", "--num-workers", 1]
    assert cli("preprocess", bare[0].parent, *words).status == 0
    (item,) = CodesDataset(tmp_path / "codes")
    assert item.num_samples == bare[1]


def test_what_cannot_be_read_whole_is_refused_by_all(refused, cli, golden, tiny_checkpoint, tmp_path):
    wav = golden["0.wav"].reshape(-1)
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "a.wav", wav, RATE)
    content = bytearray((folder / "a.wav").read_bytes())
    content[40:44] = (20_000).to_bytes(4, "little")  # of what follows the header says nothing
    (folder / "a.wav").write_bytes(content)
    for words in (["info"], ["encode", "-o", "a.npz", "-c", tiny_checkpoint]):
        assert "the header promises 20000 bytes of sound, and" in refused(words[0], folder / "a.wav", *words[1:])
    status, _, err = cli("preprocess", folder, "-o", "codes", "-c", tiny_checkpoint, "--device", "cpu", "--num-workers", 1)
    assert status == 1
    assert "unreadable" in err
