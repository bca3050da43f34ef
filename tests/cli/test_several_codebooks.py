"""A model with three codebooks of different sizes goes through every command: Q and K come from the checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from melcodec.codec import Codec
from melcodec.config import load_preset, with_overrides, xtts_mel_norms
from melcodec.formats.checkpoint import from_model, save_checkpoint
from melcodec.store.codes import load_codes
from melcodec.vqvae import build_vqvae

SIZES = (16, 16, 16)
SETTINGS = [
    *("model.quantizer=residual", "model.quantizer.stages=3", "model.quantizer.inner=gradient"),
    *("model.quantizer.inner.codebook_size=16", "model.quantizer.inner.init=normal"),
]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A checkpoint of the tiny preset with residual gradient codebooks, untrained."""
    config = with_overrides(load_preset("tiny"), SETTINGS).model
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("three") / "three.safetensors"
    save_checkpoint(path, from_model(build_vqvae(config), config, xtts_mel_norms(), {}))
    return path


@pytest.fixture
def done(cli):
    """Run a command that must end with status 0; returns what it printed."""

    def run(*args: object):
        ran = cli(*args)
        assert ran.status == 0, ran.err
        return ran

    return run


def test_encode_decode_and_info(done, three, speech_folder, tmp_path):
    said = json.loads(done("info", three, "--json").out)
    assert said["codebooks"] == "K 16 + K 16 + K 16"
    assert said["bits per second"] == pytest.approx(3 * 4 * 22050 / 1024, abs=0.1)
    wav = speech_folder / "a" / "0.wav"
    for suffix in ("npy", "npz", "safetensors"):
        done("encode", wav, "-o", f"codes.{suffix}", "-c", three)
        done("decode", f"codes.{suffix}", "-o", f"{suffix}.wav", "-c", three)
        assert json.loads(done("info", f"codes.{suffix}", "--json").out)["shape"][0] == 3
    codes = np.load(tmp_path / "codes.npy")
    assert codes.shape[0] == 3
    assert codes.dtype == np.uint8
    assert codes.max() < 16
    done("decode", "codes.npz", "-o", "mel.npy", "-c", three)
    done("roundtrip", wav, "-o", "both.wav", "-c", three)
    done("encode", speech_folder, "-o", "folder", "--to", "npz", "-c", three)
    done("decode", "folder", "-o", "sounds", "--to", "wav", "-c", three)


def test_fewer_codebooks_decode_coarser(cli, done, three, tiny_checkpoint, speech_folder, tmp_path):
    """A mel, a sound and a picture of the first codebooks; what cannot be decoded in part is refused in words."""
    done("encode", speech_folder / "a" / "0.wav", "-o", "codes.npz", "-c", three)
    codec = Codec.from_pretrained(three, "cpu")
    codes = load_codes(tmp_path / "codes.npz")
    for count in (1, 2, 3):
        done("decode", "codes.npz", "-o", f"{count}.npy", "-c", three, "--codebooks", count)
        mel = codec.model.decode(torch.from_numpy(codes.codes)[None, :count])
        whole = codec.frontend.denormalize(mel)[0, :, : codec.frontend.num_frames(codes.num_samples)].detach().numpy()
        np.testing.assert_allclose(np.load(tmp_path / f"{count}.npy"), whole, atol=1e-5)
        done("decode", "codes.npz", "-o", f"{count}.wav", "-c", three, "--codebooks", count)
        assert codec.decode(codes.codes, codes.num_samples, codebooks=count).shape[-1] == codes.num_samples
    done("decode", "codes.npz", "-o", "1.png", "-c", three, "--codebooks", 1)
    done("decode", "codes.npz", "-o", "3.png", "-c", three)
    for suffix in ("npy", "wav", "png"):
        assert (tmp_path / f"1.{suffix}").read_bytes() != (tmp_path / f"3.{suffix}").read_bytes()
    refused = cli("decode", "codes.npz", "-o", "4.npy", "-c", three, "--codebooks", 4)
    assert (refused.status, (tmp_path / "4.npy").exists()) == (1, False)
    assert "4 of the checkpoint's 3 codebooks cannot be decoded alone" in refused.err
    assert "decodes 1 or 2 or 3" in refused.err
    done("encode", speech_folder / "a" / "0.wav", "-o", "one.npz", "-c", tiny_checkpoint)
    refused = cli("decode", "one.npz", "-o", "2.npy", "-c", tiny_checkpoint, "--codebooks", 2, "--overwrite")
    assert refused.status == 1
    assert "2 of the checkpoint's 1 codebooks cannot be decoded alone" in refused.err


