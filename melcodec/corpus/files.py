"""A list of files through the codec: read ahead in threads, encode like lengths together, never stop at a bad one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melcodec.audio.io import load, probe
from melcodec.codec import Codec
from melcodec.errors import MelcodecError, from_os
from melcodec.store.codes import Codes

SHORT_SECONDS = 60.0  # longer files stream on their own, so that memory does not depend on their length


@dataclass(frozen=True)
class Encoded:
    """A file's codes, or why there are none."""

    path: Path
    result: Codes | MelcodecError


@dataclass(frozen=True)
class _Read:
    """A short file's wave (S,) and rate (Hz); None for a long one; or why it cannot be read."""

    path: Path
    wave: np.ndarray | MelcodecError | None
    rate: int = 0


def encode_files(codec: Codec, paths: Sequence[Path], batch_size: int = 32, num_workers: int = 2) -> Iterator[Encoded]:
    """Encode every file of ``paths``, in order within each group of ``batch_size``.

    Args:
        batch_size: files read ahead and encoded together.
        num_workers: threads that read and resample.
    """
    groups = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        ahead = [pool.submit(_read, path, codec.sample_rate) for path in groups[0]] if groups else []
        for index in range(len(groups)):
            waiting = ahead
            ahead = [pool.submit(_read, path, codec.sample_rate) for group in groups[index + 1 : index + 2] for path in group]
            yield from _encode_group(codec, [future.result() for future in waiting])


def _encode_group(codec: Codec, group: list[_Read]) -> Iterator[Encoded]:
    short = [item for item in group if isinstance(item.wave, np.ndarray)]
    encoded = iter(codec.encode_many([item.wave for item in short if isinstance(item.wave, np.ndarray)]))
    for item in group:
        if isinstance(item.wave, MelcodecError):
            yield Encoded(item.path, item.wave)
        elif item.wave is None:
            try:
                yield Encoded(item.path, codec.encode_file(item.path))
            except MelcodecError as error:
                yield Encoded(item.path, error)
            except OSError as error:
                yield Encoded(item.path, from_os(error))
        else:
            codes = next(encoded).numpy()
            yield Encoded(item.path, Codes(codes, len(item.wave), item.rate, codec.fingerprint, codec.codebook_size))


def _read(path: Path, sample_rate: int) -> _Read:
    try:
        info = probe(path)
        if info.seconds is None or info.seconds > SHORT_SECONDS:
            return _Read(path, None)
        return _Read(path, load(path, sample_rate), info.sample_rate)
    except MelcodecError as error:
        return _Read(path, error)
    except OSError as error:  # such as a folder that lists its files but does not let them be opened
        return _Read(path, from_os(error))
