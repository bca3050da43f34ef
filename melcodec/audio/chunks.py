"""The chunks of wav, rf64, w64, aiff and caf files, and the headers of au and nist: how many bytes of sound they promise.

libsndfile gives as many samples as the header promises, or as there are, and does not say which. Programs that write to a
pipe promise nothing, or as much as the field holds: then the sound goes on to the end of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO, Literal, NamedTuple

from melcodec.audio.layout import AS_IT_IS, Fault, Layout, Part

SLOPPY_BYTES = 1024  # some programs count their own header as sound, or leave bytes behind it
STREAMED_BYTES = 0x7FFF_0000  # at least as much is promised by programs that write to a pipe
STREAMED_WIDE = 1 << 60  # as STREAMED_BYTES, for sizes of 64 bits
SIZE_IN_DS64 = 0xFFFF_FFFF  # a size of rf64 that stands elsewhere (EBU Tech 3306)
MOST_CHUNKS = 10_000  # that are looked at
SOUND = (b"data", b"SSND")
FILES = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b"caff")
# chunks that may be cut: the sound is not in them
TEXTS = (b"LIST", b"list", b"id3 ", b"ID3 ", b"bext", b"iXML", b"axml", b"_PMX", b"PAD ", b"JUNK", b"junk", b"FLLR", b"free")
TAGS = (b"TAG", b"APETAGEX", b"ID3")
BLOCK = 1 << 16  # bytes that are searched at once
IGNORE = "if it is sound, sox --ignore-length IN OUT.wav reads all of it"


class Form(NamedTuple):
    """How a container writes chunks."""

    order: Literal["big", "little"]
    first: int  # byte of the first chunk
    header: int  # bytes of a chunk's header
    size_at: int  # byte of the size in it
    wide: bool  # sizes of 64 bits
    inclusive: bool  # the size counts the header
    step: int  # a chunk begins at a multiple of it


FORMS = {
    b"RIFF": Form("little", 12, 8, 4, False, False, 2),
    b"RF64": Form("little", 12, 8, 4, False, False, 2),
    b"RIFX": Form("big", 12, 8, 4, False, False, 2),
    b"FORM": Form("big", 12, 8, 4, False, False, 2),
    b"caff": Form("big", 8, 12, 4, True, False, 1),
    b"riff": Form("little", 40, 24, 16, True, True, 8),
}
MAGICS = frozenset((*FORMS, b".snd", b"dns.", b"NIST"))


@dataclass
class Sound:
    """Bytes of sound: where they begin, how many are promised, and where that number stands in the file."""

    start: int
    promised: int
    field: tuple[int, int] | None
    order: Literal["big", "little"]
    wide: bool = False
    inclusive: int = 0  # bytes that the number counts with them
    then: int = 0  # where the next chunk may begin; 0 when none may

    @property
    def streamed(self) -> bool:
        """Whether the program that wrote the header did not know the length."""
        return not 0 <= self.promised < (STREAMED_WIDE if self.wide else STREAMED_BYTES)


def survey(content: IO[bytes], start: int, magic: bytes) -> Layout:
    """The sound of a file whose first chunk begins after byte ``start``."""
    size = content.seek(0, 2)
    sound = _header(content, start, magic) if magic not in FORMS else _find(content, start, FORMS[magic], size)
    if sound is None:
        return AS_IT_IS
    there = size - sound.start
    if not sound.streamed and there + SLOPPY_BYTES < sound.promised:
        return Layout((Part(),), Fault(f"the header promises {sound.promised} bytes of sound, {there} are there", "truncated"))
    if (sound.streamed and magic != b"caff") or sound.field is None:
        return Layout((Part(sound=there),))  # of these libsndfile reads all, whatever the header says
    more = there if sound.streamed else _unexplained(content, sound, FORMS.get(magic), size)
    if not more or (more <= SLOPPY_BYTES and sound.promised):
        return Layout((Part(sound=min(sound.promised, there)),))
    if sound.streamed or sound.promised == 0 or magic not in FORMS:  # nothing but sound can follow in an au file
        return _patched(sound, start, size)
    reason = f"the header promises {sound.promised} bytes of sound, and {more} more bytes follow"
    return Layout((Part(),), Fault(reason, "unread", IGNORE))


def _patched(sound: Sound, start: int, size: int) -> Layout:
    """The file with the size in its header that it has."""
    assert sound.field is not None
    at, stop = sound.field
    there = min(size - sound.start + sound.inclusive, (1 << 8 * (stop - at)) - 1)
    return Layout((Part(((start, at), there.to_bytes(stop - at, sound.order), (stop, size)), sound=size - sound.start),))


def _find(content: IO[bytes], start: int, form: Form, size: int) -> Sound | None:
    """The chunk of sound, or None when there is none."""
    at, ds64 = start + form.first, None
    for _ in range(MOST_CHUNKS):
        content.seek(at)
        chunk = content.read(form.header + 16)
        if len(chunk) < form.header:
            return None
        name, promised = chunk[:4], _size(chunk, form)
        body = at + form.header
        if name == b"ds64":
            ds64 = body + 8, int.from_bytes(chunk[form.header + 8 : form.header + 16], "little")
        elif name in SOUND:
            width = 8 if form.wide else 4
            field, wide = (at + form.size_at, at + form.size_at + width), form.wide
            if promised == SIZE_IN_DS64 and not form.wide and ds64 is not None:
                field, promised, wide = (ds64[0], ds64[0] + 8), ds64[1], True
            then = _next(body, promised, form)
            return Sound(body, promised, field, form.order, wide, form.header if form.inclusive else 0, then)
        at = _next(body, promised, form)
    return None


def _size(chunk: bytes, form: Form) -> int:
    """Bytes of the body that a chunk's header promises."""
    size = int.from_bytes(chunk[form.size_at : form.size_at + (8 if form.wide else 4)], form.order)
    return max(0, size - form.header) if form.inclusive else size


