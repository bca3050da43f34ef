"""Codes files of every kind, entropy-coded ``.mlc`` files included, for encode and decode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcodec.cli._options import MLC, named
from melcodec.errors import MelcodecError

if TYPE_CHECKING:
    from melcodec.prior.models import Prior
    from melcodec.store.codes import Codes

PriorOption = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="PRIOR",
        help="For .mlc files: folder that melcodec prior train wrote, or the name of a shipped one.",
        callback=named,
    ),
]


class CodesFiles:
    """Reads and writes codes files by their suffix; a prior is loaded when the first ``.mlc`` file needs it.

    Args:
        prior: what --prior says; None takes the shipped prior of the codes' checkpoint.
        codec: fingerprint of the checkpoint.
    """

    def __init__(self, prior: str | None, codec: str) -> None:
        self.name, self.codec = prior, codec
        self._priors: dict[str, Prior] = {}

    def prior(self, made_with: str = "") -> Prior:
        """The prior, loaded once; of several shipped ones, the one whose fingerprint begins with ``made_with``."""
        made_with = "" if self.name else made_with
        if made_with not in self._priors:
            from melcodec.prior.shipped import find_prior

            self._priors[made_with] = find_prior(self.name, self.codec, made_with)
        return self._priors[made_with]

    def check_prior(self) -> None:
        """Raise MelcodecError when there is no prior: one error, and not one for every file."""
        from melcodec.prior.shipped import fitting_priors

        if self.name is None:
            fitting_priors(self.codec)
        else:
            self.prior()

    def save(self, path: Path, codes: Codes, overwrite: bool) -> None:
        """Write ``codes``."""
        if path.suffix.lower() == MLC:
            from melcodec.prior.coding import save_mlc

            save_mlc(path, self.prior(), codes, overwrite)
            return
        from melcodec.store.codes import save_codes

        save_codes(path, codes, overwrite)

    def load(self, path: Path) -> Codes:
        """Read codes."""
        if path.suffix.lower() == MLC:
            from melcodec.prior.coding import decompress
            from melcodec.prior.mlc import made_with, read_mlc

            content = read_mlc(path)
            return decompress(self.prior(made_with(content)), content, str(path))
        from melcodec.store.codes import load_codes

        return load_codes(path)


def check_prior_is_used(prior: str | None, suffixes: set[str]) -> None:
    """Raise MelcodecError when --prior is given and no file is an ``.mlc`` file."""
    if prior is not None and MLC not in suffixes:
        raise MelcodecError(f"--prior is for {MLC} files", f"melcodec encode in.wav -o in{MLC} --prior prior/")
