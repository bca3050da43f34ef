"""One output against its original: every figure that can be computed, and the reason for every one that cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.evaluation.catalog import METRICS
from melcodec.metrics.naturalness import DNSMOS, distillmos, dnsmos
from melcodec.metrics.pitch import HOP, RATE, f0_rmse, track_pitch, voicing_error
from melcodec.metrics.speaker import speaker_embedding, speaker_similarity
from melcodec.metrics.spectral import log_mel_l1, log_mel_mse, mel_cepstral_distortion
from melcodec.metrics.speech import estoi, pesq_nb, pesq_wb, stoi
from melcodec.metrics.waves import SILENT, aligned, find_delay, resample, si_sdr
from melcodec.metrics.word_errors import WordErrors, is_english, transcribe, word_errors

DIGITS = 6  # after the point: a score's noise between runs is far below
ITSELF = "the original is what others are compared with"


@dataclass
class Sound:
    """A sound and what is derived from it, once.

    Args:
        wav: (S,) float32; None when there is a mel only.
        rate: Hz.
        mel: natural log-mel (M, T).
        moved: samples of delay that were taken out already.
    """

    wav: np.ndarray | None
    rate: int
    mel: np.ndarray
    moved: int = 0

    @cached_property
    def embedding(self) -> np.ndarray:
        """Speaker embedding."""
        return speaker_embedding(self.wave, self.rate)

    @cached_property
    def pitch(self) -> np.ndarray:
        """Fundamental frequency in Hz (T,), NaN where there is no voice."""
        return track_pitch(self.wave, self.rate)

    @cached_property
    def words(self) -> str:
        """What the recogniser understands."""
        return transcribe(self.wave, self.rate)

    @property
    def wave(self) -> np.ndarray:
        """The wave, or MelcodecError when there is none."""
        if self.wav is None:
            raise MelcodecError("there is no sound")
        return self.wav


@dataclass(frozen=True)
class Spoken:
    """The words and their language; empty where they are not known."""

    text: str = ""
    language: str = ""


@dataclass
class Scores:
    """values: by metric; weights: of the file in a metric's mean, where not 1; absent: reasons; delay: ms, of the output."""

    values: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    delay: float | None = None


class Pair:
    """An original and an output of it, which may be of another rate, late, and of another length.

    Args:
        norms: (M,) of the model's mel domain.
        spoken: the words, for the word error rate.
    """

    def __init__(self, original: Sound, output: Sound, norms: np.ndarray, spoken: Spoken) -> None:
        self.original, self.output, self.norms, self.spoken = original, output, norms, spoken

    @cached_property
    def output_wav(self) -> np.ndarray:
        """The output's wave at the original's rate."""
        return resample(self.output.wave, self.output.rate, self.original.rate)

    @cached_property
    def delay(self) -> int:
        """Samples by which the output is late."""
        return find_delay(self.original.wave, self.output_wav, self.original.rate)

    @cached_property
    def waves(self) -> tuple[np.ndarray, np.ndarray]:
        """Original and output, aligned and of one length."""
        return aligned(self.original.wave, self.output_wav, self.delay)

    @cached_property
    def pitches(self) -> tuple[np.ndarray, np.ndarray]:
        """Fundamental frequency of original and output, aligned to a frame and of one length."""
        return aligned(self.original.pitch, self.output.pitch, round(self.delay / self.original.rate * RATE / HOP))

    @cached_property
    def mels(self) -> tuple[np.ndarray, np.ndarray]:
        """Original and output, natural, of one length."""
        frames = min(self.original.mel.shape[1], self.output.mel.shape[1])
        return self.original.mel[:, :frames], self.output.mel[:, :frames]

    @cached_property
    def normalized(self) -> tuple[np.ndarray, np.ndarray]:
        """``mels`` in the model's domain."""
        return self.mels[0] / self.norms[:, None], self.mels[1] / self.norms[:, None]

    @cached_property
    def panel(self) -> DNSMOS:
        """DNSMOS, which gives two scores in one go."""
        return dnsmos(self.output.wave, self.output.rate)

    @cached_property
    def word_errors(self) -> WordErrors:
        """Word errors; MelcodecError without words, or in a language that the recogniser does not know."""
        if not self.spoken.text:
            raise MelcodecError("no text is known")
        self._check_language()
        counted = word_errors(self.spoken.text, self.output.words)
        if not counted.words:
            raise MelcodecError("its text holds no words")
        return counted

    @cached_property
    def changed_words(self) -> WordErrors:
        """Differences between what is recognised in the output and in the original, which need no text."""
        self._check_language()
        counted = word_errors(self.original.words, self.output.words)
        if not counted.words:
            raise MelcodecError("the recogniser understands no word of the original")
        return counted

    def _check_language(self) -> None:
        if not self.spoken.language:
            raise MelcodecError("its language is not known, and the recogniser knows English only")
        if not is_english(self.spoken.language):
            raise MelcodecError(f"the recogniser knows English only, not '{self.spoken.language}'")


