"""Which prior a name means."""

from __future__ import annotations

from pathlib import Path

from melcodec.errors import MelcodecError
from melcodec.formats.shipped import FOLDERS
from melcodec.prior.models import FACTS, Prior, load_prior, read_facts


def shipped_priors() -> dict[str, Path]:
    """Priors that came with melcodec, by name: folders beside the shipped checkpoints."""
    return {path.parent.name: path.parent for folder in FOLDERS for path in sorted(folder.glob(f"*/{FACTS}"))}


def find_prior(name: str | Path | None, codec: str) -> Prior:
    """The prior that ``name`` means: a folder or a shipped name; None is the shipped one for the codec's codes.

    Args:
        codec: fingerprint of the codec.

    Raises:
        MelcodecError: there is none, or it models the codes of another checkpoint.
    """
    shipped = shipped_priors()
    if name is None:
        fitting = [folder for folder in shipped.values() if read_facts(folder)["space"]["fingerprint"] == codec]
        if not fitting:
            raise MelcodecError(
                f"no prior for checkpoint {codec} came with melcodec", "name one with --prior; melcodec prior train"
            )
        return load_prior(fitting[0])
    prior = load_prior(shipped.get(str(name), Path(name)))
    if prior.space.fingerprint != codec:
        raise MelcodecError(
            f"{name}: models codes of checkpoint {prior.space.fingerprint}, but this one is {codec}",
            "give that checkpoint with --checkpoint, or another prior",
        )
    return prior
