"""One utterance's sound, and what is wrong with it: every reason for which there may be no codes has a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from melcodec.audio.decoders import AudioInfo
from melcodec.audio.io import Span, open_blocks
from melcodec.audio.sources import named
from melcodec.errors import MelcodecError, from_os
from melcodec.manifests.base import Utterance
from melcodec.store.parquet import OK, REASONS

# a wave that never reaches one step of 16 bits, -90 dB of full scale, is silent
SILENT_PEAK = 2.0**-15


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
class SoundStream:
    """Blocks (n,) of one utterance at the codec's rate; counts samples and finds the peak while it is read."""

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
def opened(utterance: Utterance, sample_rate: int, cut: str = "") -> Iterator[SoundStream]:
    """The sound of ``utterance`` at ``sample_rate`` Hz.

    Args:
        cut: why its sound ends early, which was found out before; what there is of it is then given without complaint.

    Raises:
        MelcodecError: whatever a decoder raises; and while the stream is read, too.
    """
    span = Span(utterance.start, utterance.duration)
    with ExitStack() as stack:
        with _decoding(named(utterance.path, utterance.member)):
            sound = open_blocks(utterance.path, sample_rate, span, utterance.member, keep=bool(cut))
            info, blocks = stack.enter_context(sound)
        yield SoundStream(info, iter(blocks), cut)


def reason(error: MelcodecError) -> str:
    """The status of a row that has no codes because of ``error``."""
    return error.code if error.code in REASONS else "unreadable"


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """A block in which every exception is the fault of the file ``name``, and becomes MelcodecError."""
    try:
        yield
    except (MelcodecError, MemoryError):
        raise
    except OSError as error:  # such as a folder that lists its files but does not let them be opened
        raise from_os(error) from None
    except Exception as error:  # decoders meet damage with whatever they have: ValueError, RuntimeError ...
        message = f"{name}: not decodable ({type(error).__name__}: {error})".replace("\n", " ")
        raise MelcodecError(message, code="unreadable") from None
