"""melcodec plot: the pictures and pages it writes, each option, and what it refuses."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch

from melcodec import plots
from melcodec.audio.io import load, save
from melcodec.audio.mel import build_frontend
from melcodec.cli._pictures import sounds
from melcodec.codec import Codec
from melcodec.config import MelConfig, xtts_mel_norms
from melcodec.evaluation.code_counts import first_latents
from melcodec.manifests.base import Utterance
from melcodec.plots import save_figure
from melcodec.store.codes import Codes, save_codes
from melcodec.store.layout import FORMAT, VERSION
from melcodec.store.parquet import Row
from tests.stores import make_store


@pytest.fixture(scope="module")
def mel(examples):
    """Natural log-mel (80, 448) of five seconds of speech."""
    frontend = build_frontend(MelConfig(), xtts_mel_norms())
    return frontend(torch.from_numpy(load(examples["lj_en"], 22_050))[None])[0].numpy()


@pytest.fixture(scope="module")
def codec(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture
def tiny(tiny_checkpoint):
    return ["--checkpoint", tiny_checkpoint, "--device", "cpu"]


@pytest.fixture
def plot(cli):
    """plot("mel", path, "-o", path) -> what it said; it must succeed, with nothing on stdout."""

    def run(*args):
        status, out, err = cli("plot", *args)
        assert (status, out) == (0, ""), err
        return err

    return run


@pytest.fixture
def same(tmp_path):
    """same(path, figure): the file is this picture, byte for byte."""

    def compare(path, figure):
        expected = tmp_path / f"expected{path.suffix}"
        save_figure(figure, expected)
        return path.read_bytes() == expected.read_bytes()

    return compare


@pytest.fixture
def run_folder(tmp_path):
    """A run as melcodec train leaves it."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    lines = [{"kind": "train", "step": step, "loss": 1 / step, "lr": 0.1} for step in range(1, 9)]
    lines += [{"kind": "valid", "step": step, "log_mel_l1": 1 / step, "codes_used": 3, "perplexity": 2.5} for step in (4, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.savez_compressed(folder / "usage.npz", steps=np.array([4, 8]), counts=np.array([[5, 3, 0, 1], [3, 3, 2, 1]]))
    return folder


# ---- mel and roundtrip


def test_mel_of_sound_and_of_a_mel_file(plot, same, examples, tmp_path, mel):
    output = tmp_path / "mel.png"
    assert plot("mel", examples["lj_en"], "-o", output) == f"{output}: mel 80 x 448 frames\n"
    assert same(output, plots.plot_mel(mel, title="lj_en.flac"))
    np.save(tmp_path / "decoded.npy", mel)
    plot("mel", tmp_path / "decoded.npy", "--output", output, "--overwrite")
    assert same(output, plots.plot_mel(mel, title="decoded.npy"))


def test_mel_of_standard_input(plot, same, examples, tmp_path, mel, monkeypatch):
    with examples["lj_en"].open("rb") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", type("Stdin", (), {"buffer": file}))
        plot("mel", "-", "-o", tmp_path / "stdin.png")
    assert same(tmp_path / "stdin.png", plots.plot_mel(mel, title="standard input"))


def test_roundtrip_uses_the_checkpoint(plot, same, examples, tmp_path, tiny, codec):
    output = tmp_path / "both.png"
    said = plot("roundtrip", examples["lj_en"], "-o", output, *tiny)
    before = codec.mel(load(examples["lj_en"], 22_050))
    codes = codec.encode_mel(before)
    after = codec.decode_to_mel(codes)
    assert same(output, plots.plot_roundtrip(before[0].numpy(), after[0].numpy(), codes[0].numpy(), title="lj_en.flac"))
    assert "448 frames, 112 codes, log-mel L1" in said


# ---- codes


def test_codes_of_sound(plot, same, examples, tmp_path, tiny, codec, mel):
    output = tmp_path / "codes.svg"
    said = plot("codes", examples["lj_en"], "-o", output, *tiny)
    codes = codec.encode(load(examples["lj_en"], 22_050))[0].numpy()
    assert same(output, plots.plot_codes(mel, codes, title="lj_en.flac"))
    assert said == f"{output}: 112 codes, {len(np.unique(codes))} of them different\n"


def test_codes_of_a_codes_file_stand_under_the_decoded_mel(plot, refused, same, tmp_path, tiny, codec):
    codes = np.arange(20)[None]
    save_codes(tmp_path / "c.npz", Codes(codes, 19_500, 22_050, codec.fingerprint, (32,)))
    plot("codes", "c.npz", "-o", "c.png", *tiny)
    decoded = codec.decode_to_mel(codes, 19_500)[0].numpy()
    assert same(tmp_path / "c.png", plots.plot_codes(decoded, codes, title="c.npz"))
    save_codes(tmp_path / "other.npz", Codes(codes, 19_500, 22_050, "0123456789ab", (32,)))
    assert "made by checkpoint 0123456789ab" in refused("plot", "codes", "other.npz", "-o", "o.png", *tiny)
    plot("codes", "other.npz", "-o", "o.png", "--any-checkpoint", *tiny)
    assert same(tmp_path / "o.png", plots.plot_codes(decoded, codes, title="other.npz"))


def test_chance_depends_on_seed_length_and_checkpoint(plot, same, tmp_path, tiny, codec):
    said = plot("chance", "-o", "a.png", "--seconds", "1", "--seed", "7", *tiny)
    codes = np.random.default_rng(7).integers(0, 32, (1, 22))
    picture = plots.plot_codes(codec.decode_to_mel(codes)[0].numpy(), codes, title="Random codes, decoded")
    assert same(tmp_path / "a.png", picture)
    assert "22 random codes of tiny.safetensors" in said
    plot("chance", "-o", "b.png", "--seconds", "1", *tiny)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


# ---- codebook


def test_codebook_alone(plot, same, tmp_path, tiny_checkpoint, codec):
    said = plot("codebook", tiny_checkpoint, "-o", "book.png", "--device", "cpu")
    embed = codec.model.codebook.embed.T.numpy()
    assert same(tmp_path / "book.png", plots.plot_codebook(embed, title="tiny.safetensors"))
    assert "32 codewords of width 8" in said


def test_codebook_with_speech_shows_its_use(plot, same, tmp_path, tiny_checkpoint, codec, speech_folder):
    said = plot("codebook", tiny_checkpoint, speech_folder / "a", speech_folder / "b/0.wav", "-o", "book.png", "--device", "cpu")
    waves = [load(speech_folder / name, 22_050) for name in ("a/0.wav", "a/1.wav", "b/0.wav")]
    codes = np.concatenate([codec.encode(wave)[0, 0].numpy() for wave in waves])
    with torch.inference_mode():
        mels = [codec.frontend.normalize(codec.mel(wave)) for wave in waves]
        latents = np.concatenate([codec.model.encode_latents(mel)[0].T.numpy() for mel in mels])
    counts, embed = np.bincount(codes, minlength=32), codec.model.codebook.embed.T.numpy()
    assert same(tmp_path / "book.png", plots.plot_codebook_use(embed, counts, latents, codes, "tiny.safetensors"))
    assert f"{len(codes)} codes counted" in said


def test_umap_is_asked_for_by_name(refused, tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    assert "pip install umap-learn" in refused("plot", "codebook", tiny_checkpoint, "-o", "b.png", "--umap", "--device", "cpu")


# ---- usage


def test_usage_of_codes_files_needs_no_checkpoint(plot, same, tmp_path):
    (tmp_path / "codes").mkdir()
    save_codes(tmp_path / "codes/a.npz", Codes(np.array([[1, 1, 2]]), sizes=(8,)))
    save_codes(tmp_path / "codes/b.npy", Codes(np.array([[7, 1]])))
    said = plot("usage", "codes", "-o", "usage.png", "--checkpoint", "never opened")
    counts = np.array([0, 3, 1, 0, 0, 0, 0, 1])
    assert same(tmp_path / "usage.png", plots.plot_usage(counts, "codes"))
    assert "3 of 8 codes used" in said
    assert "5 codes counted" in said
    plot("usage", "codes/a.npz", "codes/b.npy", "-o", "two.png")
    assert same(tmp_path / "two.png", plots.plot_usage(counts, "2 files"))


def test_usage_of_sound_and_of_codes_that_do_not_know_their_codebook(plot, same, tmp_path, tiny, codec, speech_folder):
    plot("usage", speech_folder / "a", "-o", "usage.png", *tiny)
    codes = np.concatenate([codec.encode(load(speech_folder / f"a/{part}.wav", 22_050))[0, 0].numpy() for part in (0, 1)])
    assert same(tmp_path / "usage.png", plots.plot_usage(np.bincount(codes, minlength=32), "a"))
    np.save(tmp_path / "codes.npy", codes[None])
    plot("usage", "codes.npy", "-o", "usage.png", "-f", *tiny)
    assert same(tmp_path / "usage.png", plots.plot_usage(np.bincount(codes, minlength=32), "codes.npy"))


def test_a_folder_with_codes_beside_its_sound_is_counted_once(plot, tmp_path, speech_folder):
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "0.wav").write_bytes((speech_folder / "a/0.wav").read_bytes())
    save_codes(folder / "0.npz", Codes(np.array([[1, 1, 2]]), sizes=(8,)))
    assert "3 codes counted" in plot("usage", folder, "-o", "usage.png")


def test_usage_of_several_codebooks_counts_each_apart(plot, tmp_path):
    save_codes(tmp_path / "c.npz", Codes(np.array([[1, 1], [1, 3]]), sizes=(4, 4)))
    said = plot("usage", "c.npz", "-o", "usage.html")
    assert "codebook 1: 1 of 4 codes used, perplexity 1; codebook 2: 2 of 4 codes used, perplexity 2; 2 codes counted" in said
    page = (tmp_path / "usage.html").read_text()
    assert "Every code of codebook 1" in page
    assert "Every code of codebook 2" in page


def test_usage_of_a_store(plot, tmp_path):
    spec = {"format": FORMAT, "version": VERSION, "fingerprint": "0123456789ab", "sizes": [8]}
    spec |= {"samples_per_code": 1024, "sample_rate": 22_050, "mel": MelConfig().model_dump()}
    rows = [Row("a", np.array([[1, 2, 2]], np.uint16)), Row("b", None, status="silent", error="silent")]
    make_store(tmp_path / "store", rows, spec)
    assert "2 of 8 codes used, perplexity 2, 3 codes counted" in plot("usage", "store", "-o", "usage.png")


# ---- training


def test_training_shows_curves_and_usage(plot, same, tmp_path, run_folder):
    said = plot("training", run_folder, "-o", "t.png")
    curves = plots.read_curves(run_folder / "metrics.jsonl")
    history = plots.read_history(run_folder / "usage.npz")
    assert same(tmp_path / "t.png", plots.plot_training(curves, history, "first"))
    assert "learning curves to step 8" in said
    (run_folder / "usage.npz").unlink()
    plot("training", run_folder, "-o", "t.png", "-f")
    assert same(tmp_path / "t.png", plots.plot_training(curves, None, "first"))


def test_several_trainings_stand_side_by_side(plot, same, tmp_path, run_folder):
    other = tmp_path / "other"
    other.mkdir()
    np.savez(other / "usage.npz", steps=np.array([1]), counts=np.array([[9, 0, 0, 0]]))
    plot("training", run_folder, other, "-o", "t.png")
    histories = {run.name: plots.read_history(run / "usage.npz") for run in (run_folder, other)}
    assert same(tmp_path / "t.png", plots.plot_usage_histories(histories))
    (tmp_path / "first").mkdir()
    (other / "usage.npz").rename(tmp_path / "first/usage.npz")
    plot("training", "runs/first", "first", "-o", "u.png")
    assert same(
        tmp_path / "u.png", plots.plot_usage_histories(dict(zip(("runs/first", "first"), histories.values(), strict=True)))
    )


# ---- pages


@pytest.mark.slow
def test_every_picture_can_be_a_page(plot, tmp_path, tiny, tiny_checkpoint, speech_folder, run_folder):
    clip = speech_folder / "a/0.wav"
    pages = {
        "mel": (["mel", clip], 0, 0),
        "roundtrip": (["roundtrip", clip, *tiny], 2, 1),
        "codes": (["codes", clip, *tiny], 2, 1),
        "chance": (["chance", "--seconds", "1", *tiny], 1, 1),
        "codebook": (["codebook", tiny_checkpoint, clip, "--device", "cpu"], 0, 1),
        "usage": (["usage", clip, *tiny], 0, 1),
        "training": (["training", run_folder], 0, 1),
    }
    for name, (words, players, tables) in pages.items():
        plot(*words, "-o", f"{name}.html")
        html = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        counted = [len(re.findall(tag, html)) for tag in ("<img ", "<audio ", "<table>")]
        assert counted == [1, players, tables], name


def test_the_table_of_a_page_holds_the_numbers(plot, tmp_path, run_folder):
    save_codes(tmp_path / "c.npz", Codes(np.array([[1, 1, 2]]), sizes=(4,)))
    plot("usage", "c.npz", "-o", "usage.html")
    rows = re.findall("<tr><th.*", (tmp_path / "usage.html").read_text())
    numbers = [re.findall('data-value="([^"]*)"', row) for row in rows]
    assert [row[:3] for row in numbers] == [["1", "1", "2"], ["2", "2", "1"], ["3", "0", "0"], ["4", "3", "0"]]
    assert float(numbers[0][3]) == pytest.approx(200 / 3)
    plot("training", run_folder, "-o", "training.html")
    rows = re.findall("<tr><th.*", (tmp_path / "training.html").read_text())
    assert [re.findall('data-value="([^"]*)"', row) for row in rows] == [["4", "0.25", "3", "2.5"], ["8", "0.125", "3", "2.5"]]


# ---- what is refused


@pytest.mark.parametrize(
    "words",
    [["mel", "IN"], ["roundtrip", "IN"], ["codes", "IN"], ["chance"], ["codebook", "x"], ["usage", "IN"], ["training", "x"]],
)
def test_outputs_that_cannot_be_are_refused_first(refused, examples, tmp_path, words):
    """Before a checkpoint that does not exist is looked for."""
    words = [str(examples["lj_en"]) if word == "IN" else word for word in words]
    (tmp_path / "there.png").write_text("precious")
    err = refused("plot", *words, "-o", "x.gif")
    assert "cannot write '.gif' pictures" in err
    assert "hint: use one of .png, .svg, .html" in err
    assert "exists already" in refused("plot", *words, "-o", "there.png")
    assert (tmp_path / "there.png").read_text() == "precious"


def test_inputs_that_cannot_be_read(refused, examples, tmp_path, tiny, tiny_checkpoint, run_folder):
    clip = examples["lj_en"]
    np.save(tmp_path / "codes.npy", np.full((1, 9), 40, np.uint16))
    np.save(tmp_path / "floats.npy", np.zeros((80, 9), np.float32))
    save_codes(tmp_path / "a.npz", Codes(np.array([[1]]), fingerprint="aaaaaaaaaaaa", sizes=(4,)))
    save_codes(tmp_path / "b.npz", Codes(np.array([[1]]), fingerprint="bbbbbbbbbbbb", sizes=(4,)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/metrics.jsonl").touch()
    book = ["codebook", tiny_checkpoint, "--device", "cpu"]
    for words, reason in (
        (["mel", "no.wav"], "no such file"),
        (["mel", "codes.npy"], "not a mel"),
        (["roundtrip", clip, "--checkpoint", "no.safetensors"], "no.safetensors"),
        (["roundtrip", clip, "--checkpoint", tiny_checkpoint, "--device", "abc"], "--device abc"),
        (["codes", "no.wav", *tiny], "no such file"),
        (["codes", "floats.npy", *tiny], "are not codes"),
        (["codes", "codes.npy", *tiny], "knows 0 .. 31"),
        (["codes", clip, *tiny[:2], "--device", "abc"], "--device abc"),
        (["chance", *tiny[:2], "--device", "abc"], "--device abc"),
        (["codebook", "nothing"], "no such checkpoint"),
        (["codebook", tiny_checkpoint, "--device", "abc"], "--device abc"),
        ([*book, "no.wav"], "no such file"),
        ([*book, "empty"], "no audio files in empty"),
        (["usage", "empty"], "neither codes nor audio"),
        (["usage", "no.npz"], "no.npz"),
        (["usage", "a.npz", "b.npz"], "made by checkpoint bbbbbbbbbbbb"),
        (["usage", "codes.npy", *tiny], "code 40 does not exist in a codebook of 32"),
        (["usage", clip, *tiny[:2], "--device", "abc"], "--device abc"),
        (["training", "nowhere"], "no such folder"),
        (["training", "empty"], "metrics.jsonl: no such file"),
        (["training", "begun"], "nothing has been measured"),
        (["training", run_folder, "empty"], "usage.npz"),
    ):
        assert reason in refused("plot", *words, "-o", "new.png"), words
    assert not (tmp_path / "new.png").exists()


def test_a_picture_is_replaced_only_when_asked(plot, tmp_path, run_folder):
    (tmp_path / "t.html").write_text("precious")
    plot("training", run_folder, "-o", "t.html", "-f")
    assert (tmp_path / "t.html").read_text().startswith("<!doctype html>")


def test_help_names_every_picture(cli):
    _, out, _ = cli("plot", "--help")
    for name in ("mel", "roundtrip", "codes", "chance", "codebook", "usage", "training"):
        assert re.search(rf"\b{name}\b", out), name


def test_a_page_plays_a_minute_and_says_so():
    short, long = np.zeros(59 * 100), np.zeros(61 * 100)
    assert sounds("Both.", {"a": short}, 100).caption == "Both."
    cut = sounds("Both.", {"a": short, "b": long}, 100)
    assert cut.caption == "Both. The first 60 s."
    assert [(track.label, len(track.wav), track.sample_rate) for track in cut.tracks] == [("a", 5_900, 100), ("b", 6_000, 100)]


def test_latents_are_those_of_the_first_ten_seconds_of_each_file(tmp_path, golden, codec):
    save(tmp_path / "long.wav", np.tile(golden["0.wav"], 12)[: 12 * 22_050], 22_050)
    save(tmp_path / "short.wav", golden["0.wav"][:5_000], 22_050)
    latents, codes = first_latents(codec, [Utterance(name, str(tmp_path / f"{name}.wav")) for name in ("long", "short")])
    assert latents.shape == (codec.num_codes(220_500) + codec.num_codes(5_000), 8)
    assert codes.tolist()[:200] == codec.encode(load(tmp_path / "long.wav", 22_050))[0, 0, :200].tolist()


@pytest.mark.parametrize("words", [("usage",), ("codebook", "melcodec-base")])
def test_a_bad_file_is_left_out_and_named(words, cli, tmp_path, golden, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in" / "good.wav", golden["0.wav"][:9_000], 22_050)
    (tmp_path / "in" / "bad.wav").write_bytes(b"nonsense")
    status, _, err = cli("plot", *words, "in", "-o", "x.png")
    assert status == 1
    assert "1 left out:\n  in/bad.wav: not readable as audio" in err
    assert (tmp_path / "x.png").stat().st_size > 1000
    if words == ("usage",):
        status, _, err = cli("plot", *words, "in", "-o", "y.png", "--checkpoint", "nosuch")
        assert (status, "left out" in err) == (1, False)
        assert err.startswith("error: nosuch: no such checkpoint")
    (tmp_path / "in" / "good.wav").unlink()
    status, _, err = cli("plot", *words, "in", "-o", "y.png")
    assert (status, (tmp_path / "y.png").exists()) == (1, False)
    assert err.startswith("error: in/bad.wav: not readable as audio")
