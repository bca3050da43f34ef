"""From words to a running trainer: find the speech, cache its mels, check the run folder, train."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from melcodec.audio.mel import build_frontend
from melcodec.audio.stats import checked_norms, load_mel_norms
from melcodec.config import RunConfig, flat, load_preset, parse, read_toml, to_toml, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.checkpoint import Checkpoint, load_checkpoint
from melcodec.formats.shipped import find_checkpoint
from melcodec.manifests.base import Utterance
from melcodec.manifests.build import find_utterances
from melcodec.manifests.split import split
from melcodec.training.cache import MelCache, cache_mels
from melcodec.training.engine import Engine, start_engine
from melcodec.training.loop import Callbacks, Corpus, Trainer
from melcodec.training.page import write_run_page
from melcodec.training.state import TrainState, state_paths
from melcodec.vocoder.build import build_vocoder
from melcodec.walk import FAILURES

CONFIG = "config.toml"
SPOKEN_FAILURES = 5
STALE_CODES = (
    "warning: tuning moves the codes: those made with the starting checkpoint, and GPTs trained on them, will not fit the new "
    "one; --tune decoder keeps them valid"
)
DECAY = "decay"  # of the moving averages of a codebook: the setting of a model that only training uses
FORGOTTEN = 0.05
HEAD_START = 1.0  # seconds
PAGE_SECONDS = 120.0  # between two drawings of a run's page, each of which takes a second or two
# what may change between two stops of a run: nothing that decides what is learned up to there
FREE = {
    *("train.steps", "train.valid_every", "train.save_every", "train.log_every", "train.samples", "train.wandb"),
    *("data.num_workers", "data.on_device", "version"),
}

FREE_GROUPS = ("vocoder.",)


def train(
    data: Sequence[Path | str],
    config: RunConfig | None = None,
    folder: Path | str = "checkpoints/run",
    device: str = "auto",
    mel_stats: Path | None = None,
    callbacks: Callbacks | None = None,
) -> TrainState:
    """Train on the speech of ``data``, in ``folder``; a run found there is resumed.

    Args:
        data: folders, files, globs or lists, as ``manifests.build`` reads them.
        config: model and training settings; None is the ``base`` preset.
        device: auto, cpu, cuda, cuda:1, mps; torchrun gives every process its own.
        mel_stats: per-band norms from ``melcodec mel-stats``; None takes those of ``train.init``, or XTTS's.

    Raises:
        MelcodecError: no speech, a run folder made with other settings, an unknown device, norms of other bands, an
            ``init`` of another architecture.
        KeyboardInterrupt: ``callbacks.should_stop`` asked to stop while mels were computed; the next call resumes.

    Mels are computed in processes that import the calling script: call it under ``if __name__ == "__main__":``.
    """
    settings, folder = config or load_preset("base"), Path(folder)
    check_start(settings)
    engine = start_engine(settings, device)
    calls = callbacks or Callbacks()
    if not engine.is_main:  # one process reports
        calls = Callbacks(should_stop=calls.should_stop)
    init = load_init(settings) if settings.train.init else None
    if init and settings.train.tune != "decoder":
        calls.say(STALE_CODES)
    if init and settings.train.tune == "full":
        tell_decay(settings, calls)
    norms = _norms(mel_stats, init, settings.model.mel.n_mels)
    frontend = build_frontend(settings.model.mel, norms)
    build_vocoder(settings.vocoder, frontend)  # one for another mel is refused before mels are computed
    if engine.is_main:
        claim_folder(folder, settings)
    corpus = _cached(data, settings, calls, engine, folder)
    if engine.is_main and state_paths(folder):
        calls.say("resuming the run in this folder")

    drawn = time.monotonic()

    def report(kind: str, step: int, values: dict[str, object]) -> None:
        nonlocal drawn
        calls.report(kind, step, values)
        if kind == "train" and time.monotonic() - drawn > PAGE_SECONDS:  # after the samples of a validation
            write_run_page(folder, settings)
            drawn = time.monotonic()

    state = Trainer(settings, corpus, frontend, folder, engine, replace(calls, report=report), init).run()
    if engine.is_main:
        write_run_page(folder, settings)
    engine.close()
    return state


def tell_decay(settings: RunConfig, calls: Callbacks) -> None:
    """Say that moving averages move the codebook however small the learning rate is, and how fast."""
    for key, decay in flat(settings.model.model_dump(mode="json")).items():
        if key.rpartition(".")[2] == DECAY:
            steps = math.ceil(math.log(FORGOTTEN) / math.log(decay))
            calls.say(
                f"note: the codebook follows its moving averages at any learning rate: after {steps} steps "
                f"{1 - FORGOTTEN:.0%} of what it holds comes from the new speech. --tune frozen-codebook keeps the codebook; "
                f"--set model.{key}=0.9999 moves it more slowly"
            )


def check_start(settings: RunConfig) -> None:
    """Raise MelcodecError when only a part of a model is to be trained, and no checkpoint gives the other part."""
    if settings.train.tune != "full" and not settings.train.init:
        kept = "encoder and codebook" if settings.train.tune == "decoder" else "codebook"
        raise MelcodecError(
            f"--tune {settings.train.tune} keeps the {kept} of a trained checkpoint, and none is given",
            "name one with --init: a file, a run folder, or melcodec-base",
        )


def check_resume(folder: Path, resume: bool | None) -> None:
    """Raise MelcodecError when ``resume`` asks for a run in ``folder`` that is not there, or forbids one that is."""
    if resume is True and not state_paths(folder):
        raise MelcodecError(f"{folder}: holds no run to resume", "leave out --resume to start a new run")
    if resume is False and state_paths(folder):
        raise MelcodecError(
            f"{folder}: holds a run already", "choose another folder with -o, or leave out --no-resume to resume this run"
        )


def load_init(settings: RunConfig) -> Checkpoint:
    """The checkpoint that ``train.init`` names.

    Raises:
        MelcodecError: its model is another one; each differing setting is named. The decay of its codebook may differ.
    """
    init = load_checkpoint(find_checkpoint(settings.train.init))
    theirs, ours = flat(init.config.model_dump(mode="json")), flat(settings.model.model_dump(mode="json"))
    deciding = [key for key in ours if key.rpartition(".")[2] != DECAY]
    differing = [f"model.{key} {theirs.get(key)} -> {ours[key]}" for key in deciding if theirs.get(key) != ours[key]]
    if differing:
        raise MelcodecError(
            f"{settings.train.init}: a model of another architecture: {', '.join(differing)}",
            "leave --preset and model settings out: --init brings its own",
        )
    return init


def _cached(data: Sequence[Path | str], settings: RunConfig, calls: Callbacks, engine: Engine, folder: Path) -> Corpus:
    """The mels to learn from and to be judged by; the first process computes them, the others wait and open them."""
    training, held_out = split(find_utterances(data, calls.say), settings.data.valid_fraction, settings.data.split)

    def cached(done: int, total: int) -> None:
        calls.cached(done, total)
        if done < total and calls.should_stop():  # a cache that is whole may as well stay
            raise KeyboardInterrupt("stopped while computing mels; the same command resumes with them")

    def mels(utterances: list[Utterance], speeds: tuple[float, ...]) -> MelCache:
        return cache_mels(utterances, settings.model.mel, speeds, settings.data.num_workers, cached, calls.say)

    if not engine.is_local_main:
        time.sleep(HEAD_START)  # so that the process that speaks is the one that computes; the lock keeps the others out
    train_mels = mels(training, settings.augment.speeds)
    valid_mels = mels(held_out, (1.0,)) if held_out else train_mels
    if engine.is_main:
        failures = train_mels.failures | valid_mels.failures
        tell_failures(failures, folder, calls)
        mel = settings.model.mel
        hours = len(train_mels.mels) * mel.hop_length / mel.sample_rate / 3600
        judged = f"{len(valid_mels.ids)} to validate" if held_out else "nothing held out: validation uses the training files"
        calls.say(f"{len(train_mels.ids)} utterances, {hours:.2f} h to train on; {judged}; run folder {folder}")
    speakers = None if settings.data.speaker_power == 1 else _speakers(training, train_mels)
    return Corpus(train_mels, valid_mels, speakers)


def _speakers(utterances: list[Utterance], cache: MelCache) -> list[str]:
    """The speaker of each entry of ``cache``; at other speeds its id ends with ``@speed``."""
    named = {utterance.id: utterance.speaker for utterance in utterances}
    return [named[name] if name in named else named[name.rpartition("@")[0]] for name in cache.ids]


def _norms(mel_stats: Path | None, init: Checkpoint | None, n_mels: int) -> tuple[float, ...]:
    if mel_stats:
        return load_mel_norms(mel_stats, n_mels)
    if init:
        return init.mel_norms
    try:
        return checked_norms(xtts_mel_norms(), "XTTS", n_mels)
    except MelcodecError as error:
        raise MelcodecError(error.message, "give norms of as many bands with --mel-stats, or keep model.mel.n_mels") from None


def tell_failures(failures: dict[str, str], folder: Path, calls: Callbacks) -> None:
    """Name the files that were left out: the first few aloud, all of them in the run folder."""
    for reason in list(failures.values())[:SPOKEN_FAILURES]:
        calls.say(f"left out: {reason}")
    if len(failures) > SPOKEN_FAILURES:
        calls.say(f"... and {len(failures) - SPOKEN_FAILURES} more, all named in {folder / FAILURES}")
    if failures:
        with written_aside(folder / FAILURES) as aside:
            lines = [json.dumps({"id": name, "reason": reason}) + "\n" for name, reason in failures.items()]
            aside.write_text("".join(lines), encoding="utf-8")
    else:
        (folder / FAILURES).unlink(missing_ok=True)  # of an earlier start, mended since


def claim_folder(folder: Path, settings: RunConfig) -> None:
    """Write ``config.toml`` into a new run folder, or check that the run found there has the same settings.

    Raises:
        MelcodecError: other settings than those in ``FREE`` differ, each named.
    """
    path = folder / CONFIG
    if state_paths(folder) and path.exists():
        before = flat(parse(RunConfig, read_toml(path), str(path)).model_dump(mode="json"))
        now = flat(settings.model_dump(mode="json"))
        deciding = [key for key in now if key not in FREE and not key.startswith(FREE_GROUPS)]
        differing = [f"{key} {before.get(key)} -> {now[key]}" for key in deciding if before.get(key) != now[key]]
        if differing:
            raise MelcodecError(
                f"{folder}: holds a run with other settings: {', '.join(differing)}", "choose another folder with -o"
            )
    with written_aside(path) as aside:
        aside.write_text(to_toml(settings), encoding="utf-8")
