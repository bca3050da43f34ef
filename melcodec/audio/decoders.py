"""Open audio files as blocks of samples: soundfile (libsndfile), and PyAV for the formats that it lacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from melcodec.audio.truncation import shortfall
from melcodec.errors import MelcodecError

SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64 .snd".split())
PYAV_SUFFIXES = frozenset(".m4a .aac .mp4 .m4b .webm .wma .mka .mkv .amr .ac3".split())
READ_FRAMES = 1 << 18  # per block, at the source rate
FINE_FRAMES = 64  # per read near damage; blocks of FLAC hold a multiple of it, so that nothing good is lost with a bad one
UNKNOWN_LENGTH = 1 << 62  # libsndfile reports such a number for streamed files
# where libsndfile seeks to the very sample, FLAC among them. It does not for MPEG and Opus, whose decoders remember what
# came before, nor near the end of Vorbis
EXACT_SEEKS = frozenset("PCM_S8 PCM_U8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW".split())
NO_REASON = "does not exist or is not a regular file"  # libsndfile says so of an mp3 without a single frame


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says. ``num_samples`` is per channel at ``sample_rate`` (Hz), None when unknown."""

    path: str
    sample_rate: int
    channels: int
    num_samples: int | None
    format: str
    subtype: str

    @property
    def seconds(self) -> float | None:
        """Duration."""
        return None if self.num_samples is None else self.num_samples / self.sample_rate


@dataclass
class OpenAudio:
    """An open file: its header, and its blocks (n, channels) float32 from ``position`` on.

    After the last good block ``blocks`` raises MelcodecError when the file is damaged there, or ends too early.

    ``seek`` moves to a sample exactly; it is None where that is not possible, and what lies before is decoded and dropped.
    """

    info: AudioInfo
    blocks: Iterator[np.ndarray]
    seek: Callable[[int], int] | None = None
    position: int = 0
    most: int = READ_FRAMES  # that the next block should hold
    rest: np.ndarray | None = None  # of a block that a stretch ended in

    def read(self, stop: int | None) -> np.ndarray | None:
        """The next block, cut at sample ``stop``; None at the end of the file."""
        self.most = READ_FRAMES if stop is None else min(READ_FRAMES, stop - self.position)
        block = next(self.blocks, None) if self.rest is None else self.rest
        self.rest = None
        if block is None:
            return None
        if stop is not None and len(block) > stop - self.position:
            block, self.rest = np.split(block, [stop - self.position])
        self.position += len(block)
        return block


def decoded(file: Path | IO[bytes], name: str) -> AbstractContextManager[OpenAudio]:
    """``file``, open; ``name`` says its format by its suffix, and is what messages call it."""
    suffix = Path(name.partition("?")[0]).suffix.lower()  # a URL may ask something
    return (_pyav if suffix in PYAV_SUFFIXES else _soundfile)(file, name)


@contextmanager
def _soundfile(file: Path | IO[bytes], name: str) -> Iterator[OpenAudio]:
    import soundfile

    with _handle(file, name) as handle:
        length = None if handle.frames >= UNKNOWN_LENGTH else handle.frames
        info = AudioInfo(name, handle.samplerate, handle.channels, length, handle.format, handle.subtype)
        audio = OpenAudio(info, iter(()))
        exact = length is not None and info.subtype in EXACT_SEEKS
        if not exact:
            # soundfile seeks to where it is after every read, which in an mp3 clicks at the next block
            handle.seekable = lambda: False

        def seek(first: int) -> int:
            try:
                return int(handle.seek(min(first, handle.frames)))
            except soundfile.LibsndfileError as error:
                at = first / info.sample_rate
                raise MelcodecError(f"{name}: damaged before {at:.2f} s{_why(error)}", code="truncated") from None

        def blocks() -> Iterator[np.ndarray]:
            start = decoded = audio.position
            damage = None
            try:
                while len(block := handle.read(audio.most, dtype="float32", always_2d=True)):
                    decoded += len(block)
                    yield block
            except soundfile.LibsndfileError as error:
                damage = _why(error)
            if damage is not None:
                block = _good_part(file, name, start, decoded, audio.most)
                decoded += len(block)
                yield block
                raise MelcodecError(f"{name}: damaged after {decoded / info.sample_rate:.2f} s{damage}", code="truncated")
            if missing := shortfall(file, info.format, length, decoded, handle.extra_info):
                raise MelcodecError(f"{name}: truncated: {missing}", code="truncated")

        audio.blocks, audio.seek = blocks(), seek if exact else None
        yield audio


