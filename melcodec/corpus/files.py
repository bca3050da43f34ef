"""Many utterances through the codec: read ahead in threads, encode like lengths together, never stop at a bad one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from melcodec.audio.io import Span, open_blocks
from melcodec.codec import Codec
from melcodec.errors import MelcodecError, from_os
from melcodec.manifests.base import Utterance
from melcodec.store.codes import Codes

DEFAULT_THREADS = 2
SHORT_SECONDS = 60.0  # longer files stream on their own, so that memory does not depend on their length


@dataclass(frozen=True)
class Encoded:
    """An utterance's codes, or why there are none."""

    utterance: Utterance
    result: Codes | MelcodecError


@dataclass(frozen=True)
class _Read:
    """A short utterance's wave (S,) and rate (Hz); None for a long one; or why it cannot be read."""

    utterance: Utterance
    wave: np.ndarray | MelcodecError | None
    rate: int = 0


def encode_files(codec: Codec, utterances: Sequence[Utterance], batch_size: int = 32, num_workers: int = 0) -> Iterator[Encoded]:
    """Encode every one of ``utterances``, in order.

    Args:
        batch_size: utterances read ahead and encoded together.
        num_workers: threads that read and resample; 0: two.
    """
    groups = [utterances[i : i + batch_size] for i in range(0, len(utterances), batch_size)]
    with ThreadPoolExecutor(num_workers or DEFAULT_THREADS) as pool:
        ahead = [pool.submit(_read, item, codec.sample_rate) for item in groups[0]] if groups else []
        for index in range(len(groups)):
            waiting = ahead
            ahead = [pool.submit(_read, item, codec.sample_rate) for group in groups[index + 1 : index + 2] for item in group]
            yield from _encode_group(codec, [future.result() for future in waiting])


def _encode_group(codec: Codec, group: list[_Read]) -> Iterator[Encoded]:
    short = [item for item in group if isinstance(item.wave, np.ndarray)]
    encoded = iter(codec.encode_many([item.wave for item in short if isinstance(item.wave, np.ndarray)]))
    for item in group:
        said = item.utterance
        if isinstance(item.wave, MelcodecError):
            yield Encoded(said, item.wave)
        elif item.wave is None:
            try:
                yield Encoded(said, codec.encode_file(said.path, 0, Span(said.start, said.duration), said.member))
            except MelcodecError as error:
                yield Encoded(said, error)
            except OSError as error:
                yield Encoded(said, from_os(error))
        else:
            codes = next(encoded).numpy()
            yield Encoded(said, Codes(codes, len(item.wave), item.rate, codec.fingerprint, codec.sizes))


def _read(item: Utterance, sample_rate: int) -> _Read:
    try:
        span = Span(item.start, item.duration)
        with open_blocks(item.path, sample_rate, span, item.member) as (info, blocks):
            seconds = item.duration or info.seconds
            if seconds is None or seconds > SHORT_SECONDS:
                return _Read(item, None)
            return _Read(item, np.concatenate(list(blocks)), info.sample_rate)
    except MelcodecError as error:
        return _Read(item, error)
    except OSError as error:  # such as a folder that lists its files but does not let them be opened
        return _Read(item, from_os(error))
