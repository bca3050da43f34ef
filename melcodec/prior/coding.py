"""Lossless compression of codes with a prior: ``.mlc`` files, by range coding (constriction).

Encoder and decoder must give every code the same probability to the last bit, on any processor and with any number of
threads, though floating-point sums differ there in their last digits. Three things make that so:

1. The network runs in float64 (``stepper``), where such differences are about 1e-13 of a logit.
2. Logits l become integers: floor(S (l - max l) + r / 256), S = 64 steps per nat, whose frequencies are a table of integers
   (so that nothing is rounded differently afterwards). The loss of precision costs about 1e-5 bit per code.
3. The encoder chooses r, one number per file, so that no logit lies within ``MARGIN`` of a border between two integers.

What still differs is found: the file holds a checksum of its codes, and a decoder that meets other ones raises an error.
``mlc`` describes the rest of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.prior.mlc import CODEC_DIGITS, PRIOR_DIGITS, SUFFIX, Header, checksum, pack, read_mlc, unpack
from melcodec.prior.models import Prior
from melcodec.store.codes import Codes

STEPS_PER_NAT = 64
DEEPEST = 1024  # steps below the most probable code, 16 nats, at which frequencies stop falling
TOTAL_BITS = 20  # of the frequency of the most probable code
MARGIN = 1e-9  # steps; a thousand times what summing in another order changes
INSTALL = "pip install 'melcodec[prior]'"


def frequencies() -> np.ndarray:
    """(DEEPEST + 1,) float64, whole numbers: how often a code that many steps below the most probable one is expected."""
    depth = np.arange(DEEPEST + 1) / STEPS_PER_NAT
    return np.maximum(1.0, np.rint(np.exp(-depth) * 2.0**TOTAL_BITS))


def quantized(logits: np.ndarray, rounding: int) -> np.ndarray:
    """Logits (n, K) of one codebook -> (n, K) int64 steps below the most probable code, 0 .. DEEPEST."""
    steps = np.floor(_placed(logits, rounding))
    return np.minimum(-steps, DEEPEST).astype(np.int64)


def is_safe(logits: np.ndarray, rounding: int) -> bool:
    """Whether no logit (n, K) lies so near a border that another order of summation could move it across."""
    placed = _placed(logits, rounding)
    return bool(np.all((np.abs(placed - np.rint(placed)) > MARGIN) | (placed < -DEEPEST - 1)))


def _placed(logits: np.ndarray, rounding: int) -> np.ndarray:
    return (logits - logits.max(-1, keepdims=True)) * STEPS_PER_NAT + (rounding + 0.5) / 256


def compress(prior: Prior, codes: Codes) -> bytes:
    """Codes (Q, N) -> the content of a ``.mlc`` file.

    Raises:
        MelcodecError: the codes are of another codec, or constriction is missing.
    """
    if codes.fingerprint not in (None, prior.space.fingerprint):
        raise MelcodecError(
            f"codes of checkpoint {codes.fingerprint}, but the prior models codes of {prior.space.fingerprint}",
            "give the checkpoint that the prior was trained for with --checkpoint",
        )
    slices = list(_slices(prior, codes.codes))
    rounding = next((r for r in range(256) if all(is_safe(logits, r) for logits, _ in slices)), None)
    if rounding is None:
        raise MelcodecError("no rounding of these probabilities is safe", "save the codes as .npz")
    table, model = frequencies(), _family()
    encoder = _constriction().stream.queue.RangeEncoder()
    for logits, symbols in slices:
        encoder.encode(symbols.astype(np.int32), model, table[quantized(logits, rounding)])
    payload = encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
    ids = prior.space.fingerprint[:CODEC_DIGITS], prior.fingerprint[:PRIOR_DIGITS]
    count, check = codes.codes.shape[1], checksum(codes.codes)
    header = Header(rounding, *ids, count, codes.num_samples, codes.source_rate, check)
    return pack(header, payload, prior.space.samples_per_code)


def decompress(prior: Prior, content: bytes, where: str) -> Codes:
    """The content of a ``.mlc`` file -> its codes.

    Raises:
        MelcodecError: damaged, made with another prior, or this machine's probabilities differ from the encoder's.
    """
    header, payload = unpack(content, where, prior.space.samples_per_code)
    if header.prior != prior.fingerprint[:PRIOR_DIGITS]:
        raise MelcodecError(
            f"{where}: made with prior {header.prior}..., but this one is {prior.fingerprint}", "give that prior with --prior"
        )
    words = np.frombuffer(payload + bytes(-len(payload) % 4), "<u4").astype(np.uint32)
    decoder = _constriction().stream.queue.RangeDecoder(words)
    codes = _decoded(prior, decoder, header)
    if checksum(codes) != header.checksum:
        raise MelcodecError(
            f"{where}: the prior gives other probabilities here than where the file was made, so that its codes cannot be read",
            "decode it on a machine like that one, and with the same versions of melcodec and constriction",
        )
    return Codes(codes, header.num_samples, header.source_rate, prior.space.fingerprint, tuple(prior.space.sizes))


def _slices(prior: Prior, codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits (n, K) and codes (n,) in the order of coding, for stretches of rows in which one codebook follows itself."""
    tokens, rows, first = prior.tokens, prior.tokens.rows(codes), 0
    alone = len(tokens.sizes) == 1
    for block in prior.logits(codes, torch.float64):
        step = len(block) if alone else 1
        for start in range(0, len(block), step):
            for column in range(tokens.width):
                book = tokens.book(first + start, column)
                begin = tokens.first(book)
                part = rows[first + start : first + start + step, column]
                if alone or part[0] != tokens.pad:
                    yield block[start : start + step, begin : begin + tokens.sizes[book]], part - begin
        first += len(block)


def _decoded(prior: Prior, decoder: Any, header: Header) -> np.ndarray:
    """Codes (Q, N), read code by code as the network goes on."""
    tokens, books = prior.tokens, len(prior.space.sizes)
    table, model, growing = frequencies(), _family(), prior.start(1, torch.float64)
    rows = np.full((tokens.num_rows(header.num_codes), tokens.width), tokens.pad)
    row = np.full((1, tokens.width), tokens.begin)
    for index in range(len(rows)):
        logits = growing.next(row)
        for column in range(tokens.width):
            late = column if tokens.pattern == "delay" and books > 1 else 0
            if tokens.width > 1 and not late <= index < header.num_codes + late:
                continue
            book = tokens.book(index, column)
            begin = tokens.first(book)
            steps = quantized(logits[:, begin : begin + tokens.sizes[book]], header.rounding)
            try:
                rows[index, column] = begin + int(decoder.decode(model, table[steps])[0])
            except (AssertionError, ValueError):  # words that no encoder makes of these probabilities
                return np.empty((books, 0), np.int64)
        row = rows[index : index + 1]
    return tokens.codes(rows)


def save_mlc(path: Path, prior: Prior, codes: Codes, overwrite: bool = True) -> int:
    """Write ``codes`` to ``path``, aside and renamed; returns the bytes of the file."""
    content = compress(prior, codes)
    with written_aside(path, overwrite) as aside:
        aside.write_bytes(content)
    return len(content)


def load_mlc(path: Path, prior: Prior) -> Codes:
    """Read a ``.mlc`` file; see ``decompress``."""
    return decompress(prior, read_mlc(path), str(path))


def _family() -> Any:
    return _constriction().stream.model.Categorical(perfect=False)


def _constriction() -> Any:
    try:
        import constriction
    except ImportError:
        raise MelcodecError(f"{SUFFIX} files need the constriction package", INSTALL) from None
    return constriction
