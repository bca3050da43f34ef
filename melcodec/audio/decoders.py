"""Open audio files as blocks of samples: soundfile (libsndfile), and PyAV for the formats that it lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from melcodec.errors import MelcodecError

SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64 .snd".split())
PYAV_SUFFIXES = frozenset(".m4a .aac .mp4 .m4b .webm .wma .mka .mkv .amr .ac3".split())
READ_FRAMES = 1 << 18  # per block, at the source rate
UNKNOWN_LENGTH = 1 << 62  # libsndfile reports such a number for streamed files
# libsndfile shortens truncated files to what is there; what the header of a wav, aiff or au file said stays in its log
PROMISED_BYTES = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
SLOPPY_BYTES = 1024  # some programs count their own header as sound
STREAMED_BYTES = 0x7FFF_0000  # programs that write to a pipe promise as much as the field holds
# where libsndfile seeks to the very sample, FLAC among them. It does not for MPEG and Opus, whose decoders remember what
# came before, nor near the end of Vorbis
EXACT_SEEKS = frozenset("PCM_S8 PCM_U8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW".split())


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

    try:
        handle = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, TypeError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise MelcodecError(f"{name}: not readable as audio ({reason})", "is it really an audio file?") from None
    except OSError as error:
        raise MelcodecError(f"{name}: {error.strerror or error}") from None
    with handle:
        length = None if handle.frames >= UNKNOWN_LENGTH else handle.frames
        info = AudioInfo(name, handle.samplerate, handle.channels, length, handle.format, handle.subtype)
        audio = OpenAudio(info, iter(()))
        exact = length is not None and info.subtype in EXACT_SEEKS
        if not exact:
            # soundfile seeks to where it is after every read, which in an mp3 clicks at the next block
            handle.seekable = lambda: False

        def seek(first: int) -> int:
            try:
                return handle.seek(min(first, handle.frames))
            except soundfile.LibsndfileError as error:
                raise MelcodecError(f"{name}: damaged before {first / info.sample_rate:.2f} s ({error.error_string})") from None

        def blocks() -> Iterator[np.ndarray]:
            decoded = audio.position
            for promised, there in PROMISED_BYTES.findall(handle.extra_info):
                if int(there) + SLOPPY_BYTES < int(promised) < STREAMED_BYTES:
                    raise MelcodecError(f"{name}: truncated: the header promises {promised} bytes of sound, {there} are there")
            try:
                while len(block := handle.read(audio.most, dtype="float32", always_2d=True)):
                    decoded += len(block)
                    yield block
            except soundfile.LibsndfileError as error:
                raise MelcodecError(f"{name}: damaged after {decoded / info.sample_rate:.2f} s ({error.error_string})") from None
            if length is not None and decoded < length and info.format == "FLAC":  # others only estimate
                raise MelcodecError(f"{name}: truncated: the header promises {length} samples, {decoded} are there")

        audio.blocks, audio.seek = blocks(), seek if exact else None
        yield audio


@contextmanager
def _pyav(file: Path | IO[bytes], name: str) -> Iterator[OpenAudio]:
    try:
        import av
    except ImportError:
        raise MelcodecError(
            f"{name}: reading '{Path(name).suffix}' needs an optional package",
            "pip install 'melcodec[av]', or convert to wav or flac",
        ) from None
    errors: Any = av.error.FFmpegError
    try:
        container = av.open(str(file) if isinstance(file, Path) else file, "r")
    except errors as error:
        raise MelcodecError(f"{name}: not readable as audio ({error.strerror})", "is it really an audio file?") from None
    with container:
        if not container.streams.audio:
            raise MelcodecError(f"{name}: holds no audio stream")
        stream = container.streams.audio[0]
        info = AudioInfo(name, stream.rate, stream.channels, None, container.format.name, stream.codec.name)

        def blocks() -> Iterator[np.ndarray]:
            planar = av.AudioResampler(format="fltp")
            try:
                for frame in container.decode(stream):
                    for part in planar.resample(frame):
                        yield part.to_ndarray().T
            except errors as error:
                raise MelcodecError(f"{name}: damaged ({error.strerror})") from None

        yield OpenAudio(info, blocks())
