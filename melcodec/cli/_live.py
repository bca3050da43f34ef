"""``encode ... -o -`` and ``decode ... -o -``: streams from standard input, or of a file, to standard output."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from melcodec.cli._console import say
from melcodec.errors import MelcodecError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np

    from melcodec.codec import Codec
    from melcodec.store.codes import Codes
    from melcodec.streaming.wire import CodeReader

STD = "-"
JSONL, RAW, WAV = "jsonl", "raw", "wav"
UNKNOWN_SIZE = 0xFFFFFFFF  # of a wav that is still being made, as ffmpeg writes it


def is_stream(inputs: list[Path], kind: str | None) -> bool:
    """Whether the one input is a stream of codes on standard input: as --from says, or JSON lines by their first bytes."""
    if kind not in (None, JSONL, RAW):
        raise MelcodecError(f"--from {kind}: not a format", f"use {JSONL} or {RAW}")
    if [str(item) for item in inputs] != [STD]:
        if kind is not None:
            raise MelcodecError("--from is for codes on standard input", "melcodec decode - --from raw -o -")
        return False
    return kind is not None or _begins(2) == b'{"'


def stdout() -> IO[bytes]:
    """Standard output, for bytes; MelcodecError where it is closed."""
    if not hasattr(sys.stdout, "buffer"):
        raise MelcodecError("standard output is closed", code="unwritable")
    return sys.stdout.buffer


def encode_stream(codec: Codec, source: str, kind: str, input_rate: int | None) -> None:
    """Write the codes of ``source``, ``-`` or a file, to standard output as they come; Ctrl-C ends the stream."""
    from melcodec.streaming.encoder import StreamingEncoder
    from melcodec.streaming.wire import CodeWriter

    if kind == RAW and codec.codebook_size > 1 << 16:
        raise MelcodecError(f"--to raw has 16 bits; this codebook has {codec.codebook_size} entries", "use --to jsonl")
    facts = {
        "fingerprint": codec.fingerprint,
        "codebook_sizes": list(codec.sizes),
        "sample_rate": codec.sample_rate,
        "samples_per_code": codec.samples_per_code,
    }
    writer = CodeWriter(stdout(), kind, facts)
    with sound_blocks(source, codec.sample_rate, input_rate) as (rate, blocks):
        encoder = StreamingEncoder(codec, sample_rate=rate)
        writer.begin()
        problem: BaseException | None = None
        try:
            for block in blocks:
                writer.write(encoder.push(block)[0].cpu().numpy())
        except (MelcodecError, KeyboardInterrupt) as error:  # the sound until here is still encoded
            problem = error
        try:
            codes, num_samples = encoder.end()
        except MelcodecError as error:  # there was none
            raise problem or error from None
        writer.write(codes[0].cpu().numpy())
        if not isinstance(problem, MelcodecError):  # after an error the stream has no end, so that its reader notices it
            writer.end(num_samples)
    say(f"{num_samples / codec.sample_rate:.2f} s encoded")
    if problem is not None:
        raise problem


@contextmanager
def sound_blocks(source: str, sample_rate: int, input_rate: int | None) -> Iterator[tuple[int, Iterable[np.ndarray]]]:
    """The rate and the mono blocks of a file, or of standard input as they arrive; compressed ones when all is there."""
    from melcodec.audio.io import open_blocks
    from melcodec.audio.live import Pushback, live_blocks, raw_format, read_wav_header

    if source != STD:
        if input_rate is not None:
            raise MelcodecError("--input-rate is for raw samples on standard input")
        with open_blocks(source, sample_rate) as (_, blocks):
            yield sample_rate, blocks
        return
    stdin = sys.stdin.buffer
    form = raw_format(input_rate) if input_rate is not None else read_wav_header(stdin)
    if isinstance(form, Pushback):
        with open_blocks(form, sample_rate) as (_, blocks):  # type: ignore[arg-type]
            yield sample_rate, blocks
        return
    yield form.sample_rate, live_blocks(stdin, form)


def read_stream(codec: Codec, any_checkpoint: bool) -> CodeReader:
    """The codes on standard input, refused when another checkpoint made them."""
    from melcodec.store.codes import Codes
    from melcodec.streaming.wire import CodeReader

    reader = CodeReader(sys.stdin.buffer, codec.num_codebooks)
    if not reader.facts:
        say("raw codes do not say which checkpoint made them; --to jsonl does")
    elif not any_checkpoint:
        made = Codes(_no_codes(), fingerprint=str(reader.facts.get("fingerprint")))
        codec.check_fingerprint(made, "standard input")
    return reader


def stored_stream(codec: Codec, any_checkpoint: bool) -> Codes:
    """All codes on standard input, at once."""
    import numpy as np

    from melcodec.store.codes import Codes

    reader = read_stream(codec, any_checkpoint)
    blocks = list(reader.blocks())
    if not blocks:
        raise MelcodecError("standard input: holds no codes", code="too-short")
    return Codes(np.concatenate(blocks, axis=-1), reader.num_samples)


def decode_stream(codec: Codec, kind: str, any_checkpoint: bool, num_samples: int | None) -> None:
    """Write the sound of the codes on standard input to standard output as they come."""
    from melcodec.streaming.decoder import StreamingDecoder

    decoder = StreamingDecoder(codec)

    def blocks() -> Iterator[np.ndarray]:
        reader = read_stream(codec, any_checkpoint)
        problem: BaseException | None = None
        try:
            for codes in reader.blocks():
                yield decoder.push(codes)[0].cpu().numpy()
        except (MelcodecError, KeyboardInterrupt) as error:  # play what has arrived
            problem = error
        if decoder.num_codes or problem is None:
            yield decoder.finish(None if problem else num_samples or reader.num_samples)[0].cpu().numpy()
        if problem is not None:
            raise problem

    write_sound(blocks(), kind, codec.sample_rate)


def write_sound(blocks: Iterable[np.ndarray], kind: str, sample_rate: int) -> None:
    """Write blocks (n,) in [-1, 1] to standard output as 16-bit mono, raw or behind the header of a wav without an end."""
    out = stdout()
    if kind == WAV:
        out.write(wav_header(sample_rate))
        out.flush()
    for block in blocks:
        out.write((block * 32_767).round().astype("<i2").tobytes())
        out.flush()


def wav_header(sample_rate: int) -> bytes:
    """The header of a 16-bit mono wav whose length is not known yet."""
    form = struct.pack("<HHIIHH", 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    sizes = struct.pack("<I", UNKNOWN_SIZE)
    return b"RIFF" + sizes + b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + sizes


def _no_codes() -> np.ndarray:
    import numpy as np

    return np.zeros((1, 0), np.int64)


def _begins(count: int) -> bytes:
    """The first bytes of standard input, which stay there to be read."""
    peek = getattr(getattr(sys.stdin, "buffer", None), "peek", None)
    return peek(count)[:count] if peek else b""
