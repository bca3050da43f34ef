"""The commands in docs/prior.md, run as they stand, with a tiny tokenizer and a tiny prior."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import soundfile

from tests.cli.conftest import cli  # noqa: F401

pytest.importorskip("transformers")
pytest.importorskip("constriction")
DOCS = Path(__file__).resolve().parent.parent / "docs"
(BLOCK,) = re.findall(r"```sh\n(.*?)```", (DOCS / "prior.md").read_text(encoding="utf-8"), re.S)
COMMANDS = [shlex.split(line, comments=True)[1:] for line in BLOCK.splitlines()]
TINY = {"melcodec-base": None, "small": "tiny"}  # what the test puts in the place of words
QUICK = ["train.steps=6", "train.valid_every=3", "train.sample_seconds=0.5", "model.context=32", "model.layers=1"]


@pytest.mark.slow
def test_from_recordings_to_samples(cli, tiny_checkpoint, speech_folder, tmp_path):  # noqa: F811
    (tmp_path / "data").symlink_to(speech_folder)
    (tmp_path / "clip.wav").write_bytes((speech_folder / "a/0.wav").read_bytes())
    assert len(COMMANDS) <= 10
    for words in COMMANDS:
        told = [str(tiny_checkpoint) if word == "melcodec-base" else TINY.get(word, word) for word in words]
        if words[:2] == ["prior", "sample"] and "clip.wav" in words:
            told = ["0.3" if word == "2" else "1" if word == "6" else word for word in told]  # the clip is short
        if words[0] != "preprocess":
            told += ["--checkpoint", str(tiny_checkpoint)]
        if words[:2] == ["prior", "train"]:
            told += ["--device", "cpu", *(part for each in QUICK for part in ("--set", each))]
        status, _, err = cli(*told)
        assert status == 0, (words, err)
    for name in ("out.wav", "more.wav", "many/3.wav", "again.wav"):
        assert soundfile.info(tmp_path / name).frames > 1_000
    assert soundfile.info(tmp_path / "again.wav").frames == soundfile.info(tmp_path / "clip.wav").frames
    assert (tmp_path / "prior/index.html").exists()
