"""The loop: it learns, obeys every setting, stops when asked, and a killed run ends as one that was never killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from melcodec.audio.mel import build_frontend
from melcodec.config import RunConfig, load_preset, with_overrides, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import Checkpoint, load_checkpoint
from melcodec.formats.container import read_container
from melcodec.manifests.build import find_utterances
from melcodec.metrics.codes import code_usage
from melcodec.metrics.spectral import log_mel_l1
from melcodec.training.cache import cache_mels
from melcodec.training.engine import start_engine, wants_bfloat16
from melcodec.training.logs import METRICS, USAGE, RunLog
from melcodec.training.loop import BEST, KEPT, LAST, Callbacks, Corpus, Trainer
from melcodec.training.state import KIND, STATES, TrainState, state_paths
from melcodec.training.step import Stepper
from melcodec.vqvae import build_vqvae
from tests import forked

CPU = torch.device("cpu")
SHORT = [
    *("train.steps=6", "train.log_every=2", "train.valid_every=3", "train.save_every=4"),
    *("train.precision=float32", "optimizer.warmup_steps=2", "data.batch_size=4", "data.crop_frames=32", "train.samples=0"),
]
TIMES = ("time", "audio_per_second")  # what a repeated run cannot repeat


@pytest.fixture(scope="module")
def corpus(speech_folder) -> Corpus:
    utterances, mel = find_utterances([speech_folder]), RunConfig().model.mel
    return Corpus(cache_mels(utterances, mel, num_workers=1), cache_mels(utterances[:2], mel, num_workers=1))


def tiny(*assignments: str) -> RunConfig:
    return with_overrides(load_preset("tiny"), [*SHORT, *assignments])


def train(
    folder: Path, corpus: Corpus, *assignments: str, calls: Callbacks | None = None, init: Checkpoint | None = None
) -> TrainState:
    config = tiny(*assignments)
    frontend = build_frontend(config.model.mel, xtts_mel_norms())
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(config, corpus, frontend, folder, start_engine(config, "cpu"), calls or Callbacks(), init).run()


def metrics(folder: Path, kind: str | None = None) -> list[dict]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines if kind in (None, line["kind"])]


def weights(state: TrainState) -> dict[str, torch.Tensor]:
    return state.model.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def baseline(corpus, tmp_path_factory) -> tuple[TrainState, Path]:
    """An undisturbed short run."""
    folder = tmp_path_factory.mktemp("baseline")
    return train(folder, corpus), folder


def test_a_tiny_run_learns_and_keeps_its_codes_alive(corpus, tmp_path):
    state = train(tmp_path, corpus, "train.steps=100", "train.log_every=10", "train.valid_every=50", "data.batch_size=8")
    first, *_, last = metrics(tmp_path, "train")
    assert last["step"] == state.step == 100
    assert last["loss"] < 0.7 * first["loss"]
    assert last["mse"] < 0.7 * first["mse"]
    start, halfway, end = metrics(tmp_path, "valid")
    assert end["log_mel_l1"] < halfway["log_mel_l1"] < start["log_mel_l1"]
    assert end["codes_used"] > 20  # of 64, over 75 codes of validation speech


def test_what_a_run_leaves(baseline):
    state, folder = baseline
    assert state.step == 6
    assert {path.name for path in folder.iterdir()} == {STATES, BEST, LAST, METRICS, USAGE, "tensorboard"}
    lines = metrics(folder)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("valid", 0), ("train", 2), ("valid", 3), ("train", 4), ("train", 6), ("valid", 6),
    ]  # fmt: skip
    assert lines[1].keys() == {"kind", "step", "loss", "mse", "commitment", "perplexity", "grad_norm", "lr"}
    usage = {"codes_used", "codes_dead", "perplexity", "entropy_bits", "revived"}
    assert lines[2].keys() == {"kind", "step", "log_mel_l1"} | usage
    last = load_checkpoint(folder / LAST)
    assert same(last.tensors, weights(state))
    assert last.config == tiny().model
    assert last.mel_norms == pytest.approx(xtts_mel_norms())
    assert last.provenance["steps"] == 6
    assert last.provenance["train"] == tiny().train.model_dump(mode="json")
    assert last.provenance["optimizer"] == tiny().optimizer.model_dump(mode="json")


def test_validation_is_that_of_the_best_checkpoint(baseline, corpus):
    state, folder = baseline
    valid = metrics(folder, "valid")
    assert state.best == min(line["log_mel_l1"] for line in valid)
    model, frontend = load_checkpoint(folder / BEST).build(), build_frontend(tiny().model.mel, xtts_mel_norms())
    errors, counts = [], np.zeros(64, np.int64)
    for start, stop in zip(corpus.valid.starts[:-1], corpus.valid.starts[1:], strict=True):
        mel = torch.tensor(corpus.valid.mels[start:stop].T, dtype=torch.float32)[None]
        with torch.no_grad():
            codes = model.encode(frontend.normalize(mel))
            output = frontend.denormalize(model.decode(codes))[..., : stop - start]
        errors.append(log_mel_l1(mel.numpy(), output.numpy()))
        counts += np.bincount(codes.flatten(), minlength=64)
    best = min(valid, key=lambda line: line["log_mel_l1"])
    assert np.mean(errors) == pytest.approx(best["log_mel_l1"], rel=1e-6)
    usage = code_usage(counts)
    assert (best["codes_used"], best["codes_dead"]) == (usage.used, 64 - usage.used)
    assert (best["perplexity"], best["entropy_bits"]) == pytest.approx((usage.perplexity, usage.entropy_bits))
    with np.load(folder / USAGE) as arrays:
        assert arrays["steps"].tolist() == [0, 3, 6]
        assert np.array_equal(arrays["counts"][[line["step"] for line in valid].index(best["step"])], counts)


def test_the_best_checkpoint_is_not_the_last_one_when_it_gets_worse(corpus, tmp_path):
    # learns, then is thrown off: the rate of a constant schedule is raised between two stops
    train(tmp_path, corpus, "train.steps=30", "train.valid_every=30", "optimizer.lr=3e-3")
    best = (tmp_path / BEST).read_bytes()
    state = train(tmp_path, corpus, "train.steps=33", "train.valid_every=3", "optimizer.lr=3.0")
    _, good, bad = metrics(tmp_path, "valid")
    assert bad["log_mel_l1"] > good["log_mel_l1"] == state.best
    assert (tmp_path / BEST).read_bytes() == best
    assert load_checkpoint(tmp_path / LAST).provenance["steps"] == 33


def test_metrics_are_means_over_their_steps(corpus, tmp_path):
    train(tmp_path / "each", corpus, "train.log_every=1")
    train(tmp_path / "three", corpus, "train.log_every=3")
    each, three = metrics(tmp_path / "each", "train"), metrics(tmp_path / "three", "train")
    assert (len(each), len(three)) == (6, 2)
    for name in ("loss", "mse", "commitment", "perplexity", "grad_norm"):
        assert three[1][name] == pytest.approx(np.mean([line[name] for line in each[3:]]))
    assert three[1]["lr"] == each[5]["lr"]  # that of the last step
    assert each[0]["loss"] == pytest.approx(each[0]["mse"] + 0.25 * each[0]["commitment"])


def test_every_metric_line_is_reported(corpus, tmp_path):
    heard = []
    train(
        tmp_path, corpus, calls=Callbacks(report=lambda kind, step, values: heard.append({"kind": kind, "step": step, **values}))
    )
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert heard == [{name: value for name, value in line.items() if name != "time"} for line in lines]
    assert all(line["audio_per_second"] > 0 for line in heard if line["kind"] == "train")


def test_tensorboard_gets_the_same_scalars(baseline):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    _, folder = baseline
    (events,) = (folder / "tensorboard").iterdir()
    found = {
        (value.tag, event.step): value.tensor.float_val[0]
        for event in EventFileLoader(str(events)).Load()
        for value in event.summary.value
        if value.tensor.float_val
    }
    for line in metrics(folder):
        for name, value in line.items():
            if name not in ("kind", "step"):
                assert found[f"{line['kind']}/{name}", line["step"]] == pytest.approx(value, rel=1e-6)


# Every training setting, and a value that must change the weights of a short run.
CHANGES_WEIGHTS = {
    "train.seed": "1",
    "train.precision": "bfloat16",
    "data.crop_frames": "64",
    "data.batch_size": "6",
    "augment.gain_db": "6.0",
    "augment.time_scale": "0.2",
    "augment.time_flip": "0.5",
    "augment.band_masks": "2",
    "augment.time_masks": "2",
    "codebook.start": "data",
    "codebook.kmeans_iterations": "1",
    "codebook.revive": "none",
    "codebook.revive_below": "0.95",
    "optimizer.kind": "adam",
    "optimizer.lr": "2e-3",
    "optimizer.betas": "[0.5, 0.99]",
    "optimizer.weight_decay": "0.5",
    "optimizer.grad_clip": "0.01",
    "optimizer.warmup_steps": "4",
    "optimizer.schedule": "constant",
    "optimizer.final_lr_fraction": "0.5",
    "augment.band_warp": "0.18",
    "augment.equalize": "0.35",
    "augment.noise": "1.0",
    "objective.l1": "1.0",
    "objective.mse": "0.5",
    "objective.smooth_l1": "1.0",
    "objective.log_mel_l1": "1.0",
    "objective.spectral_norm": "1.0",
    "objective.commitment": "1.0",
    "objective.commitment_spectral_norm": "1.0",
    "objective.adversarial": "1.0",
}
# These are tested by name: the rhythm and the rest below; stripes and speakers in test_data; schedules in test_optimizer; the
# split in manifests; processes and speeds in test_cache.
TESTED_ELSEWHERE = {
    *("train.steps", "train.valid_every", "train.save_every", "train.log_every", "train.accumulate", "train.tune"),
    *("train.init", "train.weight_ema", "train.samples", "train.valid_minutes", "train.wandb"),
    *("data.valid_fraction", "data.split", "data.num_workers", "data.on_device"),
    *("augment.speeds", "augment.band_mask_size", "augment.time_mask_size", "augment.probability", "data.speaker_power"),
    # a gradient codebook, and test_adversary
    *("objective.codebook", "objective.feature_matching", "train.keep_every", "train.compile", "vocoder"),
    *("objective.kl", "objective.entropy"),  # of quantizers that have them
    *(f"objective.discriminator.{name}" for name in ("kind", "channels", "start_step", "lr", "betas")),
    *("optimizer.decay_fraction", "optimizer.step_every", "optimizer.step_factor"),
}


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        group = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        found |= leaves(field.annotation, f"{prefix}{name}.") if group else {prefix + name}
    return found


def test_every_training_setting_has_a_test():
    settings = {key for key in leaves(RunConfig) if not key.startswith("model.") and key != "version"}
    assert settings == set(CHANGES_WEIGHTS) | TESTED_ELSEWHERE


# a codebook much larger than a batch, so that codes die within a few steps
MANY_CODES = ("codebook.revive_below=0.5", "train.steps=4", "train.valid_every=4", "model.quantizer.decay=0.5")


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory) -> dict[str, torch.Tensor]:
    return weights(train(tmp_path_factory.mktemp("plain"), corpus, *MANY_CODES))


def test_the_same_settings_give_the_same_weights(corpus, tmp_path, plain):
    assert same(weights(train(tmp_path, corpus, *MANY_CODES)), plain)


@pytest.mark.parametrize("key", CHANGES_WEIGHTS)
def test_setting_is_not_ignored(corpus, tmp_path, plain, key):
    state = train(tmp_path, corpus, *MANY_CODES, f"{key}={CHANGES_WEIGHTS[key]}")
    assert not same(weights(state), plain)


@pytest.mark.parametrize("steps", [3, 7])
def test_rhythm_of_validating_saving_and_stopping(corpus, tmp_path, steps):
    saved = []

    def look() -> bool:
        if found := state_paths(tmp_path):
            saved.append(read_container(found[0], KIND)[0]["progress"]["step"])
        return False

    rhythm = (f"train.steps={steps}", "train.valid_every=2", "train.save_every=3", "train.log_every=1")
    state = train(tmp_path, corpus, *rhythm, calls=Callbacks(should_stop=look))
    assert state.step == steps
    assert [line["step"] for line in metrics(tmp_path, "valid")] == [0, *range(2, steps, 2), steps]
    assert [line["step"] for line in metrics(tmp_path, "train")] == list(range(1, steps + 1))
    assert saved == [3 * (step // 3) for step in range(3, steps)]
    assert read_container(state_paths(tmp_path)[0], KIND)[0]["progress"]["step"] == steps


def equal_runs(folder: Path, other: Path) -> None:
    """Every byte of the state and the checkpoints, every metric, and the usage over time."""
    for path, its in (
        (folder / BEST, other / BEST),
        (folder / LAST, other / LAST),
        (state_paths(folder)[0], state_paths(other)[0]),
    ):
        assert path.name == its.name
        assert path.read_bytes() == its.read_bytes(), path.name
    assert metrics(folder) == metrics(other)
    with np.load(folder / USAGE) as usage, np.load(other / USAGE) as its_usage:
        assert all(np.array_equal(usage[name], its_usage[name]) for name in ("steps", "counts"))


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_a_run_that_is_stopped_again_and_again_equals_an_undisturbed_one(corpus, tmp_path, baseline, stride):
    _, undisturbed = baseline
    for expected in [*range(stride, 6, stride), 6]:
        steps = iter(range(stride))
        state = train(tmp_path, corpus, calls=Callbacks(should_stop=lambda steps=steps: next(steps, None) is None))
        assert state.step == expected
        assert load_checkpoint(tmp_path / LAST).provenance["steps"] == expected  # usable at every stop
    equal_runs(tmp_path, undisturbed)


def test_a_stop_before_the_first_step_saves_the_start(corpus, tmp_path, baseline):
    assert train(tmp_path, corpus, calls=Callbacks(should_stop=lambda: True)).step == 0
    train(tmp_path, corpus)
    equal_runs(tmp_path, baseline[1])


def test_a_finished_run_stays_as_it_is(corpus, tmp_path):
    train(tmp_path, corpus)
    names = [tmp_path / BEST, tmp_path / LAST, *state_paths(tmp_path)]
    before = [path.read_bytes() for path in names]
    lines = metrics(tmp_path)
    train(tmp_path, corpus)
    assert [path.read_bytes() for path in names] == before
    assert metrics(tmp_path) == lines


RUN = """
import sys
from pathlib import Path
from melcodec.audio.mel import build_frontend
from melcodec.config import load_preset, with_overrides, xtts_mel_norms
from melcodec.manifests.build import find_utterances
from melcodec.training.cache import cache_mels
from melcodec.training.engine import start_engine
from melcodec.training.loop import Corpus, Callbacks, Trainer

