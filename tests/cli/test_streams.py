"""``-`` is standard input or output wherever a path stands for one file; a closed stdout is no traceback."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from melcodec.cli._examples import walk_commands
from melcodec.cli.main import whole_command
from melcodec.codec import Codec
from tests import forked

MELCODEC = [sys.executable, "-m", "melcodec"]


@pytest.fixture
def tiny(tiny_checkpoint):
    return ["--checkpoint", str(tiny_checkpoint), "--device", "cpu"]


@pytest.fixture
def piped(tmp_path):
    """piped(stdin, words...) -> (stdout, stderr) of a command that ends well."""

    def run(content: bytes, *words: str) -> tuple[bytes, str]:
        done = forked.run([*MELCODEC, *map(str, words)], input=content, capture_output=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        assert b"/tmp" not in done.stderr
        return done.stdout, done.stderr.decode()

    return run


def test_sound_to_codes_to_sound(piped, examples, tiny, tiny_checkpoint, tmp_path):
    clip = examples["lj_en"].read_bytes()
    codes, err = piped(clip, "encode", "-", "-o", "-", "--to", "npz", *tiny)
    assert err.startswith("standard output: 112 codes for 5.20 s")
    with np.load(io.BytesIO(codes)) as arrays:
        assert np.array_equal(arrays["codes"], Codec.from_pretrained(tiny_checkpoint, "cpu").encode_file(examples["lj_en"]).codes)
    assert "standard input" in piped(codes, "info", "-")[0].decode()
    wav, _ = piped(codes, "decode", "-", "-o", "-", "--to", "wav", *tiny)
    assert soundfile.info(io.BytesIO(wav)).frames == 114_660
    mel, _ = piped(codes, "decode", "-", "-o", "-", *tiny)
    assert np.load(io.BytesIO(mel)).shape == (80, 448)
    again, _ = piped(clip, "roundtrip", "-", "-o", "-", *tiny)
    assert again == wav
    picture, _ = piped(codes, "plot", "codes", "-", "-o", "-", *tiny)
    assert picture[:4] == b"\x89PNG"
    assert list(tmp_path.iterdir()) == []


def test_weights_and_norms(piped, golden_folder, speech_folder, tmp_path):
    weights, _ = piped((golden_folder / "tiny_dvae.pth").read_bytes(), "import-xtts", "-", "-o", "-")
    assert piped(weights, "info", "-", "--json")[0].startswith(b'{"file": "standard input", "kind": "checkpoint"')
    norms, _ = piped(b"", "mel-stats", speech_folder, "-o", "-")
    assert len(json.loads(norms)) == 80
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_a_stream(refused, speech_folder, tiny, tiny_checkpoint, tmp_path):
    folder = speech_folder / "a"
    for words in (
        ("encode", folder, *tiny),
        ("encode", folder / "0.wav", folder / "1.wav", *tiny),
        ("roundtrip", folder, *tiny),
        ("train", folder),
        ("preprocess", folder),
        ("evaluate", folder),
        ("export-xtts", tiny_checkpoint),
        ("corpus", "export", folder, "--to", "npy"),
    ):
        assert "error: -" in refused(*words, "-o", "-"), words
    for words in (
        ("train", "-"),
        ("preprocess", "-", "-o", "x"),
        ("evaluate", "-", "-o", "x"),
        ("mel-stats", "-", "-o", "x.npy"),
    ):
        assert "error: -: standard input cannot be used here" in refused(*words), words
    assert "standard input has no name" in refused("encode", "-", *tiny)
    assert "--id takes one folder" in refused("decode", "-", "--id", "a", "-o", "x.wav", *tiny)
    assert not (tmp_path / "-").exists()


# where - is standard input or output, or is refused by what looks through sources, as the tests above show
STREAMS = {"--output", "--into", "--prompt", "--train", "IN", "FILE", "DVAE.PTH", "DATA"}
# what takes a word and not the name of a file or folder
WORDS = {"--to", "--device", "--id", "--from", "--metrics", "--set", "--vary", "--seeds", "--preset", "--tune", "--pattern"}
WORDS |= {"--address", "--engine", "--runtime", "--on-truncated", "--max-failures", "NAME", "COMMAND"}


def test_names_of_files_that_standard_input_cannot_stand_for(cli, tmp_path):
    """Every other option and argument that takes a name refuses -, and numbers do so as usual; a new one must be sorted in."""
    refused, seen = set(), set()
    for command, parsed in walk_commands(whole_command()):
        for parameter in [] if hasattr(parsed, "commands") else parsed.params:
            option = parameter.param_type_name == "option"
            word = next(word for word in parameter.opts if word.startswith("--")) if option else parameter.metavar
            seen.add(word)
            if (option and parameter.is_flag) or word in STREAMS | WORDS:
                continue
            place = [] if option else ["x"] * [each.name for each in parsed.params].index(parameter.name)
            status, _, err = cli(*command.split(), *([word] if option else place), "-")
            if status == 1:
                assert err.startswith(f"error: {word} -: standard input and output cannot be used here\nhint: "), (command, err)
                refused.add(word)
            else:
                assert status == 2, (command, word, err)
                assert "valid integer" in err or "valid number" in err or "is not a valid" in err, (command, word, err)
    assert {"--checkpoint", "--init", "--config", "--vocoder", "--mel-stats", "--prior", "--valid", "--plot"} <= refused
    assert {"CHECKPOINT", "A", "B", "PRIOR", "CODES", "RUN"} <= refused
    assert seen >= STREAMS | WORDS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell")
@pytest.mark.parametrize(
    ("words", "status", "err"),
    [
        ("info CHECKPOINT", 1, "error: standard output is closed\n"),
        ("config list --json", 1, "error: standard output is closed\n"),
        ("--help", 1, "error: standard output is closed\n"),
        ("encode CLIP -o c.npz --device cpu -c CHECKPOINT", 0, "c.npz: 112 codes for 5.20 s (108 bit/s)\n"),
    ],
)
def test_stdout_that_is_closed(tiny_checkpoint, examples, tmp_path, words, status, err):
    """The work is done; only what would have been written to stdout is a failure."""
    words = words.replace("CHECKPOINT", str(tiny_checkpoint)).replace("CLIP", str(examples["lj_en"]))
    command = f"exec '{sys.executable}' -m melcodec {words} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (status, err)


@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell")
def test_talk_does_not_go_to_stdout_when_stderr_is_closed(tmp_path):
    command = f"exec '{sys.executable}' -m melcodec config list 2>&- <&-"
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert "hint:" not in done.stdout
