"""A little corpus with a manifest, and one evaluation of it that several tests look at."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from melcodec.evaluation.run import EvaluationSettings, evaluate
from melcodec.formats.checkpoint import load_checkpoint, save_checkpoint

MANIFEST = """\
path,dataset,speaker,language,text,speaker_in_train
speech/a/0.wav,one,anna,en,yes it is,1
speech/a/1.wav,one,anna,en,,1
speech/b/0.wav,two,bert,de,ja,0
speech/c/0.wav,two,cleo,,,0
"""


@pytest.fixture(scope="session")
def corpus(speech_folder, tmp_path_factory) -> Path:
    """manifest.csv beside speech/, which holds the six clips of ``speech_folder``. Not to be changed."""
    folder = tmp_path_factory.mktemp("corpus")
    shutil.copytree(speech_folder, folder / "speech")
    (folder / "manifest.csv").write_text(MANIFEST)
    return folder


@pytest.fixture(scope="session")
def evaluated(corpus, speech_folder, tiny_checkpoint, tmp_path_factory):
    """(report, folder) of the core metrics with anchors, from two processes."""
    folder = tmp_path_factory.mktemp("evaluated") / "report"
    data = corpus / "speech"
    settings = EvaluationSettings(
        str(tiny_checkpoint), "core", train=(speech_folder,), num_workers=2, command="melcodec evaluate x"
    )
    return evaluate([data], folder, settings), folder


@pytest.fixture(scope="session")
def checkpoints(tiny_checkpoint, tmp_path_factory) -> dict[str, Path]:
    """Relatives of the tiny checkpoint: another decoder, codes renumbered, another encoder."""
    folder = tmp_path_factory.mktemp("relatives")
    found = load_checkpoint(tiny_checkpoint)

    def save(name: str, **tensors) -> Path:
        path = folder / f"{name}.safetensors"
        save_checkpoint(path, replace(found, tensors={**found.tensors, **tensors}))
        return path

    order = np.random.default_rng(0).permutation(32)
    decoder = next(key for key in found.tensors if key.startswith("decoder.") and key.endswith("bias"))
    encoder = next(key for key in found.tensors if key.startswith("encoder.") and key.endswith("weight"))
    return {
        "same": tiny_checkpoint,
        "decoder": save("decoder", **{decoder: found.tensors[decoder] + 0.1}),
        "renumbered": save("renumbered", **{"codebook.embed": found.tensors["codebook.embed"][:, order].contiguous()}),
        "encoder": save("encoder", **{encoder: found.tensors[encoder] * 1.3}),
    }
