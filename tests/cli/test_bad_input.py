"""Bad input: one line and a hint, exit status 1, nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch


@pytest.fixture
def tiny(tiny_checkpoint):
    return ["--checkpoint", tiny_checkpoint, "--device", "cpu"]


def make_wave(path, wave, **kind):
    soundfile.write(path, wave, 22_050, **kind)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.wav", "no such file"),
        ("text.wav", "not readable as audio"),
        ("header.wav", "not readable as audio"),
        ("empty.wav", "empty"),
        ("silent.wav", "no samples"),
        ("nan.wav", "NaN or infinity at 0.00"),
        ("inf.wav", "NaN or infinity"),
        ("cut.flac", "damaged|truncated"),
        ("x.m4a", "needs an optional package|not readable"),
    ],
)
def test_sound(refused, golden, tiny, tmp_path, name, reason):
    wave = golden["0.wav"]
    make_wave(tmp_path / "good.wav", wave)
    make_wave(tmp_path / "good.flac", wave)
    (tmp_path / "text.wav").write_text("hello, I am a text\n" * 50)
    (tmp_path / "header.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:20])
    (tmp_path / "empty.wav").touch()
    make_wave(tmp_path / "silent.wav", wave[:0])
    make_wave(tmp_path / "nan.wav", np.where(np.arange(len(wave)) == 7, np.nan, wave), subtype="FLOAT")
    make_wave(tmp_path / "inf.wav", np.where(np.arange(len(wave)) == 7, np.inf, wave), subtype="DOUBLE")
    (tmp_path / "cut.flac").write_bytes((tmp_path / "good.flac").read_bytes()[:20_000])
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(200))
    before = sorted(path.name for path in tmp_path.iterdir())
    err = refused("encode", name, "-o", "codes.npy", *tiny)
    assert __import__("re").search(reason, err), err
    assert name in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_without_audio(refused, tiny, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/readme.txt").write_text("no sound here")
    assert "docs" in refused("encode", "docs", "-o", "codes", *tiny)


def test_outputs(refused, cli, examples, tiny, tmp_path):
    clip = examples["nathalie_nl"]
    (tmp_path / "there.npy").write_bytes(b"precious")
    assert "exists already" in refused("encode", clip, "-o", "there.npy", *tiny)
    assert (tmp_path / "there.npy").read_bytes() == b"precious"
    (tmp_path / "file").touch()
    assert "cannot be written" in refused("encode", clip, "-o", "file/codes.npy", *tiny)
    assert "/proc" in refused("encode", clip, "-o", "/proc/melcodec/codes.npy", *tiny)
    assert "'.txt' cannot be written here" in refused("encode", clip, "-o", "codes.txt", *tiny)
    assert cli("encode", clip, "-o", "there.npy", "-f", *tiny).status == 0
    (tmp_path / "there.wav").write_bytes(b"precious")
    assert "exists already" in refused("roundtrip", clip, "-o", "there.wav", *tiny)
    assert "exists already" in refused("decode", "there.npy", "-o", "there.wav", *tiny)
    assert (tmp_path / "there.wav").read_bytes() == b"precious"
    assert "'.xyz' cannot be written here" in refused("roundtrip", clip, "-o", "x.xyz", "--checkpoint", "asked for too late")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 3, 4), np.uint16), r"shape \(2, 3, 4\)"),
        (np.zeros((2, 4), np.uint16), "shape"),
        (np.zeros((1, 0), np.uint16), "shape"),
        (np.zeros((1, 4), np.float32), "float32 values are not codes"),
        (np.full((1, 4), 32, np.uint16), "knows 0 .. 31"),
        (np.full((1, 4), -1, np.int64), "negative"),
        (np.array([{"a": 1}], dtype=object), "pickled objects"),
    ],
)
def test_codes(refused, tiny, tmp_path, array, reason):
    np.save(tmp_path / "codes.npy", array, allow_pickle=True)
    err = refused("decode", "codes.npy", "-o", "x.wav", *tiny)
    assert __import__("re").search(reason, err), err
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npy"]


@pytest.mark.parametrize("name", ["codes.npy", "codes.npz", "codes.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY\x01\x00", b"PK\x03\x04nonsense"])
def test_codes_files_that_are_none(refused, tiny, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert name in refused("decode", name, "-o", "x.npy", *tiny)


def test_codes_of_another_checkpoint(refused, cli, examples, tiny, tmp_path):
    cli("encode", examples["nathalie_nl"], "-o", "c.npz", *tiny)
    with np.load(tmp_path / "c.npz") as arrays:
        known = {name: arrays[name] for name in arrays.files if name != "checksum"}
    np.savez(tmp_path / "other.npz", **known | {"fingerprint": np.array("0123456789ab")})
    assert "made by checkpoint 0123456789ab" in refused("decode", "other.npz", "-o", "x.npy", *tiny)
    assert cli("decode", "other.npz", "-o", "x.npy", "--any-checkpoint", *tiny).status == 0


def test_checkpoints(refused, examples, tiny_checkpoint, tmp_path):
    clip = examples["nathalie_nl"]
    assert "no such checkpoint" in refused("encode", clip, "-o", "c.npy", "--checkpoint", "nothing")
    torch.save({"a": torch.zeros(1)}, tmp_path / "dvae.pth")
    assert "dvae.pth: a PyTorch file, not a checkpoint" in refused("encode", clip, "-o", "c.npy", "--checkpoint", "dvae.pth")
    content = tiny_checkpoint.read_bytes()
    (tmp_path / "newer.safetensors").write_bytes(content.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    assert "newer melcodec" in refused("encode", clip, "-o", "c.npy", "--checkpoint", "newer.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(content[:-1000])
    assert "damaged" in refused("encode", clip, "-o", "c.npy", "--checkpoint", "cut.safetensors")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_one(refused, examples, tiny_checkpoint):
    err = refused("encode", examples["nathalie_nl"], "-o", "c.npy", "--checkpoint", tiny_checkpoint, "--device", "cuda")
    assert "CUDA" in err
    assert "hint: use --device cpu" in err


def test_wrong_usage_is_2(cli):
    assert cli("encode").status == 2
    assert cli("no-such-command").status == 2
    assert cli("encode", "a.wav", "--no-such-option").status == 2
