"""The one exception that melcodec raises on purpose."""

from __future__ import annotations


class MelcodecError(Exception):
    """Something the user can understand and mend: bad input, a wrong file, a full disk.

    The command line prints ``message`` as one line, ``hint`` as a second one, and exits with status 1.

    Args:
        message: what is wrong, naming the file or the option.
        hint: what to do about it, or None when the message says it all.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def from_os(error: OSError) -> MelcodecError:
    """What the system refused, as one line: ``NAME: Permission denied``."""
    reason = error.strerror or str(error)
    return MelcodecError(reason if error.filename is None else f"{error.filename}: {reason}")
