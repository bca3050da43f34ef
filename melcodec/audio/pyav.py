"""Open audio files with PyAV (ffmpeg): m4a, aac, webm and others that libsndfile does not read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from melcodec.audio.base import AudioInfo, OpenAudio
from melcodec.audio.layout import CHOOSE, CONVERT, RESCUE, Fault, content_of
from melcodec.errors import MelcodecError

GAP_SECONDS = 0.015  # between the time of a frame and the end of the one before: a lost packet holds 20 ms
# Containers whose losses are noticed; the second group does not say how long it is
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
CONTAINERS = frozenset((MP4, "matroska,webm", "asf", "wav", "w64", "aiff", "caf", "ogg"))
GUESSED = frozenset(("aac", "ac3", "eac3", "amr"))
DURATION = re.compile(r"\d+:\d\d:\d\d(\.\d+)?")
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
        if container.format.name not in CONTAINERS | GUESSED:
            raise Fault(f"{container.format.long_name} is not read", "unread", CONVERT).error(name, 0)
        streams = container.streams.audio
        if len(streams) != 1:
            reason = f"holds {len(streams)} streams of audio" if streams else "holds no audio stream"
            raise Fault(reason, "unread", CHOOSE if streams else None).error(name, 0)
        if container.format.name == MP4 and _movies(file) > 1:
            raise Fault("another file follows the first one", "unread", "separate them first").error(name, 0)
        stream = streams[0]
        info = AudioInfo(name, stream.rate, stream.channels, None, container.format.name, stream.codec.name)
        yield OpenAudio(info, _blocks(container, stream, info))


def _blocks(container: Any, stream: Any, info: AudioInfo) -> Iterator[np.ndarray]:
    """Blocks (n, channels) of every frame, whatever its layout; then what is wrong with the file."""
    import av

    planar, layout, decoded, clock = None, None, 0, _Clock(stream, container)
    frames = _frames(container, stream)
    while True:
        seconds = decoded / info.sample_rate
        try:
            frame = next(frames, None)
        except _DamagedError as damage:
            raise MelcodecError(f"{info.path}: damaged after {seconds:.2f} s ({damage})", code="truncated") from None
        if frame is None:
            break
        if frame.sample_rate != info.sample_rate:
            rates = f"from {info.sample_rate} to {frame.sample_rate} Hz"
            raise Fault(f"the sample rate changes after {seconds:.2f} s {rates}", "unread", CONVERT).error(info.path, 0)
        if lost := clock.gap(frame):
            raise Fault(f"{lost:.2f} s are missing there", "damaged", RESCUE).error(info.path, seconds)
        if planar is None or (frame.layout.name, frame.format.name) != layout:
            planar, layout = av.AudioResampler(format="fltp"), (frame.layout.name, frame.format.name)
        for part in planar.resample(frame):
            decoded += part.samples
            yield part.to_ndarray().T
    if clock.promised is not None and seconds + SHORT_SECONDS < clock.promised:
        reason = f"the header promises {clock.promised:.2f} s, {seconds:.2f} s are there"
        raise Fault(reason, "truncated").error(info.path, seconds)


class _DamagedError(Exception):
    """What ffmpeg says of a packet that it cannot read or decode as it should."""


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Every decoded frame up to the first error; ffmpeg alone continues after most errors and only logs them."""
    import av
    import av.logging as log

    errors: Any = av.error.FFmpegError
    packets = container.demux(stream)
    while True:
        level = log.get_level()
        log.set_level(log.ERROR)
        log.set_skip_repeated(False)
        try:
            with log.Capture() as said:
                packet = next(packets, None)
                frames = packet.decode() if packet is not None else []
        except errors as error:
            raise _DamagedError(error.strerror) from None
        finally:
            log.set_level(level)
        if packet is None:
            return
        own = [text.strip() for _, source, text in said if source in (container.format.name, stream.codec.name)]
        if own or packet.is_corrupt:
            raise _DamagedError(own[0] if own else "a packet is incomplete")
        yield from frames


def _movies(file: Path | IO[bytes]) -> int:
    """How many boxes called moov an mp4 file has: ffmpeg reads the sound of the first alone."""
    count = at = 0
    with content_of(file) as content:
        end = content.seek(0, 2)
        while at + 8 <= end:
            content.seek(at)
            header = content.read(16)
            size = int.from_bytes(header[:4], "big")
            count += header[4:8] == b"moov"
            size = int.from_bytes(header[8:16], "big") if size == 1 else size
            if size < 8:
                break  # 0: to the end of the file
            at += size
    return count


class _Clock:
    """What a container says about time: when frames begin, and how long the whole is."""

    def __init__(self, stream: Any, container: Any) -> None:
        self._base = stream.time_base
        self._next: float | None = None  # s, when the next frame should begin
        self.promised = self._length(stream, container)

    @staticmethod
    def _length(stream: Any, container: Any) -> float | None:
        """Seconds of the stream, or None where the container does not say, or only guesses from the bit rate."""
        if container.format.name in GUESSED:
            return None
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if DURATION.fullmatch(tag := stream.metadata.get("DURATION", "")):  # what matroska says of each stream
            hours, minutes, seconds = tag.split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        alone = container.duration is not None and len(container.streams) == 1
        return float(container.duration / 1_000_000) if alone else None

    def gap(self, frame: Any) -> float:
        """Seconds that are missing before ``frame``; 0 when none are."""
        begins = None if frame.pts is None else float(frame.pts * self._base)
        lost = 0.0 if begins is None or self._next is None else begins - self._next
        self._next = None if begins is None else begins + frame.samples / frame.sample_rate
        return lost if lost > GAP_SECONDS else 0.0


def _for_pyav(file: Path | IO[bytes], stack: ExitStack) -> str | IO[bytes]:
    """``file`` in a form that PyAV opens: not as a name, unless that is UTF-8."""
    if not isinstance(file, Path):
        file.seek(0)
        return file
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return stack.enter_context(file.open("rb"))
    return str(file)