def _next(body: int, size: int, form: Form) -> int:
    return body + -(-size // form.step) * form.step


def _header(content: IO[bytes], start: int, magic: bytes) -> Sound | None:
    """The sound of an au or nist file, which have no chunks."""
    content.seek(start)
    head = content.read(1024)
    if magic == b"NIST":
        fields = dict(re.findall(rb"(sample_count|sample_n_bytes|channel_count) -i (\d+)", head))
        if len(fields) < 3 or not head[8:16].strip().isdigit():
            return None
        samples, width, channels = (int(fields[name]) for name in (b"sample_count", b"sample_n_bytes", b"channel_count"))
        return Sound(start + int(head[8:16]), samples * width * channels, None, "big", wide=True)
    order: Literal["big", "little"] = "big" if magic == b".snd" else "little"
    begins, promised = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))
    return Sound(start + begins, promised, (start + 8, start + 12), order)


def _unexplained(content: IO[bytes], sound: Sound, form: Form | None, size: int) -> int:
    """Bytes behind the promised sound that are neither chunks, tags nor zeros."""
    at = sound.start + sound.promised
    if form is None:
        return 0 if _empty(content, at, size) else size - at
    starts = {sound.then, at}  # some programs leave out the byte that makes the size even
    return min(_after_chunks(content, start, form, size) for start in starts)


def _after_chunks(content: IO[bytes], at: int, form: Form, size: int) -> int:
    """Bytes of the file that do not belong to the chunks that begin at byte ``at``, tags or zeros."""
    for _ in range(MOST_CHUNKS):
        content.seek(at)
        chunk = content.read(form.header)
        name = chunk[:4]
        if name in FILES or name in SOUND:
            return max(size - at, SLOPPY_BYTES + 1)
        if len(chunk) < form.header or not all(32 <= byte < 127 for byte in name):
            break
        following = _next(at + form.header, _size(chunk, form), form)
        if following > size + form.step:
            return 0 if name in TEXTS else size - at
        at = following
    return 0 if at >= size or _empty(content, at, size) else size - at


def _empty(content: IO[bytes], at: int, size: int) -> bool:
    """Whether the file holds nothing from byte ``at`` on but tags and zeros."""
    content.seek(at)
    if content.read(8).startswith(TAGS):
        return True
    content.seek(at)
    while block := content.read(BLOCK):
        if block.strip(b"\0"):
            return False
    return True