def test_pictures(done, three, speech_folder):
    wav = speech_folder / "a" / "0.wav"
    done("plot", "roundtrip", wav, "-o", "roundtrip.png", "-c", three)
    done("plot", "usage", speech_folder, "-o", "usage.png", "-c", three)
    done("plot", "codebook", three, "-o", "codebook.png")


@pytest.mark.slow
def test_corpus(done, three, speech_folder, tmp_path):
    done("preprocess", speech_folder, "-o", "store", "-c", three, "--num-workers", 1)
    info = done("corpus", "info", "store").out
    assert info.count("of 16 used") == 3
    done("corpus", "verify", "store")
    for kind in ("npy", "bin", "webdataset"):
        done("corpus", "export", "store", "--to", kind, "-o", f"exported-{kind}")
    exported = np.load(next((tmp_path / "exported-npy").rglob("*.npy")))
    assert exported.shape[0] == 3


@pytest.mark.slow
def test_evaluate_and_compare(done, three, speech_folder, tmp_path):
    done("evaluate", speech_folder, "-o", "report", "-c", three, "--metrics", "log_mel_l1", "--no-anchors")
    report = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert len(report["usage"]["all"] if "usage" in report else SIZES) == 3
    done("compare", three, three, speech_folder)


@pytest.mark.slow
def test_train_resume_and_page(done, speech_folder, tmp_path):
    short = [
        "train.steps=4",
        "train.valid_every=2",
        "train.log_every=1",
        "data.crop_frames=32",
        "data.batch_size=4",
        "data.num_workers=1",
    ]
    words = [part for each in [*SETTINGS, *short] for part in ("--set", each)]
    done("train", speech_folder, "--preset", "tiny", "--device", "cpu", *words, "-o", "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    valid = [line for line in lines if line["kind"] == "valid"][-1]
    assert {"perplexity", "perplexity_0", "perplexity_1", "perplexity_2"} <= valid.keys()
    assert valid["codes_used"] + valid["codes_dead"] == 48
    with np.load(tmp_path / "run" / "usage.npz") as usage:
        assert usage["sizes"].tolist() == list(SIZES)
        assert usage["counts"].shape[1] == 48
    assert {f"codebook{number or ''}-step-00000004.png" for number in range(3)} <= {
        path.name for path in (tmp_path / "run" / "samples").iterdir()
    }
    done("train", speech_folder, "--preset", "tiny", "--device", "cpu", *words, "-o", "run", "--set", "train.steps=5")
    done("plot", "training", "run", "-o", "training.png")
    done("encode", speech_folder / "a" / "0.wav", "-o", "codes.npz", "-c", "run/best.safetensors")


@pytest.mark.parametrize("pattern", ["flat", "delay"])
def test_prior(done, three, speech_folder, tmp_path, pattern):
    """A prior of each pattern is trained, scored, drawn from as a file and in parts, and compresses without loss."""
    pytest.importorskip("transformers")
    pytest.importorskip("constriction")
    model = ["-c", three]
    done("encode", speech_folder, "-o", "codes", "--to", "npz", *model)
    short = [
        "train.steps=2",
        "train.valid_every=2",
        "train.samples=0",
        "model.context=32",
        "model.layers=1",
        f"pattern={pattern}",
    ]
    sets = [word for each in short for word in ("--set", each)]
    done("prior", "train", "codes", "-o", "prior", "--preset", "tiny", "--device", "cpu", *model, *sets)
    facts = json.loads(done("prior", "score", "prior", "codes", "--json", *model).out)
    network = facts["scores"][-1]
    assert facts["scores"][0]["bits_per_code"]["mean"] == 4
    assert network["name"] == "llama"
    assert network["bits_per_second"]["mean"] == pytest.approx(3 * network["bits_per_code"]["mean"] * 22_050 / 1024)
    drawn = done("prior", "sample", "prior", "-o", "x.npz", "--seconds", 1, "--device", "cpu", *model)
    assert f"{load_codes(tmp_path / 'x.npz').codes.shape[1]} codes" in drawn.err
    assert len(load_codes(tmp_path / "x.npz").codes) == 3
    wav = speech_folder / "a" / "0.wav"
    done("encode", wav, "-o", "x.mlc", "--prior", "prior", *model)
    for name, more in {"x.mlc": ["--prior", "prior"], "codes/a/0.npz": []}.items():
        done("decode", name, "-o", f"{name[0]}.npy", *more, *model)
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "c.npy").read_bytes()
