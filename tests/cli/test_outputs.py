"""Where outputs go: one file or many, what is kept, what is refused, and what a bad file does to the others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melcodec.cli._options import Job, Jobs
from melcodec.codec import Codec
from melcodec.store.codes import load_codes
from melcodec.store.outputs import LIST


@pytest.fixture
def tiny(tiny_checkpoint):
    return ["--checkpoint", tiny_checkpoint, "--device", "cpu"]


@pytest.fixture(scope="module")
def codec(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture
def codes(tmp_path):
    """A folder codes/ with one good file."""
    (tmp_path / "codes").mkdir()
    np.save(tmp_path / "codes/good.npy", np.arange(32, dtype=np.uint8)[None])
    return tmp_path / "codes"


def names(folder):
    """The files below ``folder``, without the lists of outputs."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    return sorted(path.relative_to(folder).as_posix() for path in files)


def test_single_is_one_file_without_an_output_folder():
    job = Job(Path("a"), Path("b"))
    assert Jobs([job], None).single
    assert not Jobs([job], Path()).single
    assert not Jobs([job, job], None).single


@pytest.mark.parametrize("others", [0, 1])
def test_a_bad_codes_file_in_a_folder(cli, codes, tiny, tmp_path, others):
    if not others:
        (codes / "good.npy").unlink()
    (codes / "bad.npy").write_text("no codes")
    status, out, err = cli("decode", "codes", "-o", "mels", *tiny)
    assert (status, out) == (1, "")
    assert f"{others} files decoded\n1 failed:\n  codes/bad.npy: not a numpy file\n" in err
    assert names(tmp_path / "mels") == ["failures.jsonl", "good.npy"][: 1 + others]
    (line,) = (tmp_path / "mels/failures.jsonl").read_text().splitlines()
    assert json.loads(line) == {"path": "codes/bad.npy", "error": "codes/bad.npy: not a numpy file"}


def test_a_folder_of_one_whose_output_exists(cli, codes, tiny, tmp_path):
    assert cli("decode", "codes", "-o", "mels", *tiny).status == 0
    (tmp_path / "mels/good.npy").write_bytes(b"kept")
    status, _, err = cli("decode", "codes", "-o", "mels", *tiny)
    assert status == 0
    assert "0 files decoded, 1 existed already and were kept" in err
    assert (tmp_path / "mels/good.npy").read_bytes() == b"kept"


def test_an_output_with_too_long_a_name_takes_no_other_with_it(cli, codes, tiny, tmp_path):
    shutil.copy(codes / "good.npy", codes / f"{'a' * 250}.npy")
    status, _, err = cli("decode", "codes", "-o", "mels", "--to", "safetensors", *tiny)
    assert status == 1
    assert "1 files decoded\n1 failed:\n" in err
    assert "cannot be written: File name too long" in err
    assert names(tmp_path / "mels") == ["failures.jsonl", "good.safetensors"]


def test_the_last_of_several_files_is_no_single_file(cli, golden, tiny, tmp_path):
    for name in "xy":
        soundfile.write(tmp_path / f"{name}.wav", golden["0.wav"], 22_050)
    cli("encode", "x.wav", *tiny)
    (tmp_path / "y.wav").write_text("not sound")
    status, _, err = cli("encode", "x.wav", "y.wav", *tiny)
    assert status == 1
    assert "0 files encoded, 1 existed already" in err
    assert "y.wav: not readable as audio" in err


def test_a_source_that_is_planned_twice_is_written_twice(cli, speech_folder, tiny, tmp_path):
    assert cli("encode", speech_folder, speech_folder / "a", "-o", "out", *tiny).status == 0
    assert len(names(tmp_path / "out")) == 8
    for name in ("0.npy", "1.npy"):
        assert np.array_equal(np.load(tmp_path / "out" / name), np.load(tmp_path / "out/a" / name))


@pytest.mark.parametrize("output", ["codes.npy", "codes.npz"])
def test_one_file_for_many_inputs_is_refused(refused, speech_folder, tiny, tmp_path, output):
    for inputs in ([speech_folder], [speech_folder / "a/0.wav", speech_folder / "b/1.wav"]):
        err = refused("encode", *inputs, "-o", output, *tiny)
        assert f"{output}: one file cannot hold" in err
        assert "hint: give a folder, as -o codes\n" in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_called_like_a_file(cli, speech_folder, tiny, tmp_path):
    (tmp_path / "set.npy").mkdir()
    assert cli("encode", speech_folder / "a", "-o", "set.npy", *tiny).status == 0
    assert names(tmp_path / "set.npy") == ["0.npy", "1.npy"]


