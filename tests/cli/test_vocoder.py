"""--vocoder in every command that makes sound."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import soundfile

from melcodec.evaluation.subjects import find_subjects
from melcodec.evaluation.workers import FileTask, Recipe, Scorer
from melcodec.vocoder.choice import choose_vocoder
from melcodec.vocoder.file import load_vocoder, save_vocoder

QUICK = (
    "--set",
    "train.steps=1",
    "--set",
    "train.samples=1",
    "--set",
    "data.num_workers=1",
    "--preset",
    "tiny",
    "--device",
    "cpu",
)


@pytest.fixture
def tiny(tiny_checkpoint):
    return ("--checkpoint", tiny_checkpoint, "--device", "cpu")


@pytest.fixture
def settings(tmp_path, tiny_vocoder):
    """A TOML file: the tiny vocoder, not refined."""
    path = tmp_path / "alone.toml"
    path.write_text(f'kind = "learned"\nweights = "{tiny_vocoder}"\nrefine = 0\n')
    return path


@pytest.fixture
def other_mel(tmp_path, tiny_vocoder):
    """A vocoder for a mel with another highest frequency."""
    made = load_vocoder(tiny_vocoder)
    path = tmp_path / "other.safetensors"
    save_vocoder(path, type(made)(made.mel.model_copy(update={"f_max": 7_600.0}), made.network, made.tensors))
    return path


def sound(path):
    return soundfile.read(path)[0].tolist()


def test_decode_and_roundtrip(cli, speech_folder, tiny, tiny_vocoder, settings, tmp_path):
    clip = speech_folder / "a" / "0.wav"
    assert cli("encode", clip, "-o", "c.npz", *tiny).status == 0
    for name, vocoder in (("plain", "griffin-lim"), ("refined", tiny_vocoder), ("alone", settings)):
        for command, source in (("decode", "c.npz"), ("roundtrip", clip)):
            ran = cli(command, source, "-o", f"{command}-{name}.wav", "--vocoder", vocoder, *tiny)
            assert ran.status == 0, ran.err
    cli("decode", "c.npz", "-o", "default.wav", *tiny)
    made = {path.stem: sound(path) for path in tmp_path.glob("*.wav")}
    assert made["default"] == made["decode-plain"]
    for command in ("decode", "roundtrip"):
        assert len({len(made[f"{command}-{name}"]) for name in ("plain", "refined", "alone")}) == 1
        assert made[f"{command}-plain"] != made[f"{command}-refined"] != made[f"{command}-alone"]


@pytest.mark.parametrize("picture", ["roundtrip", "codes", "chance"])
def test_pages(cli, speech_folder, tiny, tiny_vocoder, tmp_path, picture):
    source = [speech_folder / "a" / "0.wav"] if picture != "chance" else ["--seconds", 0.5]
    pages = []
    for name in ("griffin-lim", tiny_vocoder):
        ran = cli("plot", picture, *source, "-o", "page.html", "-f", "--vocoder", name, *tiny)
        assert ran.status == 0, ran.err
        pages.append(re.findall(r"data:audio/[^\"]*", (tmp_path / "page.html").read_text())[-1])
    assert pages[0] != pages[1]


def test_evaluate(cli, refused, speech_folder, tiny_checkpoint, tiny_vocoder):
    """The report says what made sound, another vocoder is another evaluation, and the workers' figures are the vocoder's."""
    clip = speech_folder / "a" / "0.wav"
    options = (clip, "-o", "r", "-c", tiny_checkpoint, "--metrics", "si_sdr", "--no-anchors", "--num-workers", 1)
    ran = cli("evaluate", *options, "--json", "--vocoder", tiny_vocoder)
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    assert found["settings"]["vocoder"]["kind"] == "learned"
    assert found["settings"]["vocoder"]["weights"] == tiny_vocoder.stem
    assert "other settings (vocoder)" in refused("evaluate", *options)
    [subject] = find_subjects([clip])
    scores = []
    for config in (choose_vocoder(tiny_vocoder), choose_vocoder("griffin-lim")):
        scorer = Scorer(Recipe(str(tiny_checkpoint), ("codes",), ("si_sdr",), None, config))
        scores.append(scorer.do(FileTask("key", subject)).scores["codes"].values["si_sdr"])
    [line] = (json.loads(line) for line in Path("r/results.jsonl").read_text().splitlines() if "si_sdr" in line)
    assert line["scores"]["codes"]["values"]["si_sdr"] == pytest.approx(scores[0], abs=1e-3)
    assert scores[0] != pytest.approx(scores[1], abs=0.1)


@pytest.mark.slow
def test_bench(cli, tiny, tiny_vocoder):
    ran = cli("bench", "--json", "--seconds", 0.2, "--repeats", 1, "--vocoder", tiny_vocoder, *tiny)
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    assert found["settings"]["vocoder"] == str(tiny_vocoder)
    plain = json.loads(cli("bench", "--json", "--seconds", 0.2, "--repeats", 1, *tiny).out)
    flops = [next(figure["work"]["flops"] for figure in run["figures"] if figure["name"] == "vocoder") for run in (found, plain)]
    assert flops[0] != flops[1]


@pytest.mark.slow
def test_samples_of_a_training(cli, speech_folder, tiny_vocoder, tmp_path):
    """Sound does not decide what is learned: a run may go on with another vocoder."""
    made, original = [], tmp_path / "run/samples/clip0-original.wav"
    for steps, more in ((1, ("--vocoder", tiny_vocoder)), (2, ())):
        ran = cli("train", speech_folder, *QUICK, "--set", f"train.steps={steps}", *more, "-o", "run")
        assert ran.status == 0, ran.err
        made.append(sound(original))
        original.unlink()
    assert len(made[0]) == len(made[1])
    assert made[0] != made[1]


def test_what_cannot_make_this_sound_is_refused(refused, speech_folder, tiny, other_mel):
    clip = speech_folder / "a" / "0.wav"
    assert "made for another mel: f_max 7600.0, not 8000.0" in refused(
        "roundtrip", clip, "-o", "x.wav", "--vocoder", other_mel, *tiny
    )
    assert "nothing: no such vocoder" in refused("roundtrip", clip, "-o", "x.wav", "--vocoder", "nothing", *tiny)
    assert "made for another mel" in refused("train", speech_folder, *QUICK, "--vocoder", other_mel, "-o", "run")
    assert "no such vocoder" in refused("train", speech_folder, *QUICK, "--vocoder", "nothing", "-o", "run")
