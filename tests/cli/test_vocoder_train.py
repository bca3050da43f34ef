"""vocoder train, as a user types it."""

from __future__ import annotations

import soundfile

from melcodec.config import parse, read_toml
from melcodec.training.vocoder.settings import VocoderRunConfig

TINY = [
    *("network.width=8", "network.hidden=8", "network.num_blocks=1", "network.nmf_iterations=1", "train.steps=2"),
    *(
        "data.batch_size=1",
        "data.crop_frames=8",
        "train.valid_clips=1",
        "objective.adversarial=0",
        "objective.feature_matching=0",
    ),
]
SETS = [word for line in TINY for word in ("--set", line)]


def test_from_speech_to_sound(cli, refused, speech_folder, tiny_checkpoint, tmp_path):
    ran = cli("vocoder", "train", speech_folder, *SETS, "-o", "run", "--device", "cpu")
    assert (ran.status, ran.out) == (0, ""), ran.err
    assert "5 utterances" in ran.err
    assert "step 2: validation log-magnitude L1" in ran.err
    assert "--vocoder run" in ran.err
    clip = speech_folder / "a" / "0.wav"
    made = []
    for name in ("griffin-lim", "run"):
        ran = cli("roundtrip", clip, "-o", "x.wav", "-f", "-c", tiny_checkpoint, "--vocoder", name)
        assert ran.status == 0, ran.err
        made.append(soundfile.read("x.wav")[0].tolist())
    assert made[0] != made[1]
    # resumed on demand, refused on demand, and another run may begin with its weights
    assert "holds a run already" in refused("vocoder", "train", speech_folder, *SETS, "-o", "run", "--no-resume")
    assert "other settings: data.crop_frames 8 -> 9" in refused(
        "vocoder", "train", speech_folder, *SETS, "-o", "run", "--set", "data.crop_frames=9"
    )
    ran = cli("vocoder", "train", speech_folder, *SETS, "-o", "run", "--resume", "--set", "train.steps=3")
    assert ran.status == 0, ran.err
    assert "step 3: validation" in ran.err
    ran = cli("vocoder", "train", speech_folder, *SETS, "-o", "next", "--init", "run")
    assert ran.status == 0, ran.err
    assert read_toml(tmp_path / "next/config.toml")["train"]["init"] == "run"
    assert "holds no run" in refused("vocoder", "train", speech_folder, *SETS, "-o", "third", "--resume")


def test_settings_can_be_a_file(cli, refused, speech_folder, tmp_path):
    ran = cli("vocoder", "config", *SETS)
    assert (ran.status, ran.err) == (0, "")
    (tmp_path / "mine.toml").write_text(ran.out)
    settings = parse(VocoderRunConfig, read_toml(tmp_path / "mine.toml"), "mine.toml")
    assert (settings.network.width, settings.train.steps) == (8, 2)
    assert [line for line in ran.out.splitlines() if "=" in line and "  # " not in line] == []
    ran = cli("vocoder", "train", speech_folder, "--config", "mine.toml", "-o", "run", "--set", "train.steps=1")
    assert ran.status == 0, ran.err
    assert "step 1: validation" in ran.err
    assert "unknown setting 'train.step'" in refused("vocoder", "train", speech_folder, "--set", "train.step=1")
    assert "no such vocoder" in refused("vocoder", "train", speech_folder, *SETS, "--init", "nothing", "-o", "other")