def test_an_input_is_no_output(refused, codes, tiny, tmp_path):
    before = (codes / "good.npy").read_bytes()
    (tmp_path / "link").symlink_to("codes")
    for output in ("codes", "link", codes / ".." / "codes"):
        assert "is an input" in refused("decode", "codes", "-o", output, "-f", *tiny)
    assert "is an input" in refused("decode", "codes/good.npy", "-o", "link/good.npy", "-f", *tiny)
    shutil.copytree(codes, tmp_path / "a/codes")  # whose output would be the other folder's input
    assert "codes/good.npy: is an input" in refused("decode", "a", "codes", "-o", ".", "-f", *tiny)
    assert names(codes) == ["good.npy"]
    assert (codes / "good.npy").read_bytes() == before


def test_roundtrip_does_not_replace_its_input(refused, golden, tiny, tmp_path):
    soundfile.write(tmp_path / "x.wav", golden["0.wav"], 22_050)
    before = (tmp_path / "x.wav").read_bytes()
    assert "x.wav: is an input" in refused("roundtrip", "x.wav", "-o", "./x.wav", "-f", *tiny)
    assert (tmp_path / "x.wav").read_bytes() == before


def test_roundtrip_is_encode_and_decode(cli, golden, tiny, tmp_path):
    soundfile.write(tmp_path / "x.wav", golden["0.wav"], 22_050)
    status, out, err = cli("roundtrip", "x.wav", "-o", "y.wav", *tiny)
    seconds = len(golden["0.wav"]) / 22_050
    assert (status, out) == (0, "")
    assert f"y.wav: {seconds:.2f} s at 22050 Hz from {len(golden['0.wav']) // 1024 + 1} codes, 108 bit/s" in err
    cli("encode", "x.wav", "-o", "c.npz", *tiny)
    cli("decode", "c.npz", "-o", "z.wav", *tiny)
    assert (tmp_path / "y.wav").read_bytes() == (tmp_path / "z.wav").read_bytes()


def test_options_that_would_do_nothing_are_refused(refused, codes, speech_folder, tiny, tmp_path):
    for target in ("x.wav", "x.png"):
        assert "--normalized is for mels" in refused("decode", "codes/good.npy", "-o", target, "--normalized", *tiny)
    assert "--normalized is for mels" in refused("decode", "codes", "-o", "x", "--to", "flac", "--normalized", *tiny)
    assert "--num-samples is for a single file" in refused("decode", "codes", "-o", "x", "--num-samples", 32_000, *tiny)
    assert "--pad-to is for a single file" in refused("encode", speech_folder, "-o", "x", "--pad-to", 9, *tiny)
    assert names(tmp_path) == ["codes/good.npy"]


def test_formats_are_named(refused, codes, tiny):
    err = refused("decode", "codes", "-o", "x", "--to", "txt", *tiny)
    assert "hint: use one of npy, npz, safetensors, wav, flac, ogg, mp3, png, svg" in err


def test_a_picture_has_the_front_ends_frequencies(cli, codes, tiny_checkpoint, tmp_path):
    from dataclasses import replace

    from melcodec.formats.checkpoint import load_checkpoint, save_checkpoint

    checkpoint = load_checkpoint(tiny_checkpoint)
    config = checkpoint.config.model_copy(update={"mel": checkpoint.config.mel.model_copy(update={"f_max": 4_000.0})})
    save_checkpoint(tmp_path / "narrow.safetensors", replace(checkpoint, config=config))
    assert Codec.from_pretrained(tmp_path / "narrow.safetensors", "cpu").frontend.f_max == 4_000.0
    for name, model in (("wide", tiny_checkpoint), ("narrow", tmp_path / "narrow.safetensors")):
        options = ["--to", "svg", "--checkpoint", model, "--device", "cpu"]
        assert cli("decode", "codes", "-o", name, *options).status == 0
    labels = {name: (tmp_path / name / "good.svg").read_text().count("<!-- 8 -->") for name in ("wide", "narrow")}
    assert labels["wide"] > labels["narrow"]


def test_a_folder_that_may_be_listed_but_not_searched(cli, refused, speech_folder, tiny, tmp_path):
    for name in "ab":
        shutil.copytree(speech_folder / name, tmp_path / "in" / name)
    (tmp_path / "in/a").chmod(0o600)
    if os.access(tmp_path / "in/a/.", os.X_OK):
        pytest.skip("this user may search every folder")
    try:
        status, _, err = cli("encode", "in", "-o", "codes", *tiny)
        assert "Permission denied" in refused("encode", "in/a/0.wav", "-o", "c.npy", *tiny)
    finally:
        (tmp_path / "in/a").chmod(0o700)
    assert status == 1
    assert "2 files encoded\n2 failed:\n  in/a/0.wav: Permission denied\n" in err


