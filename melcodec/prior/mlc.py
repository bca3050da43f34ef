"""``.mlc`` files: what stands around the entropy-coded codes, without a prior and without torch.

    2 bytes   ML
    1 byte    version, 1
    1 byte    r
    2 bytes   fingerprint of the codec, its first 4 hexadecimal digits
    3 bytes   fingerprint of the prior, its first 6, in which the codec's whole fingerprint has gone too
    varint    S samples + 1, or 0 where that is not known
    varint    N codes, as the zigzag difference to S // (samples per code)
    varint    source rate: 0 unknown, 1 to 11 one of ``RATES``, else Hz
    2 bytes   CRC-32 of all that stands before and after these two bytes, its low half, little-endian
    3 bytes   CRC-32 of the codes, its low 24 bits, little-endian
    the rest  the range coder's 32-bit words, little-endian, without zero bytes at the end

Varints are LEB128: seven bits a byte, the lowest first, and the highest bit set on all but the last.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melcodec.errors import MelcodecError

SUFFIX = ".mlc"
MAGIC, VERSION = b"ML", 1
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000)  # Hz, of one byte
CRC_BYTES, SHORT_BYTES = 3, 2
CODEC_DIGITS, PRIOR_DIGITS = 4, 6  # of fingerprints
PRIOR_AT = len(MAGIC) + 1 + 1 + CODEC_DIGITS // 2  # where the prior's fingerprint begins
FIXED = PRIOR_AT + PRIOR_DIGITS // 2  # bytes before the varints


@dataclass(frozen=True)
class Header:
    """What a file says before its codes; see the module's description."""

    rounding: int
    codec: str
    prior: str
    num_codes: int
    num_samples: int | None
    source_rate: int | None
    checksum: int


def checksum(codes: np.ndarray) -> int:
    """CRC-32 of codes (Q, N) as little-endian int32, and of N: its low 24 bits."""
    return zlib.crc32(np.ascontiguousarray(codes).astype("<i4").tobytes(), codes.shape[1]) & 0xFFFFFF


def pack(header: Header, payload: bytes, samples_per_code: int) -> bytes:
    """The content of a file: ``header`` and the range coder's bytes."""
    samples = 0 if header.num_samples is None else header.num_samples + 1
    more = header.num_codes - max(samples - 1, 0) // samples_per_code
    rate = header.source_rate or 0
    numbers = (samples, 2 * more if more >= 0 else -2 * more - 1, RATES.index(rate) + 1 if rate in RATES else rate)
    before = MAGIC + bytes([VERSION, header.rounding]) + bytes.fromhex(header.codec) + bytes.fromhex(header.prior)
    before += b"".join(map(_varint, numbers))
    after = header.checksum.to_bytes(CRC_BYTES, "little") + payload
    return before + _short(before + after) + after


def _short(content: bytes) -> bytes:
    return (zlib.crc32(content) & 0xFFFF).to_bytes(SHORT_BYTES, "little")


def unpack(content: bytes, where: str, samples_per_code: int) -> tuple[Header, bytes]:
    """The header of a ``.mlc`` file and the range coder's bytes; MelcodecError when it is damaged or no such file."""
    if not content.startswith(MAGIC):
        raise MelcodecError(f"{where}: not a {SUFFIX} file")
    if len(content) > len(MAGIC) and content[len(MAGIC)] > VERSION:
        raise MelcodecError(f"{where}: written by a newer melcodec", "pip install --upgrade melcodec")
    try:
        place, numbers = FIXED, []
        for _ in range(3):
            value, place = _read_varint(content, place)
            numbers.append(value)
        after = content[place + SHORT_BYTES :]
        if len(after) < CRC_BYTES or content[place : place + SHORT_BYTES] != _short(content[:place] + after):
            raise ValueError
    except (ValueError, IndexError):
        raise MelcodecError(f"{where}: damaged: its checksum does not fit", "copy or download it again") from None
    samples, zigzag, rate = numbers
    more = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
    header = Header(
        rounding=content[len(MAGIC) + 1],
        codec=content[len(MAGIC) + 2 : PRIOR_AT].hex(),
        prior=content[PRIOR_AT:FIXED].hex(),
        num_codes=max(samples - 1, 0) // samples_per_code + more,
        num_samples=samples - 1 if samples else None,
        source_rate=(RATES[rate - 1] if rate <= len(RATES) else rate) if rate else None,
        checksum=int.from_bytes(after[:CRC_BYTES], "little"),
    )
    return header, after[CRC_BYTES:]


def made_with(content: bytes) -> str:
    """The first hexadecimal digits of the fingerprint of the prior that made a ``.mlc`` file; empty where it is cut."""
    return content[PRIOR_AT:FIXED].hex()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("too long")


def read_mlc(path: Path) -> bytes:
    """The content of ``path``; MelcodecError when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MelcodecError(f"{path}: no such file") from None
    except OSError as error:
        raise MelcodecError(f"{path}: {error.strerror or error}") from None
