"""From words to a running trainer: find the speech, cache its mels, check the run folder, train."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from melcodec.audio.mel import build_frontend
from melcodec.audio.stats import checked_norms, load_mel_norms
from melcodec.config import RunConfig, load_preset, parse, read_toml, to_toml, xtts_mel_norms
from melcodec.devices import find_device
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.training.cache import Progress, cache_mels
from melcodec.training.data import find_split
from melcodec.training.loop import STATE, Corpus, Hooks, Report, Trainer
from melcodec.training.state import TrainState

CONFIG, FAILURES = "config.toml", "failures.jsonl"
SPOKEN_FAILURES = 5


@dataclass(frozen=True)
class Listener:
    """Who hears what: talk, metric lines, cache progress; and who may ask to stop."""

    say: Callable[[str], None] = lambda text: None
    report: Report = lambda kind, step, values: None
    cached: Progress = lambda done, total: None
    should_stop: Callable[[], bool] = lambda: False


def train(
    data: Sequence[Path | str],
    config: RunConfig | None = None,
    folder: Path | str = "checkpoints/run",
    device: str = "auto",
    mel_stats: Path | None = None,
    listener: Listener | None = None,
) -> TrainState:
    """Train on the speech under ``data``, in ``folder``; a run found there goes on.

    Args:
        config: model and training settings; None is the ``base`` preset.
        mel_stats: per-band norms from ``melcodec mel-stats``; None takes XTTS's.

    Raises:
        MelcodecError: no speech, a run folder made with other settings, an unknown device, norms of other bands.
        KeyboardInterrupt: the listener asked to stop while mels were computed; nothing half-made is left.

    Mels are computed in processes that import the calling script: call it under ``if __name__ == "__main__":``.
    """
    settings, folder, hear = config or load_preset("base"), Path(folder), listener or Listener()
    target = find_device(device)
    norms = _norms(mel_stats, settings.model.mel.n_mels)
    split = find_split([Path(item) for item in data], settings.data.valid_fraction)
    claim_folder(folder, settings)
    workers = settings.data.num_workers

    def cached(done: int, total: int) -> None:
        hear.cached(done, total)
        if done < total and hear.should_stop():  # a cache that is whole may as well stay
            raise KeyboardInterrupt("stopped while computing mels; the same command computes them anew")

    train_mels = cache_mels(split.train, settings.model.mel, workers, cached)
    valid_mels = cache_mels(split.valid, settings.model.mel, workers, cached) if split.valid else None
    _tell_failures(train_mels.failures | (valid_mels.failures if valid_mels else {}), folder, hear)
    hours = len(train_mels.mels) * settings.model.mel.hop_length / settings.model.mel.sample_rate / 3600
    hear.say(
        f"{len(train_mels.paths)} files, {hours:.2f} h to train on; {len(split.valid)} files to validate; run folder {folder}"
    )
    if (folder / STATE).exists():
        hear.say("going on with the run in this folder")
    frontend = build_frontend(settings.model.mel, norms)
    hooks = Hooks(hear.report, hear.should_stop)
    return Trainer(settings, Corpus(train_mels, valid_mels), frontend, folder, target, hooks).run()


def _norms(mel_stats: Path | None, n_mels: int) -> tuple[float, ...]:
    if mel_stats:
        return load_mel_norms(mel_stats, n_mels)
    try:
        return checked_norms(xtts_mel_norms(), "XTTS", n_mels)
    except MelcodecError as error:
        raise MelcodecError(error.message, "give norms of as many bands with --mel-stats, or keep model.mel.n_mels") from None


def _tell_failures(failures: dict[str, str], folder: Path, hear: Listener) -> None:
    """Name the files that were left out: the first few aloud, all of them in the run folder."""
    for reason in list(failures.values())[:SPOKEN_FAILURES]:
        hear.say(f"left out: {reason}")
    if len(failures) > SPOKEN_FAILURES:
        hear.say(f"... and {len(failures) - SPOKEN_FAILURES} more, all named in {folder / FAILURES}")
    if failures:
        with written_aside(folder / FAILURES) as aside:
            lines = [json.dumps({"path": path, "reason": reason}) + "\n" for path, reason in failures.items()]
            aside.write_text("".join(lines), encoding="utf-8")
    else:
        (folder / FAILURES).unlink(missing_ok=True)  # of an earlier start, mended since


def claim_folder(folder: Path, settings: RunConfig) -> None:
    """Write ``config.toml`` into a new run folder, or check that the run found there has the same settings.

    Only ``train.steps`` and the intervals may change between stops.

    Raises:
        MelcodecError: other settings, each differing key named.
    """
    path = folder / CONFIG
    if (folder / STATE).exists() and path.exists():
        before = flat(parse(RunConfig, read_toml(path), str(path)).model_dump(mode="json"))
        now = flat(settings.model_dump(mode="json"))
        free = {"train.steps", "train.valid_every", "train.save_every", "train.log_every", "data.num_workers"}
        differing = [
            f"{key} {before.get(key)} -> {now.get(key)}" for key in now if before.get(key) != now[key] and key not in free
        ]
        if differing:
            raise MelcodecError(
                f"{folder}: holds a run with other settings: {', '.join(differing)}", "choose another folder with -o"
            )
    with written_aside(path) as aside:
        aside.write_text(to_toml(settings), encoding="utf-8")


def flat(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings as ``{"data.crop_frames": 128}``."""
    result: dict[str, object] = {}
    for key, value in settings.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result
