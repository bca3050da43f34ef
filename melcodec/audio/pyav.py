"""Open audio files with PyAV (ffmpeg): m4a, aac, webm and others that libsndfile does not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from melcodec.audio.base import AudioInfo, OpenAudio
from melcodec.audio.layout import CHOOSE, CONVERT, RESCUE, Fault
from melcodec.errors import MelcodecError

GAP_SECONDS = 0.015  # between the time of a frame and the end of the one before: a lost packet holds 20 ms
SHORT_SECONDS = 0.15  # less may be there than the container says, whose times are rounded


def is_installed() -> bool:
    """Whether the extra ``av`` is there."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def opened(file: Path | IO[bytes], name: str) -> Iterator[OpenAudio]:
    """``file``, open.

    Raises:
        MelcodecError: PyAV is not installed, ffmpeg does not know the format, or there is not exactly one stream of audio.
    """
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
        streams = container.streams.audio
        if len(streams) != 1:
            reason = f"holds {len(streams)} streams of audio" if streams else "holds no audio stream"
            raise Fault(reason, "unread", CHOOSE if streams else None).error(name, 0)
        stream = streams[0]
        info = AudioInfo(name, stream.rate, stream.channels, None, container.format.name, stream.codec.name)
        yield OpenAudio(info, _blocks(container, stream, info))


def _blocks(container: Any, stream: Any, info: AudioInfo) -> Iterator[np.ndarray]:
    """Blocks (n, channels) of every frame, whatever its layout; then what is wrong with the file."""
    import av

    errors: Any = av.error.FFmpegError
    planar, layout, decoded, clock = None, None, 0, _Clock(stream, container)
    try:
        for frame in container.decode(stream):
            if frame.sample_rate != info.sample_rate:
                reason = f"the sample rate changes after {decoded / info.sample_rate:.2f} s"
                rates = f"from {info.sample_rate} to {frame.sample_rate} Hz"
                raise Fault(f"{reason} {rates}", "unread", CONVERT).error(info.path, 0)
            if planar is None or (frame.layout.name, frame.format.name) != layout:
                planar, layout = av.AudioResampler(format="fltp"), (frame.layout.name, frame.format.name)
            if lost := clock.gap(frame):
                raise Fault(f"{lost:.2f} s are missing there", "damaged", RESCUE).error(info.path, decoded / info.sample_rate)
            for part in planar.resample(frame):
                decoded += part.samples
                yield part.to_ndarray().T
    except errors as error:
        at = decoded / info.sample_rate
        raise MelcodecError(f"{info.path}: damaged after {at:.2f} s ({error.strerror})", code="truncated") from None
    seconds = decoded / info.sample_rate
    if (promised := clock.promised) is not None and seconds + SHORT_SECONDS < promised:
        reason = f"the header promises {promised:.2f} s, {seconds:.2f} s are there"
        raise Fault(reason, "truncated").error(info.path, seconds)


class _Clock:
    """What a container says about time: when frames begin, and how long the whole is."""

    def __init__(self, stream: Any, container: Any) -> None:
        self._base = stream.time_base
        self._next: float | None = None  # s, when the next frame should begin
        self.promised = self._length(stream, container)

    @staticmethod
    def _length(stream: Any, container: Any) -> float | None:
        """Seconds of the stream, or None where the container does not say, or only guesses from the bit rate."""
        if stream.duration is not None and container.format.name not in GUESSED:
            return float(stream.duration * stream.time_base)
        if container.duration is not None and len(container.streams) == 1 and container.format.name not in GUESSED:
            return float(container.duration / 1_000_000)
        return None

    def gap(self, frame: Any) -> float:
        """Seconds that are missing before ``frame``; 0 when none are."""
        begins = None if frame.pts is None else float(frame.pts * self._base)
        lost = 0.0 if begins is None or self._next is None else begins - self._next
        self._next = None if begins is None else begins + frame.samples / frame.sample_rate
        return lost if lost > GAP_SECONDS else 0.0


GUESSED = frozenset(("aac", "mp3", "ac3", "eac3", "amr", "loas", "mpegts", "mpeg", "flac"))  # containers without a length


def _for_pyav(file: Path | IO[bytes], stack: ExitStack) -> str | IO[bytes]:
    """``file`` as PyAV takes it: names that are not UTF-8 it does not take."""
    if not isinstance(file, Path):
        file.seek(0)
        return file
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return stack.enter_context(file.open("rb"))
    return str(file)
