"""The blocks of a Creative Voice file, of which libsndfile reads one, and takes the headers of more for sound."""

from __future__ import annotations

from typing import IO

from melcodec.audio.layout import CONVERT, Fault, Layout, Part

MAGIC = b"Crea"
HEADER_SIZE = slice(20, 22)
END, SILENCE = 0, 3  # kinds of blocks
SOUND = {1: 2, 2: 0, 9: 12}  # those with sound, and bytes of their own header; 2 goes on with the one before
SLOPPY_BYTES = 1024  # may follow the end


def survey(content: IO[bytes], start: int) -> Layout:
    """Whether a file has one block of sound, all of which is there."""
    size = content.seek(0, 2)
    content.seek(start)
    at = start + int.from_bytes(content.read(26)[HEADER_SIZE], "little")
    sounds, sound = 0, 0
    while True:
        content.seek(at)
        header = content.read(4)
        length = int.from_bytes(header[1:], "little")
        if len(header) < 4 or not END < header[0] <= max(SOUND) or (header[0] not in SOUND and at + 4 + length > size):
            break  # the end, or what some programs leave in its place: sox counts too few bytes
        if header[0] in SOUND:
            sounds, sound = sounds + 1, length - SOUND[header[0]]
            if at + 4 + length > size:
                reason = f"the header promises {length} bytes of sound, {size - at - 4} are there"
                return Layout((Part(),), Fault(reason, "truncated"))
        sounds += header[0] == SILENCE
        at += 4 + length
    if sounds > 1:
        return Layout((), Fault(f"holds {sounds} blocks of sound or silence, of which only one could be read", "unread", CONVERT))
    if size - at > SLOPPY_BYTES:
        return Layout((), Fault(f"{size - at} bytes follow its end", "unread", CONVERT))
    return Layout((Part(sound=sound),))
