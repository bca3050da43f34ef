"""Training: what is learned, what is held out, kills that change nothing, two processes that are one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from melcodec.config import with_overrides
from melcodec.errors import MelcodecError
from melcodec.prior.config import load_prior_preset, prior_presets
from melcodec.prior.models import load_prior
from melcodec.prior.reading import check_space, held_out, read_codes
from melcodec.prior.run import Sources, train_prior
from melcodec.prior.train import Hooks
from melcodec.store.codes import Codes, load_codes, save_codes
from tests.stores import make_store, speech_rows

pytest.importorskip("transformers")
SMALL = [
    "model.context=32",
    "model.width=32",
    "model.layers=1",
    "data.batch_size=4",
    "data.token_dropout=0.1",
    "model.dropout=0.1",
]
SHORT = ["train.steps=12", "train.valid_every=4", "train.log_every=2", "train.save_every=4", "train.samples=0"]


def settings(*more: str):
    return with_overrides(load_prior_preset("tiny"), [*SMALL, *SHORT, *more])


def run(codes_folder, folder, checkpoint, *more: str, hooks: Hooks | None = None):
    return train_prior(Sources([codes_folder], (), str(checkpoint)), settings(*more), folder, "cpu", hooks)


def test_presets_build():
    assert set(prior_presets()) >= {"tiny", "light", "small", "base", "mamba", "ngram"}
    sizes = {}
    for name in prior_presets():
        config = load_prior_preset(name)
        if name in ("light", "small", "base"):
            layer = 4 * config.model.width**2 + 3 * config.model.width * config.model.feed_forward
            sizes[name] = config.model.layers * layer / 1e6
    assert sizes["light"] == pytest.approx(2.2, rel=0.1)
    assert sizes["small"] == pytest.approx(10, rel=0.1)
    assert sizes["base"] == pytest.approx(40, rel=0.1)
    with pytest.raises(MelcodecError, match="no preset 'smal'"):
        load_prior_preset("smal")


@pytest.mark.slow
def test_it_learns_and_the_folder_is_complete(codes_folder, tiny_checkpoint, tmp_path):
    lines, said = [], []
    hooks = Hooks(said.append, lambda kind, step, values: lines.append((kind, step, values)))
    more = ["train.steps=60", "train.valid_every=20", "optimizer.lr=1e-2", "train.samples=1", "train.sample_every=60"]
    run(codes_folder, tmp_path, tiny_checkpoint, *more, "train.sample_seconds=1", hooks=hooks)
    bits = [values["bits_per_code"] for kind, _, values in lines if kind == "valid"]
    assert bits[-1] < 4 < 4.9 < 5
    assert bits[-1] < bits[0]
    assert "44 utterances" in said[0]
    assert "4, 0.0" in said[0]  # one of twelve speakers
    names = {path.name for path in tmp_path.rglob("*")}
    assert {"prior.json", "config.json", "model.safetensors", "ngram.safetensors", "baselines.safetensors", "index.html"} <= names
    assert "sample0-step-00000060.wav" in names
    prior = load_prior(tmp_path)
    assert prior.figures["valid_bits_per_code"] == pytest.approx(min(bits), abs=1e-3)
    assert list(prior.figures["valid_bits"]) == ["uniform", "unigram", "bigram", "trigram"]
    assert prior.figures["valid_bits"]["trigram"] < prior.figures["valid_bits"]["unigram"] - 1
    page = (tmp_path / "index.html").read_text()
    assert "bits per held-out code" in page
    assert "Drawn from nothing after step 60" in page
    from transformers import AutoModelForCausalLM

    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "prior.json").stat().st_mode  # others may read it
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.eos_token_id == prior.tokens.end


def test_float16_halves_the_file(codes_folder, tiny_checkpoint, tmp_path):
    more = ["train.steps=2", "train.valid_every=2"]
    for kind in ("float32", "float16"):
        run(codes_folder, tmp_path / kind, tiny_checkpoint, *more, f"train.weights={kind}")
    sizes = [(tmp_path / kind / "model.safetensors").stat().st_size for kind in ("float32", "float16")]
    assert sizes[1] < 0.6 * sizes[0]
    wide, narrow = (load_prior(tmp_path / kind) for kind in ("float32", "float16"))
    for name, value in narrow.network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, wide.network.state_dict()[name], rtol=1e-3, atol=1e-6)
    codes = load_codes(codes_folder / "s0/0.npz").codes
    assert narrow.surprise(codes) == pytest.approx(wide.surprise(codes), abs=0.05)


@pytest.mark.slow
def test_a_kill_changes_no_byte(codes_folder, tiny_checkpoint, tmp_path):
    """Killed after a state that is not the last thing that was done, and stopped by hand: the same files as without."""
    run(codes_folder, tmp_path / "whole", tiny_checkpoint)
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport torch\ntorch.set_num_threads(1)\n"
        "from pathlib import Path\nfrom melcodec.prior.run import *\nfrom melcodec.prior.train import Hooks\n"
        "from melcodec.prior.config import *\nfrom melcodec.config import with_overrides\n"
        f"config = with_overrides(load_prior_preset('tiny'), {[*SMALL, *SHORT]!r})\n"
        "hooks = Hooks(report=lambda kind, step, values: print(kind, step, flush=True))\n"
        f"train_prior(Sources([Path({str(codes_folder)!r})], (), {str(tiny_checkpoint)!r}), config, sys.argv[1], 'cpu', hooks)\n"
    )
    child = subprocess.Popen([sys.executable, str(script), str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.split() == ["train", "6"]:
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    asked = []
    hooks = Hooks(report=lambda kind, step, values: asked.append(step), should_stop=lambda: bool(asked) and asked[-1] >= 8)
    state = run(codes_folder, tmp_path / "killed", tiny_checkpoint, hooks=hooks)
    assert state.progress.step == 8
    assert asked[0] == 6  # from the state of step 4
    run(codes_folder, tmp_path / "killed", tiny_checkpoint)
    for name in ("model.safetensors", "prior.json", "ngram.safetensors", "states/step-00000012.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed/metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 4, 6, 8, 8, 10, 12, 12]


def test_other_settings_or_codes_are_refused(codes_folder, tiny_checkpoint, tmp_path):
    short = ("train.steps=2", "train.valid_every=2")
    run(codes_folder, tmp_path / "run", tiny_checkpoint, *short)
    with pytest.raises(MelcodecError, match=r"optimizer\.lr 0\.003 -> 0\.001"):
        run(codes_folder, tmp_path / "run", tiny_checkpoint, *short, "optimizer.lr=1e-3")
    one = load_codes(codes_folder / "s0/0.npz")
    for speaker in range(10):
        for index in range(2):
            save_codes(tmp_path / f"other/s{speaker}/{index}.npz", one)
    with pytest.raises(MelcodecError, match="the codes have changed"):
        run(tmp_path / "other", tmp_path / "run", tiny_checkpoint, *short)


@pytest.mark.parametrize("more", [["--preset", "mamba"], ["--preset", "ngram"]], ids=["mamba", "ngram"])
def test_other_kinds(codes_folder, tiny_checkpoint, tmp_path, more):
    small = ["model.layers=1", "model.width=16", "model.context=16", "data.batch_size=2"] if more[1] == "mamba" else []
    config = with_overrides(load_prior_preset(more[1]), [*small, "train.steps=2", "train.valid_every=2", "train.samples=0"])
    train_prior(Sources([codes_folder], (), str(tiny_checkpoint)), config, tmp_path, "cpu")
    prior = load_prior(tmp_path)
    assert prior.kind == more[1]
    assert np.isfinite(prior.surprise(load_codes(codes_folder / "s0/0.npz").codes)).all()


def test_bfloat16_and_several_codebooks(tiny_checkpoint, tmp_path):
    """The delay pattern learns; autocast is used where it is asked for."""
    from melcodec.metrics import ngram
    from melcodec.prior.data import Sequences
    from melcodec.prior.reading import CodeSpace
    from melcodec.prior.run import engine_settings
    from melcodec.prior.train import Lesson, Trainer
    from melcodec.tokens import Tokens
    from melcodec.training.engine import start_engine
    from tests.prior.conftest import spoken_codes

    sizes, seen = (32, 16), {}
    for precision in ("float32", "bfloat16"):
        config = settings(
            "pattern=delay", "train.steps=40", "train.valid_every=40", "optimizer.lr=1e-2", f"train.precision={precision}"
        )
        tokens, data = Tokens(sizes, "delay"), spoken_codes(24, 1, sizes=sizes)
        parts = [Sequences(part, tokens, 32, True) for part in (data[:20], data[20:])]
        tables = [ngram.fit(data[:20], data[20:], sizes, order) for order in (1, 2)]
        lesson = Lesson(CodeSpace("0" * 12, sizes, 22_050, 1024), *parts, "key", tables[1], (tables[0],), {})
        lines = []
        hooks = Hooks(report=lambda kind, step, values, lines=lines: lines.append((kind, values)))
        (tmp_path / precision).mkdir()
        Trainer(config, lesson, tmp_path / precision, start_engine(engine_settings(config), "cpu"), hooks).run()
        seen[precision] = lines[-1][1]["bits_per_code"]
    assert seen["float32"] < 4.2  # 4.5 at chance
    assert seen["bfloat16"] == pytest.approx(seen["float32"], abs=0.1)
    assert seen["bfloat16"] != seen["float32"]


TWO = """
import sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from melcodec.prior.run import Sources, train_prior
from melcodec.prior.config import load_prior_preset
from melcodec.config import with_overrides
config = with_overrides(load_prior_preset("tiny"), sys.argv[4:])
train_prior(Sources([Path(sys.argv[1])], (), sys.argv[2]), config, sys.argv[3], "cpu")
"""


@pytest.mark.slow
def test_two_processes_are_one(codes_folder, tiny_checkpoint, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    more = ["model.dropout=0", "train.steps=4", "train.precision=float32"]
    run(codes_folder, tmp_path / "one", tiny_checkpoint, *more)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    arguments = [str(codes_folder), str(tiny_checkpoint), str(tmp_path / "two"), *SMALL, *SHORT, *more]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (load_prior(tmp_path / name).network.state_dict() for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    losses = []
    for name in ("one", "two"):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_reading_stores_and_files(tiny_checkpoint, examples, codes_folder, tmp_path):
    rows, spec = speech_rows(tiny_checkpoint, examples)
    store = read_codes([make_store(tmp_path / "codes", rows, spec)], str(tiny_checkpoint))
    assert len(store.items) == 24
    assert {item.speaker for item in store.items} == {"lj", "nathalie", "kerstin", "kathleen"}
    assert store.space.sizes == (32,)
    assert store.space.code_rate == pytest.approx(21.533, abs=1e-3)
    assert store.items[0].codes.dtype == np.uint8
    files = read_codes([codes_folder], str(tiny_checkpoint))
    assert {item.speaker for item in files.items} == {f"s{index}" for index in range(12)}
    assert files.space == store.space
    check_space(files, store.space, "x")
    both = read_codes([codes_folder, tmp_path / "codes"], str(tiny_checkpoint))
    assert len(both.items) == 48 + 24
    train, valid = held_out(files, 0.2)
    assert {item.speaker for item in train.items}.isdisjoint(item.speaker for item in valid.items)
    for part, index in (("train", 0), ("valid", 1)):
        save_codes(tmp_path / f"sets/{part}/a/{index}.npz", load_codes(codes_folder / f"s0/{index}.npz"))
    declared = held_out(read_codes([tmp_path / "sets"], str(tiny_checkpoint)), 0.5)
    assert [[item.id for item in part.items] for part in declared] == [["train/a/0"], ["valid/a/1"]]


def test_codes_that_do_not_belong_together_are_refused(tiny_checkpoint, codes_folder, tmp_path):
    with pytest.raises(MelcodecError, match="no codes there"):
        read_codes([tmp_path], str(tiny_checkpoint))
    save_codes(tmp_path / "a.npz", Codes(np.array([[1, 2]]), fingerprint="f" * 12))
    with pytest.raises(MelcodecError, match="made by checkpoint ffffffffffff"):
        read_codes([tmp_path], str(tiny_checkpoint))
    save_codes(tmp_path / "b/b.npy", Codes(np.array([[1, 32]])))
    with pytest.raises(MelcodecError, match="reach from 1 to 32"):
        read_codes([tmp_path / "b"], str(tiny_checkpoint))
    with pytest.raises(MelcodecError, match="nothing is held out"):
        run(codes_folder, tmp_path / "run", tiny_checkpoint, "data.valid_fraction=0")
