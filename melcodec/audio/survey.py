"""Find the sound in a file, whatever its format; see ``layout``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from melcodec.audio import chunks, flac, mpeg, ogg, voc
from melcodec.audio.layout import AS_IT_IS, Layout, content_of, past_tags

# How files begin that PyAV may be asked for when libsndfile does not know them: mp4, matroska, asf, adts, loas, amr, ac3
FOREIGN = re.compile(
    rb".{4}ftyp|\x1a\x45\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\xff[\xf0\xf1\xf8\xf9]|\x56[\xe0-\xff]|#!AMR|\x0b\x77",
    re.DOTALL,
)


def survey(file: Path | IO[bytes]) -> Layout:
    """Where the sound of ``file`` lies, if its first bytes say what it is."""
    with content_of(file) as content:
        start = past_tags(content)
        magic = content.read(4)
        if magic == ogg.MAGIC:
            return ogg.survey(content, start)
        if magic == flac.MAGIC:
            return flac.survey(content, start)
        if magic in chunks.MAGICS:
            return chunks.survey(content, start, magic)
        if magic == voc.MAGIC:
            return voc.survey(content, start)
        if mpeg.parse(magic):
            return mpeg.survey(content, start)
    return AS_IT_IS


def survey_mpeg(file: Path | IO[bytes]) -> Layout:
    """Where the sound of ``file`` lies, which is MPEG audio, perhaps with something before its first frame."""
    with content_of(file) as content:
        return mpeg.survey(content, past_tags(content))


def is_known(file: Path | IO[bytes]) -> bool:
    """Whether ``file`` begins as those do for which there is ``survey``."""
    with content_of(file) as content:
        past_tags(content)
        return content.read(4) in {ogg.MAGIC, flac.MAGIC, voc.MAGIC, *chunks.MAGICS}


def is_foreign(file: Path | IO[bytes]) -> bool:
    """Whether ``file`` looks like one that PyAV reads, and libsndfile does not."""
    with content_of(file) as content:
        past_tags(content)
        return FOREIGN.match(content.read(16)) is not None
