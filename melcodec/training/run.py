"""From words to a running trainer: find the speech, cache its mels, check the run folder, train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from melcodec.audio.mel import build_frontend
from melcodec.audio.stats import load_mel_norms
from melcodec.config import RunConfig, load_preset, parse, read_toml, to_toml, xtts_mel_norms
from melcodec.devices import find_device
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.training.cache import Progress, cache_mels
from melcodec.training.data import find_split
from melcodec.training.loop import STATE, Corpus, Hooks, Report, Trainer
from melcodec.training.state import TrainState

CONFIG = "config.toml"


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
        MelcodecError: no speech, a run folder made with other settings, an unknown device.
    """
    settings, folder, hear = config or load_preset("base"), Path(folder), listener or Listener()
    target = find_device(device)
    split = find_split([Path(item) for item in data], settings.train.data.valid_fraction)
    claim_folder(folder, settings)
    workers = settings.train.data.num_workers
    train_mels = cache_mels(split.train, settings.model.mel, workers, hear.cached)
    valid_mels = cache_mels(split.valid, settings.model.mel, workers) if split.valid else None
    failures = train_mels.failures | (valid_mels.failures if valid_mels else {})
    for reason in list(failures.values())[:5]:
        hear.say(f"left out: {reason}")
    if len(failures) > 5:
        hear.say(f"... and {len(failures) - 5} more files that could not be read")
    hours = len(train_mels.mels) * settings.model.mel.hop_length / settings.model.mel.sample_rate / 3600
    hear.say(
        f"{len(train_mels.paths)} files, {hours:.2f} h to train on; {len(split.valid)} files to validate; run folder {folder}"
    )
    if (folder / STATE).exists():
        hear.say("going on with the run in this folder")
    norms = load_mel_norms(mel_stats) if mel_stats else xtts_mel_norms()
    frontend = build_frontend(settings.model.mel, norms)
    hooks = Hooks(hear.report, hear.should_stop)
    return Trainer(settings, Corpus(train_mels, valid_mels), frontend, folder, target, hooks).run()


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
        free = {"train.steps", "train.valid_every", "train.save_every", "train.log_every", "train.data.num_workers"}
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
    """Nested settings as ``{"train.data.crop_frames": 128}``."""
    result: dict[str, object] = {}
    for key, value in settings.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result
