"""Audio files: probe, load, save. Everything inside melcodec is mono float32 in [-1, 1].

soundfile (libsndfile) reads and writes; formats it lacks go through PyAV when ``melcodec[av]`` is installed. As in
XTTS, channels are averaged, then the wave is resampled, then clipped. Loudness is content: nothing is normalised.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from melcodec.audio.resample import resample_blocks
from melcodec.errors import MelcodecError
from melcodec.files import written_aside

STDIN = "-"
SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64 .snd".split())
PYAV_SUFFIXES = frozenset(".m4a .aac .mp4 .m4b .webm .wma .mka .mkv .amr .ac3".split())
WRITERS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}
READ_FRAMES = 1 << 18  # per block, at the source rate
WRITE_SAMPLES = 1 << 16  # at once: libsndfile 1.2.2 crashes on a million samples of Vorbis in one call
MIN_RATE, MAX_RATE = 4_000, 192_000  # Hz
MAX_CHANNELS = 8
UNKNOWN_LENGTH = 1 << 62  # libsndfile reports such a number for streamed files
# libsndfile shortens truncated files to what is there; what the header of a wav, aiff or au file said stays in its log
PROMISED_BYTES = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
SLOPPY_BYTES = 1024  # some programs count their own header as sound
STREAMED_BYTES = 0x7FFF_0000  # programs that write to a pipe promise as much as the field holds

Source = str | Path


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


def is_audio(path: Path) -> bool:
    """Whether the suffix is one that melcodec reads, with or without the extra."""
    return path.suffix.lower() in SUFFIXES | PYAV_SUFFIXES


def find_audio(folder: Path) -> list[Path]:
    """Every audio file below ``folder``, sorted by path; hidden files and folders are passed over."""
    found = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_loop(Path(root), name))
        found += [Path(root, name) for name in names if not name.startswith(".") and is_audio(Path(name))]
    return sorted(found)


def _is_loop(root: Path, name: str) -> bool:
    child = root / name
    if not child.is_symlink():
        return False
    target = child.resolve()
    # the second: folders that link to each other
    return root.resolve().is_relative_to(target) or any(parent.resolve() == target for parent in root.parents)


def probe(source: Source) -> AudioInfo:
    """Read the header of ``source``, a path or ``-`` for standard input.

    Raises:
        MelcodecError: no such file, not audio, or a format that needs an extra.
    """
    with _open(source) as file:
        return file.info


@contextmanager
def open_blocks(source: Source, sample_rate: int) -> Iterator[tuple[AudioInfo, Iterator[np.ndarray]]]:
    """Open ``source``: its header, and a stream of mono float32 blocks (n,) in [-1, 1] at ``sample_rate`` Hz.

    Memory stays bounded whatever the file's length. Reading the stream raises what ``read_blocks`` raises.
    """
    with _open(source) as file:
        _check_header(file.info)
        try:
            blocks = resample_blocks(_checked_mono(file), file.info.sample_rate, sample_rate)
        except MelcodecError as error:
            raise MelcodecError(f"{file.info.path}: {error.message}", error.hint) from None
        yield file.info, (np.clip(block, -1.0, 1.0) for block in blocks)


def read_blocks(source: Source, sample_rate: int) -> Iterator[np.ndarray]:
    """Stream ``source`` as mono float32 blocks (n,) in [-1, 1] at ``sample_rate`` Hz; memory stays bounded.

    Raises:
        MelcodecError: unreadable or truncated file, NaN or infinity, unsupported rate or channel count.
    """
    with open_blocks(source, sample_rate) as (_, blocks):
        yield from blocks


def load(source: Source, sample_rate: int) -> np.ndarray:
    """The whole of ``source`` as (S,) float32 at ``sample_rate`` Hz; see ``read_blocks``."""
    blocks = list(read_blocks(source, sample_rate))
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
            with soundfile.SoundFile(aside, "w", sample_rate, 1, subtype, format=container) as file:
                for block in blocks:
                    for start in range(0, len(block), WRITE_SAMPLES):
                        file.write(np.clip(block[start : start + WRITE_SAMPLES], -1.0, 1.0))
        except soundfile.LibsndfileError as error:
            raise MelcodecError(f"{path}: cannot be written ({error.error_string})", "is the disk full?") from None


@dataclass
class _OpenAudio:
    """An open file: its header and its blocks (n, channels) float32."""

    info: AudioInfo
    blocks: Iterator[np.ndarray]


@contextmanager
def _open(source: Source) -> Iterator[_OpenAudio]:
    name = str(source)
    if name == STDIN:
        with _spooled(sys.stdin.buffer, "standard input") as file:
            yield file
        return
    path = Path(source)
    if path.is_fifo():  # what a shell's <(command) is
        with open(path, "rb") as pipe, _spooled(pipe, name) as file:
            yield file
        return
    if not path.exists():
        raise MelcodecError(f"{path}: no such file")
    if path.is_dir():
        raise MelcodecError(f"{path}: is a folder, not a file")
    if path.stat().st_size == 0:
        raise MelcodecError(f"{path}: the file is empty")
    opener = _pyav if path.suffix.lower() in PYAV_SUFFIXES else _soundfile
    with opener(path, name) as file:
        yield file


@contextmanager
def _spooled(stream: IO[bytes], name: str) -> Iterator[_OpenAudio]:
    with tempfile.TemporaryFile() as spool:  # on disk: soundfile must seek, and the input may be hours long
        shutil.copyfileobj(stream, spool)
        if spool.tell() == 0:
            raise MelcodecError(f"{name}: is empty")
        spool.seek(0)
        with _soundfile(spool, name) as file:
            yield file


@contextmanager
def _soundfile(file: Path | IO[bytes], name: str) -> Iterator[_OpenAudio]:
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

        def blocks() -> Iterator[np.ndarray]:
            decoded = 0
            for promised, there in PROMISED_BYTES.findall(handle.extra_info):
                if int(there) + SLOPPY_BYTES < int(promised) < STREAMED_BYTES:
                    raise MelcodecError(f"{name}: truncated: the header promises {promised} bytes of sound, {there} are there")
            try:
                while len(block := handle.read(READ_FRAMES, dtype="float32", always_2d=True)):
                    decoded += len(block)
                    yield block
            except soundfile.LibsndfileError as error:
                raise MelcodecError(f"{name}: damaged after {decoded / info.sample_rate:.2f} s ({error.error_string})") from None
            if length is not None and decoded < length and info.format == "FLAC":  # others only estimate
                raise MelcodecError(f"{name}: truncated: the header promises {length} samples, {decoded} are there")

        yield _OpenAudio(info, blocks())


@contextmanager
def _pyav(path: Path, name: str) -> Iterator[_OpenAudio]:
    try:
        import av
    except ImportError:
        raise MelcodecError(
            f"{name}: reading '{path.suffix}' needs an optional package", "pip install 'melcodec[av]', or convert to wav or flac"
        ) from None
    errors: Any = av.error.FFmpegError
    try:
        container = av.open(str(path))
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

        yield _OpenAudio(info, blocks())


def _check_header(info: AudioInfo) -> None:
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise MelcodecError(f"{info.path}: a sample rate of {info.sample_rate} Hz is outside {MIN_RATE} .. {MAX_RATE}")
    if info.channels > MAX_CHANNELS:
        raise MelcodecError(f"{info.path}: {info.channels} channels; at most {MAX_CHANNELS} are mixed down")


def _checked_mono(file: _OpenAudio) -> Iterator[np.ndarray]:
    """Blocks (n,) float32: the mean over channels, or MelcodecError for what must not become codes."""
    info = file.info
    position = 0
    for block in file.blocks:
        mono = block[:, 0] if info.channels == 1 else block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            first = position + int(np.argmin(np.isfinite(mono)))
            raise MelcodecError(
                f"{info.path}: NaN or infinity at {first / info.sample_rate:.3f} s", "repair or leave out the file"
            )
        position += len(mono)
        yield np.ascontiguousarray(mono)
    if position == 0:
        raise MelcodecError(f"{info.path}: holds no samples")
