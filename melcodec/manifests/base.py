"""What every reader of this package returns: utterances."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech: a file, a part of one, or a member of an archive.

    Args:
        id: unique in its corpus, with ``/`` between folders; the relative path without its suffix, or what the list says.
        path: of the file or archive, as the operating system wants it, or a URL. It may be missing.
        member: name inside the tar archive ``path``; empty for a plain file.
        start: seconds into the file.
        duration: seconds, as the list says; None means to the end of the file.
        speaker, language, text: as the list or the folders say; empty when they do not.
        split: ``train``, ``valid`` or ``test`` where the source names it; empty where it does not.
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
