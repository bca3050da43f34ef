"""From the words of the command line to a running training of a vocoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from melcodec.config import flat, parse, read_toml, to_toml
from melcodec.devices import find_device
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.manifests.base import Utterance
from melcodec.manifests.build import find_utterances
from melcodec.manifests.split import split
from melcodec.training.loop import Callbacks
from melcodec.training.run import CONFIG, tell_failures
from melcodec.training.state import state_paths
from melcodec.training.vocoder.loop import VocoderTrainer
from melcodec.training.vocoder.settings import VocoderRunConfig
from melcodec.training.vocoder.state import VocoderState
from melcodec.training.vocoder.waves import WaveCache, cache_waves
from melcodec.vocoder.choice import find_vocoder
from melcodec.vocoder.file import VocoderCheckpoint, load_vocoder

# what may change between two stops of a run: nothing that decides what is learned up to there
FREE = {f"train.{name}" for name in ("steps", "valid_every", "valid_clips", "refine", "save_every", "log_every")}


def train_vocoder(
    data: Sequence[Path | str],
    config: VocoderRunConfig | None = None,
    folder: Path | str = "checkpoints/vocoder",
    device: str = "auto",
    calls: Callbacks | None = None,
) -> VocoderState:
    """Train a vocoder on the speech of ``data``, in ``folder``; a run found there is continued.

    Args:
        data: folders, files, globs or lists, as ``manifests.build`` reads them.
        device: auto, cpu, cuda, cuda:1, mps.

    Raises:
        MelcodecError: no speech, a run folder made with other settings, an unknown device, an ``init`` of other sizes or for
            another mel.
        KeyboardInterrupt: ``calls`` asked to stop while waves were decoded; the next call resumes.
    """
    settings, folder, calls = config or VocoderRunConfig(), Path(folder), calls or Callbacks()
    target = find_device(device)
    init = load_init(settings) if settings.train.init else None
    claim_folder(folder, settings)
    training, held_out = split(find_utterances(data), settings.data.valid_fraction, settings.data.split)
    train = _waves(training, settings, calls)
    valid = _waves(held_out, settings, calls) if held_out else train
    tell_failures(train.failures | valid.failures, folder, calls)
    hours = len(train.samples) / settings.mel.sample_rate / 3600
    judged = f"{len(valid.ids)} to validate" if held_out else "none held out: validation uses the training speech"
    calls.say(f"{len(train.ids)} utterances, {hours:.2f} h to train on; {judged}; run folder {folder}")
    if state_paths(folder):
        calls.say("resuming the run in this folder")
    return VocoderTrainer(settings, train, valid, folder, target, calls, init).run()


def _waves(utterances: list[Utterance], settings: VocoderRunConfig, calls: Callbacks) -> WaveCache:
    def update(done: int, total: int) -> None:
        calls.cached(done, total)
        if done < total and calls.should_stop():
            raise KeyboardInterrupt("stopped while decoding speech; the same command resumes with it")

    return cache_waves(utterances, settings.mel.sample_rate, update)


def load_init(settings: VocoderRunConfig) -> VocoderCheckpoint:
    """The vocoder that ``train.init`` names; MelcodecError when its sizes or its mel are others, each named."""
    init = load_vocoder(find_vocoder(settings.train.init))
    theirs = flat({"mel": init.mel.model_dump(), "network": init.network.model_dump()})
    ours = flat({"mel": settings.mel.model_dump(), "network": settings.network.model_dump()})
    differing = [f"{key} {theirs.get(key)} -> {value}" for key, value in ours.items() if theirs.get(key) != value]
    if differing:
        raise MelcodecError(f"{settings.train.init}: a vocoder with other settings: {', '.join(differing)}")
    return init


def claim_folder(folder: Path, settings: VocoderRunConfig) -> None:
    """Write ``config.toml`` into a new run folder, or check that the run found there has the same settings.

    Raises:
        MelcodecError: other settings than those in ``FREE`` differ, each named; or it is the run of another kind of model.
    """
    path = folder / CONFIG
    if state_paths(folder) and path.exists():
        before = flat(parse(VocoderRunConfig, read_toml(path), str(path)).model_dump(mode="json"))
        now = flat(settings.model_dump(mode="json"))
        differing = [f"{key} {before[key]} -> {now[key]}" for key in now if before[key] != now[key] and key not in FREE]
        if differing:
            raise MelcodecError(
                f"{folder}: holds a run with other settings: {', '.join(differing)}", "choose another folder with -o"
            )
    with written_aside(path) as aside:
        aside.write_text(to_toml(settings), encoding="utf-8")
