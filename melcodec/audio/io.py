"""Audio files: probe, load, save. Everything inside melcodec is mono float32 in [-1, 1].

``sources`` finds the bytes of a file and ``decoders`` opens them. As in XTTS, channels are averaged, then the wave is
resampled, then clipped. Loudness is content: nothing is normalised, and samples that cannot be sound are refused.

A source is a path, ``-`` for standard input, or a URL, which fsspec opens. Of any of them a stretch (``Span``) can be
read, and of a tar archive one ``member``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melcodec.audio import sources
from melcodec.audio.decoders import PYAV_SUFFIXES, SUFFIXES, AudioInfo, OpenAudio, decoded
from melcodec.audio.resample import resample_blocks
from melcodec.audio.sndfile import for_soundfile
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.walk import walk

STDIN = sources.STDIN
Resampler = Callable[[Iterable[np.ndarray], int, int], Iterator[np.ndarray]]  # blocks (n,), from Hz, to Hz
Source = sources.Source  # a path, a URL, ``-`` for standard input, or an open binary file
WRITERS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}
WRITE_SAMPLES = 1 << 16  # at once: libsndfile 1.2.2 crashes on a million samples of Vorbis in one call
MIN_RATE, MAX_RATE = 4_000, 192_000  # Hz
MAX_CHANNELS = 8
LOUDEST = 16.0  # times full scale, +24 dB; up to there loud samples are clipped. Integers written as floats are louder
SLOPPY_SECONDS = 0.05  # lists round their times, and some encoders drop a last frame


@dataclass(frozen=True)
class Span:
    """A stretch of a file, in seconds; ``duration`` None means to the end. Stretches that touch share no sample."""

    start: float = 0.0
    duration: float | None = None

    def samples(self, rate: int) -> tuple[int, int | None]:
        """The first sample and the one after the last, at ``rate`` Hz, each the nearest to its time."""
        return round(self.start * rate), None if self.duration is None else round((self.start + self.duration) * rate)

    def __str__(self) -> str:
        return f"{self.start:.2f} .. {'end' if self.duration is None else f'{self.start + self.duration:.2f} s'}"


WHOLE = Span()


def is_audio(path: Path) -> bool:
    """Whether the suffix is one that melcodec reads, with or without the extra."""
    return path.suffix.lower() in SUFFIXES | PYAV_SUFFIXES


def find_audio(folder: Path) -> list[Path]:
    """Every audio file below ``folder``, sorted by path; see ``walk``.

    Raises:
        MelcodecError: a folder in it cannot be entered.
    """
    return walk(folder, is_audio).checked()


def probe(source: Source) -> AudioInfo:
    """Read the header of ``source``, a path, a URL or ``-`` for standard input.

    Raises:
        MelcodecError: no such file, not audio, or a format that needs an extra; a file that is seen to be truncated or
            damaged, or to hold sound that is not read, without decoding it.
    """
    with _open(source) as file:
        if file.fault is not None:
            raise file.fault
        return file.info


@contextmanager
def open_blocks(
    source: Source,
    sample_rate: int,
    span: Span = WHOLE,
    member: str = "",
    keep: bool = False,
    resample: Resampler = resample_blocks,
) -> Iterator[tuple[AudioInfo, Iterator[np.ndarray]]]:
    """Open ``source``: its header, and a stream of mono float32 blocks (n,) in [-1, 1] at ``sample_rate`` Hz.

    Args:
        span: the stretch to read; what it holds is cut at the file's own rate, before resampling.
        member: name of a file inside the tar archive ``source``.
        keep: end without an error where the file is damaged, or ends too early.
        resample: what changes the rate; ``resample_without_torch`` where torch is not to be imported.

    Memory stays bounded whatever the file's length. Reading the stream raises what ``read_blocks`` raises.
    """
    with _open(source, member) as file:
        yield file.info, _stretch(file, sample_rate, span, keep, resample)


def read_blocks(source: Source, sample_rate: int, span: Span = WHOLE, member: str = "") -> Iterator[np.ndarray]:
    """Stream ``source`` as mono float32 blocks (n,) in [-1, 1] at ``sample_rate`` Hz; see ``open_blocks``.

    Raises:
        MelcodecError: unreadable or truncated file, NaN, infinity or samples beyond +-16, unsupported rate or channel
            count, a stretch that holds no samples or lies past the end, no such member.
    """
    with open_blocks(source, sample_rate, span, member) as (_, blocks):
        yield from blocks


class StretchReader:
    """Reads stretch after stretch as ``read_blocks`` does, and keeps its place in files in which it cannot seek.

    Lossy formats are decoded from the beginning of the file; an hour of mp3 cut into 700 utterances, in order, is so
    decoded once and not 350 times. Close it when done.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._kept: tuple[tuple[Source, str], OpenAudio] | None = None

    def read_blocks(self, source: Source, sample_rate: int, span: Span = WHOLE, member: str = "") -> Iterator[np.ndarray]:
        """See the function ``read_blocks``. Read one stream to its end before the next begins."""
        try:
            file = self._open(source, span, member)
            yield from _stretch(file, sample_rate, span)
        except BaseException:
            self.close()
            raise
        if file.seek is not None:
            self.close()

    def close(self) -> None:
        """Close the file that is open, if one is."""
        self._kept = None
        self._stack.close()

    def _open(self, source: Source, span: Span, member: str) -> OpenAudio:
        if self._kept is not None:
            at, file = self._kept
            if at == (source, member) and file.position <= span.samples(file.info.sample_rate)[0]:
                return file
        self.close()
        file = self._stack.enter_context(_open(source, member))
        self._kept = (source, member), file
        return file


