"""info, mel-stats and the program as a whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from melcodec.audio.mel import build_frontend
from melcodec.config import MelConfig
from melcodec.vocoder.file import load_vocoder


def facts(cli, *args):
    status, out, err = cli("info", *args, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_a_checkpoint(cli, tiny_checkpoint, tiny_model):
    found = facts(cli, tiny_checkpoint)
    assert found["kind"] == "checkpoint"
    assert (found["codebooks"], found["latents"]) == ("K 32", "D 8")
    assert found["parameters"] == sum(weight.numel() for weight in tiny_model.parameters())
    assert found["codes per second"] == 21.533
    assert found["bits per second"] == 107.7
    assert found["provenance"] == {"source": "tests/golden/tiny_dvae.pth"}


def test_a_shipped_checkpoint_by_name(cli):
    found = facts(cli, "melcodec-base")
    assert (found["stored as"], found["bits per second"], found["parameters"]) == ("F16", 215.3, 13_200_976)


def test_a_vocoder(cli, tiny_vocoder):
    found = facts(cli, tiny_vocoder)
    assert (found["kind"], found["stored as"]) == ("vocoder", "F16")
    assert found["network"] == "vocos, width 16, hidden 32, num_blocks 2, kernel_size 7, nmf_iterations 2"
    assert found["parameters"] == sum(value.numel() for value in load_vocoder(tiny_vocoder).tensors.values())
    assert "hop_length 256" in found["mel"]
    assert found["provenance"] == {"source": "random"}


def test_codes_mels_and_audio(cli, examples, tiny_checkpoint, tmp_path):
    clip = examples["kathleen_en_48k_stereo"]
    for name in ("c.npy", "c.npz", "c.safetensors"):
        cli("encode", clip, "-o", name, "--checkpoint", tiny_checkpoint, "--device", "cpu")
        found = facts(cli, name)
        assert found["kind"] == "codes"
        assert found["shape"][0] == 1
        assert found.get("source_rate") == (None if name == "c.npy" else 48_000)
    cli("decode", "c.npz", "-o", "m.npy", "--checkpoint", tiny_checkpoint, "--device", "cpu")
    assert facts(cli, "m.npy")["kind"] == "mel"
    found = facts(cli, clip)
    assert (found["kind"], found["sample rate"], found["channels"]) == ("audio", 48_000, 2)


def test_priors_and_entropy_coded_codes(cli, refused, examples, tmp_path):
    for name, kind in (("melcodec-base-prior", "prior over codes (llama)"), ("melcodec-base-ngram", "prior over codes (ngram)")):
        found = json.loads(cli("info", name, "--json").out)
        assert (found["kind"], found["sizes"], len(found["fingerprint"])) == (kind, [1024], 12)
    pytest.importorskip("constriction")
    command = ["encode", examples["lj_en"], "-o", "x.mlc", "--prior", "melcodec-base-ngram", "--device", "cpu"]
    assert cli(*command).status == 0
    found = json.loads(cli("info", "x.mlc", "--json").out)
    size = (tmp_path / "x.mlc").stat().st_size
    assert found["bit_rate"] == pytest.approx(8 * size / (found["samples"] / 22_050), abs=0.1)
    del found["bit_rate"]
    assert found == {
        "file": "x.mlc",
        "kind": "codes, entropy-coded",
        "checkpoint": "cee8...",
        "prior": "melcodec-base-ngram",
        "codes": 112,
        "samples": 114_660,
        "source_rate": 22_050,
        "size": size,
    }
    (tmp_path / "y.mlc").write_bytes((tmp_path / "x.mlc").read_bytes()[:-1])
    assert "y.mlc: damaged" in refused("info", "y.mlc")
    (tmp_path / "z.mlc").write_bytes(b"")
    assert "z.mlc: not a .mlc file" in refused("info", "z.mlc")


def test_words_for_people(cli, tiny_checkpoint):
    status, out, _ = cli("info", tiny_checkpoint)
    assert status == 0
    assert "fingerprint       " in out


def test_a_pytorch_file_and_a_run_folder(cli, golden_folder, tiny_checkpoint, tmp_path):
    shutil.copy(golden_folder / "tiny_dvae.pth", tmp_path / "dvae.pth")
    status, out, err = cli("info", "dvae.pth")
    assert status == 0
    assert "the DVAE of XTTS or Tortoise" in out
    assert err == "hint: melcodec import-xtts dvae.pth -o dvae.safetensors makes a checkpoint of it\n"
    (tmp_path / "run").mkdir()
    shutil.copy(tiny_checkpoint, tmp_path / "run/best.safetensors")
    assert "run/best.safetensors" in cli("info", "run").out


def test_importing_twice_says_what_is_there_and_how(cli, refused, golden_folder):
    assert cli("import-xtts", golden_folder / "tiny_dvae.pth").status == 0
    err = refused("import-xtts", golden_folder / "tiny_dvae.pth")
    assert "error: checkpoints/xtts.safetensors: exists already: checkpoint " in err
    assert "made from tiny_dvae.pth" in err
    assert f"hint: melcodec import-xtts {golden_folder}/tiny_dvae.pth -f replaces it; -o NAME.safetensors keeps both" in err
    assert cli("import-xtts", golden_folder / "tiny_dvae.pth", "-f").status == 0


def test_refusals(refused, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    assert "not a safetensors file" in refused("info", "x.safetensors")
    assert "no such file" in refused("info", "missing.npy")
    assert "no such file" in refused("info", "missing.wav")
    assert "no such file" in refused("info", "missing.pth")
    torch.save(torch.zeros(80), tmp_path / "mel_stats.pth")
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    assert "pickled objects" in refused("info", "o.npy")


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["encode", "--help"], ["info", "CHECKPOINT"], ["info", "CLIP"]])
def test_looking_is_cheap(command, tiny_checkpoint, examples):
    """No torch, no numba, no matplotlib: nothing that takes a second to load."""
    command = [{"CHECKPOINT": str(tiny_checkpoint), "CLIP": str(examples["lj_en"])}.get(word, word) for word in command]
    script = f"""