speech, folder, *assignments = sys.argv[1:]
config = with_overrides(load_preset("tiny"), assignments)
utterances, mel = find_utterances([speech]), config.model.mel
corpus = Corpus(cache_mels(utterances, mel, num_workers=1), cache_mels(utterances[:2], mel, num_workers=1))
frontend = build_frontend(mel, xtts_mel_norms())
Path(folder).mkdir(exist_ok=True)

def look():
    print(trainer.state.step, flush=True)
    return False

trainer = Trainer(config, corpus, frontend, Path(folder), start_engine(config, "cpu"), Callbacks(should_stop=look))
trainer.run()
"""
LONGER = [
    *SHORT,
    *("train.steps=40", "train.log_every=3", "train.valid_every=7", "train.save_every=5"),
    *("train.accumulate=2", "train.weight_ema=0.9", "augment.gain_db=3", "augment.time_flip=0.5", "optimizer.schedule=wsd"),
]


@pytest.mark.slow
@pytest.mark.parametrize("in_an_interval", [True, False])  # the state of step 5 holds sums, which step 6 logs
def test_a_killed_run_ends_as_one_that_was_never_killed(corpus, speech_folder, tmp_path, in_an_interval):
    victim = 7 if in_an_interval else int(np.random.default_rng().integers(1, 39))  # a new one each time: any step must do
    killed, undisturbed = tmp_path / f"killed at {victim}", tmp_path / "undisturbed"
    command = [sys.executable, "-c", RUN, str(speech_folder), str(killed), *LONGER]
    with forked.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if int(line) == victim:
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL
    assert not (killed / LAST).exists()
    train(killed, corpus, *LONGER)
    train(undisturbed, corpus, *LONGER)
    equal_runs(killed, undisturbed)
    steps = [line["step"] for line in metrics(killed, "train")]
    assert steps == list(range(3, 40, 3))


def test_a_loss_that_is_not_finite_stops_the_run_and_spoils_nothing(corpus, tmp_path):
    train(tmp_path, corpus, "train.steps=4", "train.save_every=2")
    before = state_paths(tmp_path)[0].read_bytes()
    with pytest.raises(MelcodecError, match=r"step \d+: the loss is not finite, on crops of [abc]/[01]") as caught:
        train(tmp_path, corpus, "train.steps=40", "train.save_every=40", "optimizer.lr=1e30")
    assert "learning rate" in caught.value.hint
    assert state_paths(tmp_path)[0].read_bytes() == before


def test_bfloat16_trains_in_float32_weights(corpus, tmp_path):
    state = train(tmp_path, corpus, "train.precision=bfloat16")
    assert {value.dtype for value in weights(state).values()} == {torch.float32}
    assert all(np.isfinite(line["loss"]) for line in metrics(tmp_path, "train"))


def test_precision_by_device():
    for device in (CPU, torch.device("cuda"), torch.device("mps")):
        assert wants_bfloat16("bfloat16", device)
        assert not wants_bfloat16("float32", device)
    assert not wants_bfloat16("auto", torch.device("mps"))
    flags = Path("/proc/cpuinfo")
    if flags.exists():  # Linux on x86 says itself what it computes in hardware
        fast = {"amx_tile", "avx512_bf16"} & set(flags.read_text().split())
        assert wants_bfloat16("auto", CPU) == bool(fast)


def test_the_log_drops_what_lies_past_the_state_and_half_written_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 2}\n{"kind": "valid", "step": 4}\n{"kind": "train", "step": 6}\n{"kind": "tra')
    log = RunLog(tmp_path, from_step=4)
    log.scalars("train", 5, {"loss": 0.5})
    log.close()
    assert metrics(tmp_path) == [
        {"kind": "train", "step": 2},
        {"kind": "valid", "step": 4},
        {"kind": "train", "step": 5, "loss": 0.5},
    ]


def test_parts_of_a_batch_learn_as_the_whole(corpus, tmp_path):
    """Gradient accumulation, short clips with their masks among them, and the codebook too."""
    settings = ("train.steps=10", "data.crop_frames=96", "codebook.revive_below=0.5", "train.log_every=1")
    whole = train(tmp_path / "whole", corpus, *settings)
    parts = train(tmp_path / "parts", corpus, *settings, "train.accumulate=4")
    assert (corpus.train.lengths < 96).any()
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-3, atol=2e-5)
    for line, other in zip(metrics(tmp_path / "whole", "train"), metrics(tmp_path / "parts", "train"), strict=True):
        assert {name: pytest.approx(value, rel=1e-3) for name, value in line.items() if name != "kind"} == {
            name: value for name, value in other.items() if name != "kind"
        }


def start_from(corpus: Corpus, folder: Path) -> Checkpoint:
    train(folder, corpus)
    return load_checkpoint(folder / LAST)


@pytest.mark.parametrize(
    ("tune", "moves"),
    [("full", {"encoder", "codebook", "decoder"}), ("decoder", {"decoder"}), ("frozen-codebook", {"encoder", "decoder"})],
)
def test_tune_says_what_moves(corpus, tmp_path, tune, moves):
    init = start_from(corpus, tmp_path / "init")
    source = (tmp_path / "init" / LAST).read_bytes()
    state = train(tmp_path / "tuned", corpus, f"train.tune={tune}", "train.init=init", init=init)
    moved = {name.partition(".")[0] for name, value in weights(state).items() if not torch.equal(value, init.tensors[name])}
    assert moved == moves
    lines = metrics(tmp_path / "tuned", "valid")
    assert lines[0]["agreement"] == 1.0  # before the first step
    assert (lines[-1]["agreement"] == 1.0) == (tune == "decoder")
    assert (load_checkpoint(tmp_path / "tuned" / LAST).fingerprint == init.fingerprint) == (tune == "decoder")
    assert load_checkpoint(tmp_path / "tuned" / LAST).provenance["init"]["fingerprint"] == init.fingerprint
    assert (tmp_path / "init" / LAST).read_bytes() == source  # the start is never written to


def test_averaged_weights_are_judged_and_kept(corpus, tmp_path):
    state = train(tmp_path, corpus, "train.weight_ema=0.9")
    plain = train(tmp_path / "plain", corpus)
    assert same(weights(state), weights(plain))  # what learns does not change
    kept = load_checkpoint(tmp_path / LAST)
    assert same(kept.tensors, state.judged.state_dict())
    assert not torch.equal(kept.tensors["decoder.0.weight"], weights(state)["decoder.0.weight"])
    assert metrics(tmp_path, "valid")[-1] != metrics(tmp_path / "plain", "valid")[-1]


def test_validation_hears_as_many_minutes_as_it_is_told(corpus, tmp_path):
    train(tmp_path, corpus, "train.valid_minutes=0.02", "train.steps=1")
    train(tmp_path / "all", corpus, "train.steps=1")
    with np.load(tmp_path / USAGE) as some, np.load(tmp_path / "all" / USAGE) as every:
        assert 0 < some["counts"][0].sum() < every["counts"][0].sum() == sum(-(-corpus.valid.lengths // 4))


@pytest.mark.slow
def test_the_stock_start_collapses_and_kmeans_does_not(corpus, tmp_path):
    """What docs/training.md says of XTTS's own start: a random codebook far from the latents uses one code for long."""
    settings = ("train.steps=60", "train.valid_every=60", "data.batch_size=8")
    stock = ("codebook.start=stock", "codebook.revive=none")
    used = {}
    for name, more in {"stock": stock, "two-sided": ("codebook.start=stock", "codebook.revive=two-sided"), "kmeans": ()}.items():
        train(tmp_path / name, corpus, *settings, *more)
        used[name] = metrics(tmp_path / name, "valid")[-1]["codes_used"]
    assert used["stock"] <= 3
    assert used["kmeans"] > 20
    assert used["stock"] <= used["two-sided"] < used["kmeans"]