def load(source: Source, sample_rate: int, span: Span = WHOLE, member: str = "") -> np.ndarray:
    """``source``, or a stretch of it, as (S,) float32 at ``sample_rate`` Hz; see ``read_blocks``."""
    blocks = list(read_blocks(source, sample_rate, span, member))
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def save(path: Path, wav: np.ndarray, sample_rate: int, overwrite: bool = True) -> None:
    """Write (S,) float32 to ``path``; see ``save_blocks``."""
    save_blocks(path, [wav], sample_rate, overwrite)


def save_blocks(path: Path, blocks: Iterable[np.ndarray], sample_rate: int, overwrite: bool = True) -> None:
    """Write float32 blocks (n,) to ``path``, clipped to [-1, 1]; 16-bit for wav and flac. The suffix picks the format.

    Raises:
        MelcodecError: a suffix that is not sound, or ``path`` cannot be written.
    """
    import soundfile

    if path.suffix.lower() not in WRITERS:
        raise MelcodecError(f"{path}: cannot write '{path.suffix}' sound", f"use one of {', '.join(WRITERS)}")
    container, subtype = WRITERS[path.suffix.lower()]
    with written_aside(path, overwrite) as aside:
        try:
            with soundfile.SoundFile(for_soundfile(aside), "w", sample_rate, 1, subtype, format=container) as file:
                for block in blocks:
                    for start in range(0, len(block), WRITE_SAMPLES):
                        file.write(np.clip(block[start : start + WRITE_SAMPLES], -1.0, 1.0))
        except soundfile.LibsndfileError as error:
            raise MelcodecError(f"{path}: cannot be written ({error.error_string})", "is the disk full?") from None


@contextmanager
def _open(source: Source, member: str = "") -> Iterator[OpenAudio]:
    with sources.opened(source, member) as file, decoded(file, sources.named(source, member)) as audio:
        yield audio


def _check_header(info: AudioInfo) -> None:
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise MelcodecError(f"{info.path}: a sample rate of {info.sample_rate} Hz is not between {MIN_RATE} and {MAX_RATE} Hz")
    if info.channels > MAX_CHANNELS:
        raise MelcodecError(f"{info.path}: {info.channels} channels; at most {MAX_CHANNELS} are supported")


def _stretch(
    file: OpenAudio, sample_rate: int, span: Span, keep: bool = False, resample: Resampler = resample_blocks
) -> Iterator[np.ndarray]:
    """The stream of ``open_blocks``."""
    _check_header(file.info)
    _check_span(file.info, span)
    try:
        blocks = resample(_checked_mono(file, span, keep), file.info.sample_rate, sample_rate)
    except MelcodecError as error:
        raise error.about(file.info.path) from None
    return (np.clip(block, -1.0, 1.0) for block in blocks)


def _check_span(info: AudioInfo, span: Span) -> None:
    length = 1.0 if span.duration is None else span.duration
    if not (math.isfinite(span.start) and span.start >= 0 and math.isfinite(length)):
        raise MelcodecError(f"{info.path}: {span.start} + {span.duration} s is not a segment of a file")
    first, stop = span.samples(info.sample_rate)
    if stop is not None and stop <= first:
        raise MelcodecError(f"{info.path}: the segment {span} holds no samples", code="too-short")


def _checked_mono(file: OpenAudio, span: Span, keep: bool) -> Iterator[np.ndarray]:
    """Blocks (n,) float32 of a stretch: the mean over channels, or MelcodecError for what must not become codes."""
    info = file.info
    first, stop = span.samples(info.sample_rate)
    if first and file.seek is not None:
        file.position = file.seek(first)
    came = 0
    while (stop is None or file.position < stop) and (block := _next(file, stop, keep)) is not None:
        block = block[max(0, first - (file.position - len(block))) :]
        if not len(block):
            continue
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        if not np.abs(mono).max() <= LOUDEST:  # NaN is not, either
            raise _out_of_range(info, mono, first + came)
        came += len(mono)
        yield np.ascontiguousarray(mono)
    if keep:
        return
    if file.position == 0:
        raise MelcodecError(f"{info.path}: holds no samples", code="too-short")
    if came == 0 or (stop is not None and stop - file.position > SLOPPY_SECONDS * info.sample_rate):
        end = file.position / info.sample_rate
        raise MelcodecError(f"{info.path}: the segment {span} lies past the end at {end:.2f} s", code="truncated")


def _out_of_range(info: AudioInfo, mono: np.ndarray, start: int) -> MelcodecError:
    """What is wrong with the samples ``mono`` (n,), the first of which is number ``start`` of the file."""
    finite = np.isfinite(mono)
    if not finite.all():
        bad = (start + int(np.argmin(finite))) / info.sample_rate
        return MelcodecError(f"{info.path}: NaN or infinity at {bad:.3f} s", "repair or leave out the file", "nan")
    worst = int(np.abs(mono).argmax())
    at = (start + worst) / info.sample_rate
    reason = f"a sample of {mono[worst]:.6g} at {at:.3f} s: full scale is 1, and values above {LOUDEST:g} are refused"
    hint = "if its samples are integers written as floats, divide them by 32768 (16 bits) or 8388608 (24 bits)"
    return MelcodecError(f"{info.path}: {reason}", hint, "unreadable")


def _next(file: OpenAudio, stop: int | None, keep: bool) -> np.ndarray | None:
    try:
        return file.read(stop)
    except MelcodecError:  # all before the damage has been given
        if keep:
            return None
        raise