def for_soundfile(file: Path | IO[bytes]) -> Path | IO[bytes] | bytes:
    """``file`` as soundfile takes it: a path it would encode as strict UTF-8, which names of files need not be."""
    return os.fsencode(file) if isinstance(file, Path) and os.name == "posix" else file


def _handle(file: Path | IO[bytes], name: str) -> Any:
    """``file`` as a SoundFile."""
    import soundfile

    try:
        return soundfile.SoundFile(for_soundfile(file))
    except (soundfile.LibsndfileError, TypeError, RuntimeError) as error:
        raise MelcodecError(f"{name}: not readable as audio{_why(error)}", "is it really an audio file?", "unreadable") from None
    except OSError as error:
        raise MelcodecError(f"{name}: {error.strerror or error}", code="unreadable") from None


def _why(error: Exception) -> str:
    """The reason that libsndfile gives, in brackets."""
    reason = str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
    return "" if NO_REASON in reason else f" ({reason})"


def _good_part(file: Path | IO[bytes], name: str, start: int, decoded: int, most: int) -> np.ndarray:
    """What a read of up to ``most`` samples that failed had before the damage, (n, channels).

    A failed read gives nothing, and a handle that has failed does not seek; so this opens ``file`` once more.

    Args:
        start: sample that reading began with.
        decoded: sample that the failed read began with.
    """
    import soundfile

    if not isinstance(file, Path):
        file.seek(0)
    with _handle(file, name) as handle:
        handle.seekable = lambda: False  # nor does it seek after a read
        parts = [np.empty((0, handle.channels), np.float32)]
        position, stop = start, decoded + most
        try:
            if start:
                handle.seek(start)
            while position < stop:
                known = position < decoded
                size = min(READ_FRAMES, decoded - position) if known else FINE_FRAMES - position % FINE_FRAMES
                part = handle.read(min(size, stop - position), dtype="float32", always_2d=True)
                if not len(part):
                    break
                if not known:
                    parts.append(part)
                position += len(part)
        except soundfile.LibsndfileError:
            pass  # the damage
    return np.concatenate(parts)


@contextmanager
def _pyav(file: Path | IO[bytes], name: str) -> Iterator[OpenAudio]:
    try:
        import av
    except ImportError:
        raise MelcodecError(
            f"{name}: reading '{Path(name).suffix}' needs an optional package",
            "pip install 'melcodec[av]', or convert to wav or flac",
            "needs-package",
        ) from None
    errors: Any = av.error.FFmpegError
    with ExitStack() as stack:
        try:
            container = stack.enter_context(av.open(_for_pyav(file, stack), "r"))
        except errors as error:
            reason = f"{name}: not readable as audio ({error.strerror})"
            raise MelcodecError(reason, "is it really an audio file?", "unreadable") from None
        if not container.streams.audio:
            raise MelcodecError(f"{name}: holds no audio stream", code="unreadable")
        stream = container.streams.audio[0]
        info = AudioInfo(name, stream.rate, stream.channels, None, container.format.name, stream.codec.name)

        def blocks() -> Iterator[np.ndarray]:
            planar, decoded = av.AudioResampler(format="fltp"), 0
            try:
                for frame in container.decode(stream):
                    for part in planar.resample(frame):
                        decoded += part.samples
                        yield part.to_ndarray().T
            except errors as error:
                at = decoded / info.sample_rate
                raise MelcodecError(f"{name}: damaged after {at:.2f} s ({error.strerror})", code="truncated") from None

        yield OpenAudio(info, blocks())


def _for_pyav(file: Path | IO[bytes], stack: ExitStack) -> str | IO[bytes]:
    """``file`` as PyAV takes it: names that are not UTF-8 it does not take."""
    if not isinstance(file, Path):
        return file
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return stack.enter_context(file.open("rb"))
    return str(file)
