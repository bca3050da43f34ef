"""From folders of codes to a trained prior: read, split, count n-grams, train the network."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from melcodec.config import DataConfig, RunConfig, TrainConfig, flat, to_toml
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.shipped import DEFAULT_CHECKPOINT
from melcodec.metrics.ngram import NAMES
from melcodec.metrics.predictability import score
from melcodec.prior.config import PriorConfig, load_prior_preset, read_prior_config
from melcodec.prior.data import Sequences
from melcodec.prior.models import Prior, save_prior
from melcodec.prior.page import write_prior_page
from melcodec.prior.reading import CodesCorpus, check_space, held_out, read_codes
from melcodec.prior.score import fit_tables
from melcodec.prior.show import Samples
from melcodec.prior.state import PriorState, state_paths
from melcodec.prior.train import Hooks, Lesson, Trainer, is_packed, network_settings
from melcodec.tokens import Tokens
from melcodec.training.engine import start_engine

if TYPE_CHECKING:
    from melcodec.training.engine import Engine

CONFIG = "config.toml"
PAGE_SECONDS = 120.0  # between two drawings of the run's page
# what may change between two stops of a run: nothing that decides what is learned up to there
FREE = {
    f"train.{name}" for name in ("steps", "valid_every", "save_every", "log_every", "samples", "sample_seconds", "sample_every")
}


@dataclass(frozen=True)
class Sources:
    """Where the codes are.

    Args:
        train: stores, folders of codes files, files.
        valid: held-out codes; none: some speakers of ``train`` are held out.
        checkpoint: says what codes in files mean, and makes sound of samples.
    """

    train: Sequence[Path]
    valid: Sequence[Path] = ()
    checkpoint: str = DEFAULT_CHECKPOINT


def train_prior(
    sources: Sources,
    config: PriorConfig | None = None,
    folder: Path | str = "prior",
    device: str = "auto",
    hooks: Hooks | None = None,
) -> PriorState | None:
    """Train a prior in ``folder``; a run found there is continued.

    Returns:
        The state of the network's training; None for kind ngram.

    Raises:
        MelcodecError: no codes, codes of two checkpoints, a folder that holds a run with other settings, a missing package.
    """
    settings, folder, hooks = config or load_prior_preset("small"), Path(folder), hooks or Hooks()
    engine = None if settings.model.kind == "ngram" else start_engine(engine_settings(settings), device)
    if engine is not None and not engine.is_main:
        hooks = Hooks(should_stop=hooks.should_stop)
    first = engine is None or engine.is_main
    train, valid = read_split(sources, settings)
    if first:
        claim_folder(folder, settings)
        hours = [part.seconds / 3600 for part in (train, valid)]
        hooks.say(
            f"{len(train.items)} utterances, {hours[0]:.2f} h to train on; {len(valid.items)}, {hours[1]:.2f} h held out; "
            f"codes of checkpoint {train.space.fingerprint}"
        )
    base = counted(train, valid, settings, hooks)
    if engine is None:
        save_prior(folder, base)
        return None
    return _train_network(settings, folder, engine, hooks, (train, valid, base, sources.checkpoint))


def _train_network(
    settings: PriorConfig, folder: Path, engine: Engine, hooks: Hooks, parts: tuple[CodesCorpus, CodesCorpus, Prior, str]
) -> PriorState:
    train, valid, base, checkpoint = parts
    tokens = Tokens(train.space.sizes, settings.pattern)
    context, packed = network_settings(settings).context, is_packed(settings)
    lesson = Lesson(
        train.space,
        Sequences(train.codes, tokens, context, packed, settings.train.seed),
        Sequences(valid.codes, tokens, context, packed),
        corpus_key(train, valid),
        base.table,
        base.baselines,
        base.figures,
    )
    if state_paths(folder):
        hooks.say("resuming the run in this folder")
    samples = Samples(folder, settings.train, checkpoint, hooks.say) if engine.is_main else None
    drawn = time.monotonic()

    def report(kind: str, step: int, values: dict[str, Any]) -> None:
        nonlocal drawn
        hooks.report(kind, step, values)
        if kind == "valid" and time.monotonic() - drawn > PAGE_SECONDS:
            write_prior_page(folder, settings)
            drawn = time.monotonic()

    show = samples.show if samples else hooks.show
    state = Trainer(settings, lesson, folder, engine, replace(hooks, report=report, show=show)).run()
    if engine.is_main:
        write_prior_page(folder, settings)
    engine.close()
    return state


def read_split(sources: Sources, settings: PriorConfig) -> tuple[CodesCorpus, CodesCorpus]:
    """(train, valid) codes; MelcodecError when nothing is left to train on or to hold out."""
    corpus = read_codes(sources.train, sources.checkpoint)
    if sources.valid:
        valid = read_codes(sources.valid, sources.checkpoint)
        check_space(valid, corpus.space, str(sources.valid[0]))
        return corpus, valid
    train, valid = held_out(corpus, settings.data.valid_fraction, settings.data.split)
    if not valid.items:
        raise MelcodecError(
            "nothing is held out, so that overfitting could not be noticed",
            "--valid FOLDER names other codes, or --set data.valid_fraction=0.05",
        )
    return train, valid


def counted(train: CodesCorpus, valid: CodesCorpus, settings: PriorConfig, hooks: Hooks) -> Prior:
    """The n-grams of ``train`` as a prior, with their bits per held-out code."""
    tables = fit_tables(train, settings.ngram.order, settings.ngram.min_count)
    bits = {"uniform": float(np.mean(np.log2(train.space.sizes)))}
    for table in tables:
        bits[NAMES[table.order]] = round(score(table.surprise, "", valid.codes, 1.0).bits_per_code.mean, 4)
    hooks.say("bits per held-out code: " + ", ".join(f"{name} {value:.3f}" for name, value in bits.items()))
    return Prior(train.space, "flat", tables[-1], None, {"valid_bits": bits}, tables[:-1])


def corpus_key(*parts: CodesCorpus) -> str:
    """16 hex digits over ids and codes: another corpus has another key."""
    digest = hashlib.sha256()
    for part in parts:
        for item in part.items:
            digest.update(f"{item.id}\0{item.codes.shape}".encode())
            digest.update(item.codes.tobytes())
    return digest.hexdigest()[:16]


def engine_settings(settings: PriorConfig) -> RunConfig:
    """What ``training.engine`` needs to know of a run."""
    return RunConfig(data=DataConfig(batch_size=settings.data.batch_size), train=TrainConfig(precision=settings.train.precision))


def claim_folder(folder: Path, settings: PriorConfig) -> None:
    """Write ``config.toml`` into a new run folder, or check that the run found there has the same settings.

    Raises:
        MelcodecError: other settings than those in ``FREE`` differ, each named.
    """
    path = folder / CONFIG
    if state_paths(folder) and path.exists():
        before = flat(read_prior_config(path).model_dump(mode="json"))
        now = flat(settings.model_dump(mode="json"))
        differing = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key] and key not in FREE]
        if differing:
            raise MelcodecError(
                f"{folder}: holds a run with other settings: {', '.join(differing)}", "choose another folder with -o"
            )
    with written_aside(path) as aside:
        aside.write_text(to_toml(settings), encoding="utf-8")