WORD_ERRORS: dict[str, Callable[[Pair], WordErrors]] = {
    "wer": lambda pair: pair.word_errors,
    "dwer": lambda pair: pair.changed_words,
}  # a file weighs in their means as many as it has words


def _error_rate(find: Callable[[Pair], WordErrors], pair: Pair) -> float:
    counted = find(pair)
    return counted.errors / counted.words


SCORERS: dict[str, Callable[[Pair], float]] = {
    "log_mel_l1": lambda pair: log_mel_l1(*pair.mels),
    "log_mel_mse": lambda pair: log_mel_mse(*pair.mels),
    "norm_mel_l1": lambda pair: log_mel_l1(*pair.normalized),
    "norm_mel_mse": lambda pair: log_mel_mse(*pair.normalized),
    "mcd": lambda pair: mel_cepstral_distortion(*pair.mels),
    "si_sdr": lambda pair: si_sdr(*pair.waves),
    "f0_rmse": lambda pair: f0_rmse(*pair.pitches),
    "voicing_error": lambda pair: voicing_error(*pair.pitches),
    "stoi": lambda pair: stoi(*pair.waves, pair.original.rate),
    "estoi": lambda pair: estoi(*pair.waves, pair.original.rate),
    "pesq_wb": lambda pair: pesq_wb(*pair.waves, pair.original.rate),
    "pesq_nb": lambda pair: pesq_nb(*pair.waves, pair.original.rate),
    "dnsmos": lambda pair: pair.panel.overall,
    "dnsmos_p808": lambda pair: pair.panel.p808,
    "distillmos": lambda pair: distillmos(pair.output.wave, pair.output.rate),
    "speaker_similarity": lambda pair: speaker_similarity(pair.original.embedding, pair.output.embedding),
    **{name: partial(_error_rate, find) for name, find in WORD_ERRORS.items()},
}


def score(pair: Pair, names: Iterable[str]) -> Scores:
    """Compute ``names``; what fails is absent with its reason, never a number."""
    scores, itself = Scores(), pair.output is pair.original
    for name in names:
        if itself and not METRICS[name].alone:
            scores.absent[name] = ITSELF
            continue
        try:
            if METRICS[name].audible and pair.original.wav is not None and not pair.original.wav.any():
                raise MelcodecError(SILENT)  # for every system alike, so that means are over the same files
            value = SCORERS[name](pair)
        except MelcodecError as error:
            scores.absent[name] = error.message
        except Exception as error:  # raised by another package for this sound: there is no score
            scores.absent[name] = f"{type(error).__name__}: {error}"
        else:
            if math.isfinite(value):
                scores.values[name] = round(value, DIGITS)
            else:
                scores.absent[name] = f"not a finite number ({value})"
    scores.weights |= {name: find(pair).words for name, find in WORD_ERRORS.items() if name in scores.values}
    if "waves" in vars(pair):
        scores.delay = round(1000 * (pair.delay + pair.output.moved) / pair.original.rate, 3)
    return scores
