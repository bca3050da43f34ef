"""Open audio files with soundfile (libsndfile): wav, flac, mp3, ogg, opus and more."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from melcodec.audio import base, flac
from melcodec.audio.base import AudioInfo, OpenAudio
from melcodec.audio.chunks import SLOPPY_BYTES
from melcodec.audio.layout import AS_IT_IS, CONVERT, Fault, Layout, Part, Piece, View, content_of
from melcodec.audio.survey import survey_mpeg
from melcodec.errors import MelcodecError

FINE_FRAMES = 64  # per read near damage; blocks of FLAC hold a multiple of it, so that nothing good is lost with a bad one
UNKNOWN_LENGTH = 1 << 62  # libsndfile reports such a number for streamed files
# Bytes of a sample. Of these libsndfile seeks to the very one, also in FLAC. It does not in MPEG and Opus, whose decoders
# remember what came before, nor near the end of Vorbis
WIDTHS = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}
NO_REASON = "does not exist or is not a regular file"  # libsndfile says so of an mp3 without a single frame
SLOPPY = {"MP3": 4 * 1152, "OGG": 64}  # samples that may be fewer than a header says
UNNAMED_BYTES = 1 << 13  # headers of old formats are shorter
SURVEYED = frozenset(("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "NIST"))


def for_soundfile(file: Path | IO[bytes]) -> Path | IO[bytes] | bytes:
    """``file`` as soundfile takes it: a path it would encode as strict UTF-8, which names of files need not be."""
    return os.fsencode(file) if isinstance(file, Path) and os.name == "posix" else file


@dataclass
class Opener:
    """A file, and its name in messages."""

    file: Path | IO[bytes]
    name: str

    def open(self, pieces: tuple[Piece, ...], stack: ExitStack) -> Any:
        """The file, or ``pieces`` of it, as a SoundFile that ``stack`` closes."""
        import soundfile

        try:
            return stack.enter_context(soundfile.SoundFile(for_soundfile(self._source(pieces, stack))))
        except (soundfile.LibsndfileError, TypeError, RuntimeError) as error:
            reason = f"{self.name}: not readable as audio{_why(error)}"
            raise MelcodecError(reason, "is it really an audio file?", "unreadable") from None
        except OSError as error:
            raise MelcodecError(f"{self.name}: {error.strerror or error}", code="unreadable") from None

    def _source(self, pieces: tuple[Piece, ...], stack: ExitStack) -> Path | IO[bytes]:
        if pieces:
            content = stack.enter_context(self.file.open("rb")) if isinstance(self.file, Path) else self.file
            return io.BufferedReader(View(content, pieces))
        if not isinstance(self.file, Path):
            self.file.seek(0)
        return self.file

    @property
    def size(self) -> int:
        """Bytes of the file."""
        with content_of(self.file) as content:
            return content.seek(0, 2)


@contextmanager
def opened(file: Path | IO[bytes], name: str, layout: Layout) -> Iterator[OpenAudio]:
    """``file``, open, with its sound where ``layout`` says.

    Raises:
        MelcodecError: libsndfile does not know the format, or misses something at its beginning.
    """
    opener = Opener(file, name)
    with ExitStack() as stack:
        if not layout.parts and layout.fault is not None:
            raise layout.fault.error(name, 0)
        handle = opener.open(layout.parts[0].pieces, stack)
        if handle.format == "MP3" and layout is AS_IT_IS:  # with something before its first frame
            layout = survey_mpeg(file)
            if not layout.parts and layout.fault is not None:
                raise layout.fault.error(name, 0)
            handle = opener.open(layout.parts[0].pieces, stack)
        if handle.format != "MP3" and handle.subtype.startswith("MPEG"):
            raise MelcodecError(f"{name}: not readable as audio (MPEG audio in {handle.format})", code="unreadable")
        parts, fault = _checked(opener, layout, handle)
        if parts[0].pieces != layout.parts[0].pieces:
            handle = opener.open(parts[0].pieces, stack)
        length = sum(part.samples or 0 for part in parts)
        known = all(part.samples is not None for part in parts)
        info = AudioInfo(name, handle.samplerate, handle.channels, length if known else None, handle.format, handle.subtype)
        audio = OpenAudio(info, iter(()), fault=fault.error(name, length / info.sample_rate) if fault else None)
        if known and len(parts) == 1 and info.subtype in WIDTHS:
            audio.seek = partial(_seek, handle, info)
        audio.blocks = _blocks(opener, parts, handle, audio, fault)
        yield audio


def _checked(opener: Opener, layout: Layout, first: Any) -> tuple[list[Part], Fault | None]:
    """The parts with their lengths, and what is wrong after them; ``first`` is the first of them, open."""
    parts: list[Part] = []
    for number, part in enumerate(layout.parts):
        with ExitStack() as stack:
            handle = opener.open(part.pieces, stack) if number else first
            if handle.samplerate != first.samplerate:
                seconds = sum(part.samples or 0 for part in parts) / first.samplerate
                rates = f"from {first.samplerate} to {handle.samplerate} Hz"
                return parts, Fault(f"the sample rate changes after {seconds:.2f} s {rates}", "unread", CONVERT)
            frames = None if handle.frames >= UNKNOWN_LENGTH else handle.frames
            if frames is not None and handle.format == "FLAC" and _is_longer(opener, part, frames):
                parts.append(Part(_without_count(opener, part)))
                continue
            parts.append(replace(part, samples=_length(part, handle, frames)))
            if fault := _unnamed(opener, part, handle):
                return parts, fault
    return parts, layout.fault


def _length(part: Part, handle: Any, frames: int | None) -> int | None:
    """Samples per channel of ``part``, for which libsndfile says ``frames``: of w64 it reads what follows the sound, too."""
    if part.samples is not None or part.sound is None or frames is None or handle.subtype not in WIDTHS:
        return frames if part.samples is None else part.samples
    return min(frames, part.sound // (handle.channels * WIDTHS[handle.subtype]))


def _unnamed(opener: Opener, part: Part, handle: Any) -> Fault | None:
    """What is wrong with a file of uncompressed samples that holds far more bytes than libsndfile will give."""
    if handle.subtype not in WIDTHS or handle.format == "FLAC":
        return None
    given = handle.frames * handle.channels * WIDTHS[handle.subtype]
    there, room = (part.sound, SLOPPY_BYTES) if part.sound is not None else (opener.size, UNNAMED_BYTES)
    if (handle.format in SURVEYED and part.sound is None) or given + room >= there:
        return None
    return Fault(f"the header names {given} bytes of sound, {there} are there", "unread", CONVERT)


def _without_count(opener: Opener, part: Part) -> tuple[Piece, ...]:
    with content_of(opener.file) as content:
        return flac.without_count(content, part)


def _is_longer(opener: Opener, part: Part, frames: int) -> bool:
    """Whether a FLAC file holds more than the ``frames`` samples that its header counts."""
    pieces = _without_count(opener, part)
    with ExitStack() as stack:
        stack.enter_context(content_of(opener.file))  # which another decoder reads, too
        try:
            return int(opener.open(pieces, stack).seek(frames)) == frames
        except (MelcodecError, _error()):
            return False


def _seek(handle: Any, info: AudioInfo, first: int) -> int:
    try:
        return int(handle.seek(min(first, handle.frames)))
    except _error() as error:
        at = first / info.sample_rate
        raise MelcodecError(f"{info.path}: damaged before {at:.2f} s{_why(error)}", code="truncated") from None


def _blocks(opener: Opener, parts: list[Part], handle: Any, audio: OpenAudio, fault: Fault | None) -> Iterator[np.ndarray]:
    """The blocks of all ``parts``, of which ``handle`` is the first; then what is wrong with the file."""
    before, rate = 0, audio.info.sample_rate
    for number, part in enumerate(parts):
        with ExitStack() as stack:
            handle = opener.open(part.pieces, stack) if number else handle
            first = decoded = 0 if number else audio.position
            damage = None
            try:
                for block in _reads(handle, part, audio, first):
                    decoded += len(block)
                    yield block
            except _error() as error:
                damage = _why(error)
            if damage is not None:
                block = _good_part(opener, part, first, decoded, audio.most)
                decoded += len(block)
                yield block
                seconds = (before + decoded) / rate
                raise MelcodecError(f"{audio.info.path}: damaged after {seconds:.2f} s{damage}", code="truncated")
        if part.samples is not None and decoded + SLOPPY.get(audio.info.format, 0) < part.samples and fault is None:
            reason = f"the header promises {part.samples} samples, {decoded} are there"
            raise Fault(reason, "truncated").error(audio.info.path, 0)
        before += decoded
    if fault is not None:
        raise fault.error(audio.info.path, before / rate)


def _reads(handle: Any, part: Part, audio: OpenAudio, decoded: int) -> Iterator[np.ndarray]:
    """Blocks of ``handle``, from sample ``decoded`` on."""
    if audio.seek is None:
        # soundfile seeks to where it is after every read, which in an mp3 clicks at the next block
        handle.seekable = lambda: False
    while True:
        most = audio.most if part.samples is None else min(audio.most, part.samples - decoded)
        if most <= 0 or not len(block := handle.read(most, dtype="float32", always_2d=True)):
            return
        decoded += len(block)
        yield block


def _error() -> type[Exception]:
    import soundfile

    error: type[Exception] = soundfile.LibsndfileError
    return error


def _why(error: Exception) -> str:
    """The reason that libsndfile gives, in brackets."""
    reason = str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
    return "" if NO_REASON in reason else f" ({reason})"


def _good_part(opener: Opener, part: Part, start: int, decoded: int, most: int) -> np.ndarray:
    """What a read of up to ``most`` samples that failed had before the damage, (n, channels).

    A failed read gives nothing, and a handle that has failed does not seek; so this opens the part once more.

    Args:
        start: sample that reading began with.
        decoded: sample that the failed read began with.
    """
    with ExitStack() as stack:
        handle = opener.open(part.pieces, stack)
        handle.seekable = lambda: False  # nor does it seek after a read
        blocks = [np.empty((0, handle.channels), np.float32)]
        position, stop = start, decoded + most
        try:
            if start:
                handle.seek(start)
            while position < stop:
                known = position < decoded
                size = min(base.READ_FRAMES, decoded - position) if known else FINE_FRAMES - position % FINE_FRAMES
                block = handle.read(min(size, stop - position), dtype="float32", always_2d=True)
                if not len(block):
                    break
                if not known:
                    blocks.append(block)
                position += len(block)
        except _error():
            pass  # the damage
    return np.concatenate(blocks)
