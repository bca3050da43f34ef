"""encode, decode and roundtrip, as a user types them."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import soundfile

from melcodec.codec import Codec
from melcodec.store.codes import load_codes
from tests import forked


@pytest.fixture
def tiny(tiny_checkpoint):
    return ["--checkpoint", tiny_checkpoint, "--device", "cpu"]


@pytest.fixture(scope="module")
def codec(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture
def clip(examples):
    return examples["lj_en"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_encode_and_decode(cli, codec, clip, tiny, tmp_path, suffix):
    target = tmp_path / f"deep/er/codes{suffix}"
    status, out, err = cli("encode", clip, "-o", target, *tiny)
    assert (status, out) == (0, "")
    assert "codes for 5.20 s" in err
    expected = codec.encode_file(clip)
    found = load_codes(target)
    assert np.array_equal(found.codes, expected.codes)
    assert found.num_samples == (None if suffix == ".npy" else expected.num_samples)
    assert found.source_rate == (None if suffix == ".npy" else 22_050)

    assert cli("decode", target, *tiny).status == 0
    mel = np.load(target.with_name("codes.mel.npy"))
    frames = 4 * found.codes.shape[1] if suffix == ".npy" else expected.num_samples // 256 + 1
    assert (mel.shape, mel.dtype) == ((80, frames), np.float32)
    assert np.allclose(mel, codec.decode_to_mel(expected.codes)[0, :, :frames], atol=1e-4)


def test_codes_are_stored_small(cli, clip, tiny, tmp_path):
    cli("encode", clip, "-o", tmp_path / "c.npy", *tiny)
    assert np.load(tmp_path / "c.npy").dtype == np.uint8  # K = 32


def test_decode_writes_what_the_suffix_says(cli, clip, tiny, tmp_path):
    cli("encode", clip, "-o", "c.npz", *tiny)
    for name in ("x.wav", "x.flac", "x.png", "x.svg", "x.npy", "x.npz", "x.safetensors"):
        assert cli("decode", "c.npz", "-o", name, *tiny).status == 0
        assert (tmp_path / name).stat().st_size > 1000
    wav, rate = soundfile.read(tmp_path / "x.wav")
    assert (len(wav), rate) == (soundfile.info(clip).frames, 22_050)
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_normalized_is_the_models_domain(cli, codec, clip, tiny, tmp_path):
    cli("encode", clip, "-o", "c.npz", *tiny)
    cli("decode", "c.npz", "-o", "natural.npy", *tiny)
    cli("decode", "c.npz", "-o", "model.npy", "--normalized", *tiny)
    natural, model = np.load(tmp_path / "natural.npy"), np.load(tmp_path / "model.npy")
    assert np.allclose(model * codec.frontend.norms.numpy()[:, None], natural, rtol=1e-4, atol=1e-4)
    assert not np.allclose(model, natural)


def test_num_samples_crops(cli, clip, tiny, tmp_path):
    cli("encode", clip, "-o", "c.npy", *tiny)
    cli("decode", "c.npy", "-o", "x.wav", "--num-samples", 114_000, *tiny)
    assert soundfile.info(tmp_path / "x.wav").frames == 114_000


def test_pad_to_is_an_xtts_batch(cli, codec, golden, tiny, tmp_path):
    soundfile.write(tmp_path / "a.wav", golden["1.wav"], 22_050, subtype="FLOAT")
    cli("encode", "a.wav", "-o", "alone.npy", *tiny)
    cli("encode", "a.wav", "-o", "batch.npy", "--pad-to", 90_000, *tiny)
    alone, batch = np.load(tmp_path / "alone.npy"), np.load(tmp_path / "batch.npy")
    assert alone.shape == batch.shape
    assert not np.array_equal(alone, batch)
    assert np.array_equal(alone[:, :-8], batch[:, :-8])


def test_folders_keep_their_tree(cli, codec, speech_folder, tiny, tmp_path):
    assert cli("encode", speech_folder, "-o", "codes", *tiny).status == 0
    names = sorted(path.relative_to(tmp_path / "codes").as_posix() for path in (tmp_path / "codes").rglob("*.npy"))
    assert names == ["a/0.npy", "a/1.npy", "b/0.npy", "b/1.npy", "c/0.npy", "c/1.npy"]
    expected = codec.encode_file(speech_folder / "b" / "1.wav").codes
    assert np.array_equal(np.load(tmp_path / "codes/b/1.npy"), expected)

    assert cli("decode", "codes", "-o", "mels", *tiny).status == 0
    assert np.load(tmp_path / "mels/b/1.npy").shape == (80, 4 * expected.shape[1])
    assert cli("decode", "codes", "-o", "sound", "--to", "flac", *tiny).status == 0
    assert (tmp_path / "sound/c/0.flac").exists()
    assert cli("decode", "codes", *tiny).status == 0  # beside the codes, and not taken for codes the next time
    assert (tmp_path / "codes/a/0.mel.npy").exists()
    assert cli("decode", "codes", "-o", "again", *tiny).status == 0
    assert len(list((tmp_path / "again").rglob("*.npy"))) == 6


def test_batch_size_and_workers_do_not_change_codes(cli, speech_folder, tiny, tmp_path):
    cli("encode", speech_folder, "-o", "one", "--batch-size", 1, "--num-workers", 1, *tiny)
    cli("encode", speech_folder, "-o", "many", "--batch-size", 5, "--num-workers", 3, "--to", "npz", *tiny)
    for path in (tmp_path / "one").rglob("*.npy"):
        other = load_codes((tmp_path / "many" / path.relative_to(tmp_path / "one")).with_suffix(".npz"))
        assert np.array_equal(np.load(path), other.codes)


def test_a_second_run_goes_on(cli, speech_folder, tiny, tmp_path):
    cli("encode", speech_folder, "-o", "codes", *tiny)
    (tmp_path / "codes/a/1.npy").unlink()
    (tmp_path / "codes/a/0.npy").write_bytes(b"kept as it is")
    status, _, err = cli("encode", speech_folder, "-o", "codes", *tiny)
    assert status == 0
    assert "1 files encoded, 5 existed already and were kept" in err
    assert (tmp_path / "codes/a/0.npy").read_bytes() == b"kept as it is"
    assert "6 files encoded" in cli("encode", speech_folder, "-o", "codes", "-f", *tiny).err
    assert (tmp_path / "codes/a/0.npy").read_bytes()[:6] == b"\x93NUMPY"


def test_a_bad_file_takes_no_other_with_it(cli, speech_folder, tiny, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "c"):
        (folder / f"{name}.wav").write_bytes((speech_folder / "a" / "0.wav").read_bytes())
    (folder / "b.wav").write_text("this is not sound")
    status, out, err = cli("encode", folder, "-o", "codes", *tiny)
    assert (status, out) == (1, "")
    assert "2 files encoded" in err
    assert "b.wav: not readable as audio" in err
    assert sorted(path.name for path in (tmp_path / "codes").glob("[!.]*")) == ["a.npy", "c.npy", "failures.jsonl"]
    report = [json.loads(line) for line in (tmp_path / "codes/failures.jsonl").read_text().splitlines()]
    assert [(row["path"], row["error"].split(": ")[1]) for row in report] == [
        (str(folder / "b.wav"), "not readable as audio (Format not recognised)")
    ]
    (folder / "b.wav").unlink()
    assert cli("encode", folder, "-o", "codes", *tiny).status == 0
    assert not (tmp_path / "codes/failures.jsonl").exists()


def test_two_inputs_of_one_name_are_refused(refused, speech_folder, tiny):
    err = refused("encode", speech_folder / "a/0.wav", speech_folder / "b/0.wav", "-o", "codes", *tiny)
    assert "would both be written to codes/0.npy" in err


def test_several_files_and_no_output_go_beside(cli, golden, tiny, tmp_path):
    for name in "xy":
        soundfile.write(tmp_path / f"{name}.wav", golden["0.wav"], 22_050)
    assert cli("encode", "x.wav", "y.wav", *tiny).status == 0
    assert (tmp_path / "x.npy").exists()
    assert (tmp_path / "y.npy").exists()


def test_standard_input(codec, clip, tiny, tmp_path):
    command = [sys.executable, "-m", "melcodec", "encode", "-", "-o", str(tmp_path / "c.npz"), *map(str, tiny)]
    done = forked.run(command, input=clip.read_bytes(), capture_output=True, env=os.environ, check=False)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    found = load_codes(tmp_path / "c.npz")
    assert np.array_equal(found.codes, codec.encode_file(clip).codes)
    assert found.source_rate == 22_050


def test_roundtrip(cli, clip, tiny, tmp_path):
    assert cli("roundtrip", clip, "-o", "out.wav", *tiny).status == 0
    assert soundfile.info(tmp_path / "out.wav").frames == soundfile.info(clip).frames
    first = (tmp_path / "out.wav").read_bytes()
    cli("roundtrip", clip, "-o", "out.wav", "-f", *tiny)
    assert (tmp_path / "out.wav").read_bytes() == first


def test_short_stereo_and_24_bit(cli, golden, tiny, tmp_path):
    wav = np.stack([golden["0.wav"][:300]] * 2, axis=1)
    soundfile.write(tmp_path / "short.wav", wav, 22_050, subtype="PCM_24")
    soundfile.write(tmp_path / "double.wav", golden["0.wav"], 22_050, subtype="DOUBLE")
    cli("encode", "short.wav", "-o", "s.npz", *tiny)
    found = load_codes(tmp_path / "s.npz")
    assert (found.codes.shape, found.num_samples) == ((1, 1), 300)
    assert cli("decode", "s.npz", "-o", "s.wav", *tiny).status == 0
    assert soundfile.info(tmp_path / "s.wav").frames == 300
    assert cli("encode", "double.wav", "-o", "d.npy", *tiny).status == 0


@pytest.mark.parametrize("words", [(), ("-o", "x.wav"), ("-o", "out")])
def test_a_store_is_told_from_codes_files(words, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "run.json").write_text("{}")
    said = refused("decode", "codes", *words)
    assert "codes: a folder that melcodec preprocess wrote" in said
    assert "--id" in said