def test_revived_codes_are_counted_between_validations(corpus, tmp_path):
    train(tmp_path, corpus, "codebook.revive_below=0.9", "model.quantizer.decay=0.5", "train.steps=9")
    counted = [line["revived"] for line in metrics(tmp_path, "valid")]
    assert counted[0] == 0
    assert max(counted) > 0
    train(tmp_path / "none", corpus, "codebook.revive=none", "model.quantizer.decay=0.5", "train.steps=9")
    assert {line["revived"] for line in metrics(tmp_path / "none", "valid")} == {0}


@pytest.mark.slow
def test_samples_show_and_sound_the_same_clips_from_the_start(corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, corpus, "train.samples=2", "train.steps=3")
    names = {path.name for path in (tmp_path / "samples").iterdir()}
    clips = {f"clip{clip}-step-{step:08}{suffix}" for clip in (0, 1) for step in (0, 3) for suffix in (".png", ".wav")}
    assert names == clips | {f"clip{clip}-original.wav" for clip in (0, 1)} | {f"codebook-step-{step:08}.png" for step in (0, 3)}
    board = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0, "audio": 0, "histograms": 0}).Reload()
    tags = board.Tags()
    assert set(tags["images"]) == {"clip0/mel", "clip1/mel", "codebook"}
    assert set(tags["audio"]) == {f"clip{clip}/{what}" for clip in (0, 1) for what in ("original", "reconstruction")}
    assert tags["histograms"] == ["valid/usage"]
    assert [event.step for event in board.Images("clip0/mel")] == [0, 3]
    assert [event.step for event in board.Audio("clip0/reconstruction")] == [0, 3]


