"""Which prior a name means."""

from __future__ import annotations

from pathlib import Path

from melcodec.errors import MelcodecError
from melcodec.metrics.ngram import NAMES
from melcodec.metrics.predictability import Predictor
from melcodec.prior.facts import FACTS, read_facts, shipped_priors
from melcodec.prior.models import Prior, load_prior


def find_prior(name: str | Path | None, codec: str, made_with: str = "") -> Prior:
    """The prior that ``name`` means: a folder or a shipped name; None is a shipped one for the codec's codes.

    Args:
        codec: fingerprint of the codec.
        made_with: the beginning of a prior's fingerprint; of several shipped ones, that one is taken, else a network.

    Raises:
        MelcodecError: there is none, or it models the codes of another checkpoint.
    """
    if name is None:
        fitting = fitting_priors(codec)
        return load_prior(next((folder for folder in fitting if fitting[folder].startswith(made_with)), next(iter(fitting))))
    prior = named_prior(name)
    if prior.space.fingerprint != codec:
        raise MelcodecError(
            f"{name}: models codes of checkpoint {prior.space.fingerprint}, but this one is {codec}",
            "give that checkpoint with --checkpoint, or another prior",
        )
    return prior


def fitting_priors(codec: str) -> dict[Path, str]:
    """The fingerprint of every shipped prior for a codec's codes, networks first, which predict better than n-grams.

    Raises:
        MelcodecError: there is none.
    """
    facts = {folder: read_facts(folder) for folder in shipped_priors().values()}
    fitting = [folder for folder in facts if facts[folder]["space"]["fingerprint"] == codec]
    if not fitting:
        raise MelcodecError(f"no prior for checkpoint {codec} came with melcodec", "name one with --prior; melcodec prior train")
    fitting.sort(key=lambda folder: bool(facts[folder]["kind"] == "ngram"))
    return {folder: str(facts[folder]["fingerprint"]) for folder in fitting}


def named_prior(name: str | Path) -> Prior:
    """The prior in the folder ``name``, or the shipped one of that name; MelcodecError when there is neither."""
    shipped = shipped_priors()
    folder = shipped.get(str(name), Path(name))
    if not (folder / FACTS).is_file():
        names = ", ".join(sorted(shipped)) or "none"
        hint = f"give a folder that melcodec prior train wrote, or one that came with melcodec: {names}"
        raise MelcodecError(f"{name}: not a prior, neither a folder with {FACTS} nor a shipped name", hint, "missing")
    return load_prior(folder)


def find_predictor(name: str | Path) -> Predictor:
    """The prior that ``name`` means, as evaluation takes it."""
    prior = named_prior(name)
    title = NAMES[prior.table.order] if prior.network is None else prior.kind
    return Predictor(f"{name} ({title})", prior.space.fingerprint, prior.surprise)
