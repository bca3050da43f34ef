"""What a prior sounds like while it trains: a few samples, drawn with the same seeds every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from melcodec.errors import MelcodecError
from melcodec.prior.config import PriorTrainConfig
from melcodec.prior.models import Prior
from melcodec.prior.sample import Sampling, sample

FOLDER = "samples"
SAMPLING = Sampling(temperature=0.9, top_p=0.95)


class Samples:
    """Sounds in ``samples/`` of the run's folder.

    Args:
        folder: of the run.
        settings: how many and how long.
        checkpoint: makes sound of codes; one of another code space makes none, which is said once.
        say: for messages.
    """

    def __init__(self, folder: Path, settings: PriorTrainConfig, checkpoint: str, say: Callable[[str], None]) -> None:
        self.folder, self.settings, self.checkpoint, self.say, self.refused = folder / FOLDER, settings, checkpoint, say, False

    def show(self, prior: Prior, step: int) -> None:
        """Draw and write the samples of ``step``."""
        if not self.settings.samples or self.refused:
            return
        from melcodec.audio.io import save
        from melcodec.codec import Codec

        try:
            codec = Codec.from_pretrained(self.checkpoint, "cpu")
            if codec.fingerprint != prior.space.fingerprint:
                raise MelcodecError(f"{self.checkpoint} is not the checkpoint of these codes")
        except MelcodecError as error:
            self.say(f"no samples are made: {error.message}; --checkpoint names the checkpoint of the codes")
            self.refused = True
            return
        num_codes = max(1, round(self.settings.sample_seconds * prior.space.code_rate))
        drawn = sample(prior, num_codes, [None] * self.settings.samples, SAMPLING)
        for index, codes in enumerate(drawn):
            save(sample_path(self.folder.parent, index, step), codec.decode(codes)[0].cpu().numpy(), codec.sample_rate)


def sample_path(folder: Path, index: int, step: int) -> Path:
    """Where sample ``index`` of ``step`` lies in the run's ``folder``."""
    return folder / FOLDER / f"sample{index}-step-{step:08}.wav"
