"""One utterance's sound, and what is wrong with it: every reason for which there may be no codes has a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melcodec.audio.decoders import PYAV_SUFFIXES, AudioInfo
from melcodec.audio.io import Span, open_blocks
from melcodec.audio.resample import resample_blocks
from melcodec.errors import MelcodecError, from_os
from melcodec.formats.store import OK
from melcodec.manifests.base import Utterance

# a wave that never reaches one step of 16 bits, -90 dB of full scale, is silent
SILENT_PEAK = 2.0**-15
KEPT_FRAMES = 4096  # per read of a truncated file: the read that meets the damage is lost
# What audio.io says, and what it is called here. The first that fits; anything else is unreadable.
REASONS = (
    ("NaN or infinity", "nan"),
    ("holds no samples", "too-short"),
    ("damaged after", "truncated"),
    (": truncated:", "truncated"),
    ("lies past the end", "truncated"),
)


@dataclass(frozen=True)
class Rules:
    """What changes results: the ``settings`` of a run.

    Args:
        on_truncated: ``keep`` the codes of what is there, or ``drop`` them.
        min_seconds: sound that is shorter is too short; so is sound without a whole half window (513 samples).
    """

    on_truncated: str = "drop"
    min_seconds: float = 0.0


@dataclass
class Tape:
    """A stream of blocks (n,) at the codec's rate that keeps count while it is read."""

    info: AudioInfo
    blocks: Iterator[np.ndarray]
    cut: str = ""  # why the sound ends early, when what is there is kept
    samples: int = 0
    peak: float = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            with _decoding(self.info.path):
                block = next(self.blocks, None)
            if block is None:
                return
            self.samples += len(block)
            self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
            yield block

    def verdict(self, least: int, rate: int) -> tuple[str, str]:
        """Status and error, once the stream has been read; ``least`` samples are enough."""
        if self.samples < least:
            return "too-short", f"{self.info.path}: {self.samples} samples at {rate} Hz, fewer than {least}"
        if self.peak < SILENT_PEAK:
            return "silent", f"{self.info.path}: silent: no sample reaches {SILENT_PEAK:.1e} of full scale"
        return ("truncated", self.cut) if self.cut else (OK, "")


@contextmanager
def opened(utterance: Utterance, sample_rate: int, cut: str = "") -> Iterator[Tape]:
    """The sound of ``utterance`` at ``sample_rate`` Hz.

    Args:
        cut: why its sound ends early, which was found out before; what there is of it is then given without complaint.

    Raises:
        MelcodecError: whatever a decoder raises; and while the tape is read, too.
    """
    span = Span(utterance.start, utterance.duration)
    if cut:
        sound = _kept(utterance, span, sample_rate)
    else:
        sound = open_blocks(utterance.path, sample_rate, span=span, member=utterance.member)
    with ExitStack() as stack:
        with _decoding(utterance.path):
            info, blocks = stack.enter_context(sound)
        yield Tape(info, iter(blocks), cut)


def reason(error: MelcodecError) -> str:
    """The status that stands for ``error``."""
    return next((status for words, status in REASONS if words in error.message), "unreadable")


def can_keep(utterance: Utterance) -> bool:
    """Whether what is left of ``utterance`` can be had when its file is truncated: plain files that libsndfile reads."""
    plain = not utterance.member and "://" not in utterance.path
    return plain and Path(utterance.path).suffix.lower() not in PYAV_SUFFIXES


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """A block in which every exception is the file's fault, and becomes MelcodecError."""
    try:
        yield
    except (MelcodecError, MemoryError):
        raise
    except OSError as error:  # such as a folder that lists its files but does not let them be opened
        raise from_os(error) from None
    except Exception as error:  # decoders meet damage with whatever they have: ValueError, RuntimeError ...
        raise MelcodecError(f"{name}: not decodable ({type(error).__name__}: {error})".replace("\n", " ")) from None


@contextmanager
def _kept(utterance: Utterance, span: Span, sample_rate: int) -> Iterator[tuple[AudioInfo, Iterator[np.ndarray]]]:
    """What ``open_blocks`` gives, up to where the file ends or is damaged."""
    import soundfile

    with soundfile.SoundFile(utterance.path) as handle:
        info = AudioInfo(utterance.path, handle.samplerate, handle.channels, None, handle.format, handle.subtype)
        mono = _mono_until_damage(handle, *span.samples(info.sample_rate))
        blocks = resample_blocks(_finite(mono, info), info.sample_rate, sample_rate)
        yield info, (np.clip(block, -1.0, 1.0) for block in blocks)


def _mono_until_damage(handle: Any, first: int, stop: int | None) -> Iterator[np.ndarray]:
    import soundfile

    position = 0
    while stop is None or position < stop:
        try:
            block = handle.read(KEPT_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            return
        if not len(block):
            return
        inside = block[max(0, first - position) : None if stop is None else stop - position]
        position += len(block)
        if len(inside):
            yield inside.mean(axis=1, dtype=np.float32)


def _finite(blocks: Iterable[np.ndarray], info: AudioInfo) -> Iterator[np.ndarray]:
    for block in blocks:
        if not np.isfinite(block).all():
            raise MelcodecError(f"{info.path}: NaN or infinity", "repair or leave out the file")
        yield block