@pytest.fixture(scope="module")
def another(tiny_checkpoint, tmp_path_factory):
    """--checkpoint of two others: one of another code space, and one whose decoder alone was trained further."""
    from dataclasses import replace

    from melcodec.formats.checkpoint import load_checkpoint, save_checkpoint

    before, folder = load_checkpoint(tiny_checkpoint), tmp_path_factory.mktemp("another")
    for name, key in (("codes", "codebook.embed"), ("decoder", next(k for k in before.tensors if k.startswith("decoder.")))):
        changed = replace(before, tensors={**before.tensors, key: before.tensors[key] * 1.5})
        save_checkpoint(folder / f"{name}.safetensors", changed)
    return {name: ["--checkpoint", folder / f"{name}.safetensors", "--device", "cpu"] for name in ("codes", "decoder")}


def stamps(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in names(folder)}


@pytest.mark.parametrize("to", ["npy", "npz", "safetensors"])
def test_codes_of_two_checkpoints_never_share_a_folder(cli, refused, speech_folder, tiny, another, tmp_path, to):
    out = tmp_path / "out"
    assert cli("encode", speech_folder / "a", "-o", "out/a", "--to", to, *tiny).status == 0
    before = stamps(out)
    for source, target in ((speech_folder / "a", "out/a"), (speech_folder, "out")):  # the same inputs again; and more of them
        err = refused("encode", source, "-o", target, "--to", to, *another["codes"])
        assert "was made differently: fingerprint was " in err
        assert "hint: add -f to make all of them again, or give another output folder" in err
    err = refused("encode", speech_folder / "b", "-o", "out", "--to", to, "-f", *another["codes"])
    assert "hint: give another output folder, or remove what is in this one" in err
    assert stamps(out) == before
    assert cli("encode", speech_folder / "a", "-o", "out/a", "--to", to, "-f", *another["codes"]).status == 0
    made_by = {load_codes(out / name).fingerprint for name in before}
    assert made_by == {Codec.from_pretrained(another["codes"][1], "cpu").fingerprint}
    assert cli("encode", speech_folder / "a", "-o", "out/a", "--to", to, *another["decoder"], "-f").status == 0  # as the first


def test_codes_of_a_decoder_that_was_trained_further_stay(cli, speech_folder, tiny, another):
    assert cli("encode", speech_folder, "-o", "out", *tiny).status == 0
    status, _, err = cli("encode", speech_folder, "-o", "out", *another["decoder"])
    assert (status, "0 files encoded, 6 existed already and were kept" in err) == (0, True)


def test_codes_of_an_older_melcodec_say_who_made_them(cli, refused, speech_folder, tiny, another, tmp_path):
    assert cli("encode", speech_folder / "a", "-o", "out", "--to", "npz", *tiny).status == 0
    (tmp_path / "out" / LIST).unlink()
    assert "fingerprint was " in refused("encode", speech_folder / "a", "-o", "out", "--to", "npz", *another["codes"])
    status, _, err = cli("encode", speech_folder / "a", "-o", "out", "--to", "npz", *tiny)
    assert status == 0
    assert f"2 are not listed in {LIST}: it is not known what they were made from" in err


def test_what_comes_from_a_replaced_input_is_made_anew(cli, codec, speech_folder, tiny, tmp_path):
    shutil.copytree(speech_folder / "a", tmp_path / "in")
    assert cli("encode", "in", "-o", "codes", *tiny).status == 0
    assert cli("decode", "codes", "-o", "mels", *tiny).status == 0
    before = {name: (tmp_path / name).read_bytes() for name in ("codes/0.npy", "codes/1.npy", "mels/0.npy", "mels/1.npy")}
    shutil.copy(speech_folder / "c/0.wav", tmp_path / "in/0.wav")
    status, _, err = cli("encode", "in", "-o", "codes", *tiny)
    assert (status, "1 files encoded, 1 existed already" in err) == (0, True)
    assert "1 were outdated: their inputs have changed since" in err
    assert np.array_equal(np.load(tmp_path / "codes/0.npy"), codec.encode_file(speech_folder / "c/0.wav").codes)
    assert "1 files decoded, 1 existed already" in cli("decode", "codes", "-o", "mels", *tiny).err
    after = {name: (tmp_path / name).read_bytes() for name in before}
    assert [name for name in before if before[name] != after[name]] == ["codes/0.npy", "mels/0.npy"]