import sys
from melcodec.cli.main import main
sys.argv = ["melcodec", *{command!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "torchaudio", "librosa", "matplotlib", "tensorboard"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_mel_stats(cli, speech_folder, golden, tmp_path):
    assert cli("mel-stats", speech_folder, "-o", "norms.pth").status == 0
    norms = torch.load(tmp_path / "norms.pth", weights_only=True)
    frontend = build_frontend(MelConfig(), (1.0,) * 80)
    parts = [part for i in range(3) for part in np.array_split(golden[f"{i}.wav"], 2)]
    mels = torch.cat([frontend(torch.from_numpy(part)[None])[0] for part in parts], dim=1)
    assert (norms.shape, norms.dtype) == ((80,), torch.float32)
    assert torch.allclose(norms, mels.mean(1), atol=1e-4)


def test_mel_stats_of_a_corpus_with_bad_files(cli, speech_folder, tmp_path):
    """The norms of the others are written, and the exit status says that some are missing."""
    (tmp_path / "bad.wav").write_text("not sound")
    assert cli("mel-stats", speech_folder, "-o", "good.npy").status == 0
    status, out, err = cli("mel-stats", speech_folder, "bad.wav", "-o", "norms.npy")
    assert (status, out) == (1, "")
    assert "left out: bad.wav: not readable as audio" in err
    assert "80 norms from 6 utterances" in err
    assert (tmp_path / "norms.npy").read_bytes() == (tmp_path / "good.npy").read_bytes()


def test_mel_stats_refusals(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.pth").touch()
    assert "no audio files" in refused("mel-stats", "empty", "-o", "norms.pth")
    assert "exists already" in refused("mel-stats", "empty", "-o", "there.pth")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("run.json", "melcodec corpus info folder"),
        ("metrics.json", "index.html"),
        ("config.toml", "it has no best.safetensors yet"),
    ],
)
def test_folders_that_melcodec_wrote_have_their_own_way_in(name, hint, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_text("{}")
    said = refused("info", "folder")
    assert "is a folder that melcodec wrote" in said
    assert f"hint: {hint}" in said or f"hint: open {hint}" in said


def test_a_checkpoint_in_words_is_short(cli, tmp_path):
    """Settings of the training are named; --json has all of them."""
    ran = cli("info", "melcodec-base")
    assert "parameters        13,200,976\n" in ran.out
    assert "27,461,216 bytes\n" in ran.out
    assert re.search(r"^trained from +[0-9a-f]{12}$", ran.out, re.MULTILINE)
    assert re.search(r"^settings +augment, .*: --json shows them$", ran.out, re.MULTILINE)
    assert "{" not in ran.out
    assert max(map(len, ran.out.splitlines())) < 200
