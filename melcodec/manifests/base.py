"""What every reader of this room gives: utterances, named once and for all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech: a file, a part of one, or a member of an archive.

    Args:
        id: unique in its corpus, with ``/`` between folders; from the relative path without its suffix, or from the list.
        path: of the file or archive, as the operating system wants it, or a URL.
        member: name inside the tar archive ``path``; empty for a plain file.
        start: seconds into the file.
        duration: seconds; None means to the end of the file.
        speaker, language, text: as the list says; empty when it does not.
        split: ``train``, ``valid`` or ``test`` where the source says so; empty when it does not.
    """

    id: str
    path: str
    member: str = ""
    start: float = 0.0
    duration: float | None = None
    speaker: str = ""
    language: str = ""
    text: str = ""
    split: str = ""