def test_a_roundtrip_notices_what_changed(cli, refused, speech_folder, tiny, another, tiny_vocoder, tmp_path):
    """As encode and decode do: replaced inputs are done again, another checkpoint or vocoder is refused."""
    shutil.copytree(speech_folder / "a", tmp_path / "in")
    assert cli("roundtrip", "in", "-o", "out", *tiny).status == 0
    before = stamps(tmp_path / "out")
    for more in (another["codes"], another["decoder"], [*tiny, "--vocoder", tiny_vocoder]):
        err = refused("roundtrip", "in", "-o", "out", *more)
        assert "was made differently: " in err
        assert "hint: add -f to make all of them again, or give another output folder" in err
    assert stamps(tmp_path / "out") == before
    shutil.copy(speech_folder / "c/0.wav", tmp_path / "in/0.wav")
    status, _, err = cli("roundtrip", "in", "-o", "out", *tiny)
    assert (status, "1 files encoded and decoded, 1 existed already and were kept" in err) == (0, True)
    assert "1 were outdated: their inputs have changed since" in err
    assert [name for name, time in stamps(tmp_path / "out").items() if before[name] != time] == ["0.wav"]
    assert soundfile.info(tmp_path / "out/0.wav").frames == soundfile.info(speech_folder / "c/0.wav").frames


@pytest.mark.parametrize("command", ["decode", "roundtrip"])
def test_a_vocoder_that_was_trained_further_is_another(cli, refused, speech_folder, tiny, tiny_vocoder, tmp_path, command):
    """A name such as run/ stays the same while its weights change, so weights are compared and not names."""
    (tmp_path / "run").mkdir()
    shutil.copy(tiny_vocoder, tmp_path / "run/best.safetensors")
    assert cli("encode", speech_folder / "a", "-o", "codes", *tiny).status == 0
    source = "codes" if command == "decode" else speech_folder / "a"
    words = [command, source, "-o", "out", "--to", "wav", *tiny, "--vocoder"]
    assert cli(*words, "run").status == 0
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert "2 existed already" in cli(*words, "moved").err
    changed = tmp_path / "moved/best.safetensors"
    content = bytearray(changed.read_bytes())
    content[-4] ^= 1  # the last bytes are weights
    changed.write_bytes(content)
    assert "was made differently: vocoder was " in refused(*words, "moved")
    (tmp_path / "more.toml").write_text('kind = "griffin-lim"\niterations = 3\n')
    assert "was made differently: vocoder was " in refused(*words, "more.toml")


def test_the_list_of_a_folder_is_not_counted(cli, codes, speech_folder, tiny, tmp_path):
    for _ in range(2):  # the second time there is something to keep
        for command, source in (("encode", speech_folder / "a"), ("decode", "out-encode"), ("roundtrip", speech_folder / "a")):
            status, _, err = cli(command, source, "-o", f"out-{command}", *tiny)
            assert status == 0
            assert "not taken" not in err, (command, err)
    (tmp_path / "out-encode/.other").touch()
    (tmp_path / "out-encode/failures.jsonl").touch()
    assert "not taken for codes: 1 hidden\n" in cli("decode", "out-encode", "-o", "out-decode", *tiny).err


@pytest.mark.parametrize("change", ["checkpoint", "domain"])
def test_mels_of_two_kinds_never_share_a_folder(cli, refused, codes, tiny, another, tmp_path, change):
    assert cli("decode", "codes", "-o", "mels", *tiny).status == 0
    before = stamps(tmp_path / "mels")
    more = another["decoder"] if change == "checkpoint" else [*tiny, "--normalized"]
    assert "was made differently: " in refused("decode", "codes", "-o", "mels", *more)
    assert stamps(tmp_path / "mels") == before


def test_the_list_lets_npy_codes_be_checked_and_cropped(cli, refused, speech_folder, tiny, another, tmp_path):
    assert cli("encode", speech_folder / "a", "-o", "codes", *tiny).status == 0
    err = cli("decode", "codes", "-o", "waves", "--to", "wav", *tiny).err
    assert "no fingerprint" not in err
    for name in "01":
        assert soundfile.info(tmp_path / f"waves/{name}.wav").frames == soundfile.info(speech_folder / f"a/{name}.wav").frames
    assert "made by checkpoint" in refused("decode", "codes/0.npy", "-o", "x.wav", *another["codes"])


def test_bare_npy_codes_are_decoded_with_a_note(cli, examples, tiny):
    err = cli("encode", examples["lj_en"], "-o", "c.npy", *tiny).err
    assert "note: .npy holds neither the length nor the checkpoint's fingerprint" in err
    assert "note:" not in cli("encode", examples["lj_en"], "-o", "c.npz", *tiny).err
    for command in (("decode", "c.npy", "-o", "x.npy"), ("plot", "codes", "c.npy", "-o", "x.png")):
        assert "note: c.npy: no fingerprint, so it is not known" in cli(*command, *tiny).err
        assert "note:" not in cli(*command, "--any-checkpoint", "-f", *tiny).err
    assert "note:" not in cli("decode", "c.npz", "-o", "y.npy", *tiny).err