WITH_WANDB = """
import sys
from pathlib import Path
from melcodec.config import load_preset, with_overrides
from melcodec.errors import MelcodecError
from melcodec.training.logs import RunLog
from melcodec.training.engine import start_engine

if __name__ == "__main__":
    start_engine(load_preset("tiny"), "cpu")
    try:
        log = RunLog(Path(sys.argv[1]), 0, "offline", {"steps": 3})
        log.scalars("train", 1, {"loss": 0.5})
        log.close()
    except MelcodecError as error:
        print(error.message, error.hint)
"""


def test_wandb_listens_offline_or_is_asked_for(tmp_path):
    done = forked.run([sys.executable, "-c", WITH_WANDB, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120)
    if find_spec("wandb") is None:
        assert "pip install 'melcodec[wandb]'" in done.stdout
    else:
        (run,) = (tmp_path / "wandb").glob("offline-run-*")
        assert any(path.suffix == ".wandb" for path in run.iterdir())


def test_checkpoints_are_kept_every_so_many_steps_or_at_every_epoch(corpus, tmp_path):
    train(tmp_path / "steps", corpus, "train.keep_every=2")
    assert [path.name for path in sorted((tmp_path / "steps" / KEPT).iterdir())] == [
        f"step-0000000{step}.safetensors" for step in (2, 4, 6)
    ]
    assert load_checkpoint(tmp_path / "steps" / KEPT / "step-00000004.safetensors").provenance["steps"] == 4
    epoch = round(len(corpus.train.mels) / (4 * 32))
    assert 1 < epoch <= 6
    train(tmp_path / "epochs", corpus, "train.keep_every=epoch")
    kept = [path.name for path in sorted((tmp_path / "epochs" / KEPT).iterdir())]
    assert kept == [f"step-{step:08}.safetensors" for step in range(epoch, 7, epoch)]


@pytest.mark.parametrize(("weight", "init"), [(0.0, "uniform"), (1.0, "uniform"), (1.0, "normal")])
def test_a_gradient_codebook_learns_by_the_weight_of_its_loss(corpus, tmp_path, weight, init):
    settings = (
        *("model.quantizer.kind=gradient", "model.quantizer.codebook_size=16", f"model.quantizer.init={init}"),
        *("codebook.start=stock", "codebook.revive=none", f"objective.codebook={weight}", "train.steps=3", "train.weight_ema=0"),
        *("optimizer.weight_decay=0", "train.valid_every=3"),
    )
    config = tiny(*settings)
    torch.manual_seed(config.train.seed)
    before = build_vqvae(config.model).quantizer.embed.detach().clone()
    after = weights(train(tmp_path, corpus, *settings))["codebook.embed"]
    assert torch.equal(before, after) == (weight == 0)
    assert (before.abs().max() <= 1 / 16) == (init == "uniform")
    (line,) = metrics(tmp_path, "train")[-1:]
    assert line["codebook"] == pytest.approx(line["commitment"], rel=1e-6)


def test_batches_made_ahead_are_the_same(corpus, tmp_path, baseline):
    config = tiny("train.accumulate=2")
    trainers = []
    for ahead in (False, True):
        folder = tmp_path / str(ahead)
        folder.mkdir()
        frontend = build_frontend(config.model.mel, xtts_mel_norms())
        trainer = Trainer(config, corpus, frontend, folder, start_engine(config, "cpu"), Callbacks())
        trainer.stepper = Stepper(config, trainer.state, trainer.crops, trainer.frontend, trainer.engine, ahead)
        trainers.append(trainer)
        trainer.run()
    assert same(weights(trainers[0].state), weights(trainers[1].state))
    assert metrics(tmp_path / "True") == metrics(tmp_path / "False")
    assert trainers[1].stepper._next[0] == 5  # the last step's batch was made ahead


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the compiler
def test_a_compiled_model_learns_the_same(corpus, tmp_path):
    plain = train(tmp_path / "plain", corpus, "train.steps=2")
    compiled = train(tmp_path / "compiled", corpus, "train.steps=2", "train.compile=true")
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-3, atol=1e-5)
