"""The one exception that melcodec raises on purpose."""

from __future__ import annotations

from typing import Literal

# What kind of failure it is, for programs: these words are stable, messages may be reworded at any time.
ErrorCode = Literal[
    "invalid",  # a wrong argument, setting or combination of inputs; also whatever has no code of its own
    "missing",  # no such file, folder, checkpoint or utterance
    "unreadable",  # a file that cannot be opened, or not as what it should be
    "truncated",  # a file that ends, or is damaged, before its data does
    "nan",  # sound that holds NaN or infinity
    "too-short",  # sound with too few samples
    "damaged",  # one of melcodec's own files whose content is not what was written
    "mismatch",  # things that do not belong together, such as codes and the checkpoint of other codes
    "exists",  # an output that is there already and must stay
    "unwritable",  # an output that cannot be written; the disk is full
    "needs-package",  # an optional package is not installed
]


class MelcodecError(Exception):
    """Something the user can understand and mend: bad input, a wrong file, a full disk.

    The command line prints ``message`` as one line, ``hint`` as a second one, and exits with status 1.

    Args:
        message: what is wrong, naming the file or the option.
        hint: what to do about it, or None when the message says it all.
        code: the kind of failure, which programs may compare; they never look into ``message``.
    """

    def __init__(self, message: str, hint: str | None = None, code: ErrorCode = "invalid") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code: ErrorCode = code

    def about(self, name: object) -> MelcodecError:
        """The same error, its message beginning with ``name``, the file that it is about."""
        return MelcodecError(f"{name}: {self.message}", self.hint, self.code)


def from_os(error: OSError) -> MelcodecError:
    """What the system refused, as one line: ``NAME: Permission denied``."""
    reason = error.strerror or str(error)
    code: ErrorCode = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
    return MelcodecError(reason if error.filename is None else f"{error.filename}: {reason}", code=code)
