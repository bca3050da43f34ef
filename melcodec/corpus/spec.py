"""What a run of ``preprocess`` writes into its store about itself: all that decides which codes come out."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from melcodec.codec import Codec
from melcodec.config import MelConfig
from melcodec.corpus.reading import Rules
from melcodec.errors import MelcodecError
from melcodec.store.layout import FORMAT, VERSION
from melcodec.store.parquet import MAX_CODE
from melcodec.store.spec import differences
from melcodec.version import __version__


def decoder_versions() -> dict[str, str | None]:
    """What decodes sound here; another decoder may give other samples."""
    import soundfile

    try:
        av = version("av")
    except PackageNotFoundError:
        av = None
    return {"soundfile": soundfile.__version__, "libsndfile": soundfile.__libsndfile_version__, "av": av}


def run_spec(codec: Codec, mel: MelConfig, checkpoint: str, rules: Rules) -> dict[str, Any]:
    """The specification of a run, JSON values.

    Raises:
        MelcodecError: codes of this checkpoint do not fit the store.
    """
    if max(codec.sizes) > MAX_CODE + 1:
        raise MelcodecError(f"{checkpoint}: {max(codec.sizes)} codes; a store holds codes up to {MAX_CODE}")
    return {
        "format": FORMAT,
        "version": VERSION,
        "melcodec": __version__,
        "checkpoint": checkpoint,
        "fingerprint": codec.fingerprint,
        "mel": mel.model_dump(mode="json"),
        "sizes": list(codec.sizes),
        "samples_per_code": codec.samples_per_code,
        "sample_rate": codec.sample_rate,
        "settings": asdict(rules),
        "decoder": decoder_versions(),
    }


def check_worker(codec: Codec, spec: dict[str, Any]) -> None:
    """Raise MelcodecError unless this process has the checkpoint, the melcodec and the decoders of ``spec``."""
    here = {"melcodec": __version__, "fingerprint": codec.fingerprint, "decoder": decoder_versions()}
    if found := list(differences({key: spec[key] for key in here}, here)):
        raise MelcodecError(
            f"a worker has other software or settings than the run: {'; '.join(found)}",
            "install the same versions on every machine",
        )
