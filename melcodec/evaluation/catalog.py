"""The figures that evaluation knows: their names, units, which way is better, and what must be installed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from melcodec.errors import MelcodecError
from melcodec.metrics.optional import optional


@dataclass(frozen=True)
class Metric:
    """One figure.

    Args:
        name: in files and options.
        label: for people, with the unit.
        better: ``higher`` or ``lower``.
        packages: of ``melcodec[eval]`` that it needs.
        alone: whether it judges a sound by itself, without the original.
        audible: whether it needs sound, and not the mel alone.
        phases: whether it compares waves sample by sample, so that a vocoder which invents the phases makes it meaningless.
    """

    name: str
    label: str
    better: Literal["higher", "lower"]
    packages: tuple[str, ...] = ()
    alone: bool = False
    audible: bool = True
    phases: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("log_mel_l1", "log-mel L1 (ln power)", "lower", audible=False),
        Metric("log_mel_mse", "log-mel MSE (ln power squared)", "lower", audible=False),
        Metric("norm_mel_l1", "normalised mel L1", "lower", audible=False),
        Metric("norm_mel_mse", "normalised mel MSE", "lower", audible=False),
        Metric("mcd", "mel-cepstral distortion (dB)", "lower", audible=False),
        Metric("si_sdr", "SI-SDR (dB)", "higher", phases=True),
        Metric("f0_rmse", "F0 error (cents RMS)", "lower", ("librosa",)),  # out of core, because pyin is slow to start
        Metric("voicing_error", "voicing decision error (share)", "lower", ("librosa",)),
        Metric("stoi", "STOI", "higher", ("pystoi",)),
        Metric("estoi", "ESTOI", "higher", ("pystoi",)),
        Metric("pesq_wb", "PESQ-WB (MOS)", "higher", ("pesq",)),
        Metric("pesq_nb", "PESQ-NB (MOS)", "higher", ("pesq",)),
        Metric("dnsmos", "DNSMOS overall (MOS)", "higher", ("speechmos", "onnxruntime", "requests"), alone=True),
        Metric("dnsmos_p808", "DNSMOS P.808 (MOS)", "higher", ("speechmos", "onnxruntime", "requests"), alone=True),
        Metric("distillmos", "DistillMOS (MOS)", "higher", ("distillmos",), alone=True),
        Metric("speaker_similarity", "speaker similarity (cosine)", "higher", ("resemblyzer", "webrtcvad")),
        Metric("wer", "word error rate (English)", "lower", ("pocketsphinx", "jiwer"), alone=True),
        Metric("dwer", "word errors against the original's recognition (English)", "lower", ("pocketsphinx", "jiwer")),
    )
}
NO_PHASES = (
    "it compares waves sample by sample, which is meaningless after Griffin-Lim, because the phases are not those of the original"
)
GROUPS = {"all": tuple(METRICS), "core": tuple(name for name, metric in METRICS.items() if not metric.packages)}


@dataclass(frozen=True)
class Choice:
    """names: of the metrics to compute; absent: those that were asked for as part of a group but cannot be, and why."""

    names: tuple[str, ...]
    absent: dict[str, str]


def choose(words: str, keeps_phases: bool = True) -> Choice:
    """What ``all``, ``core`` or names between commas mean here; a name may stand beside a group.

    Args:
        keeps_phases: whether the vocoder does. If not, groups leave out what compares phases.

    Raises:
        MelcodecError: no such metric, or one was named whose package is missing.
    """
    named = [word.strip() for word in words.split(",") if word.strip()]
    unknown = [word for word in named if word not in METRICS and word not in GROUPS]
    if unknown or not named:
        raise MelcodecError(
            f"--metrics {words}: no metric '{unknown[0] if unknown else ''}'",
            f"use {', '.join(GROUPS)}, or some of {', '.join(METRICS)}",
        )
    wanted = {name for word in named for name in GROUPS.get(word, (word,))}
    missing = {name: error for name in METRICS if name in wanted and (error := missing_package(name))}
    for name in named:
        if name in missing:
            raise MelcodecError(f"--metrics {name}: {missing[name].message}", missing[name].hint)
    absent = {name: f"it {error.message}: {error.hint}" for name, error in missing.items()}
    if not keeps_phases:
        absent |= {name: NO_PHASES for name in METRICS if METRICS[name].phases and name in wanted and name not in named}
    return Choice(tuple(name for name in METRICS if name in wanted and name not in absent), absent)


def missing_package(name: str) -> MelcodecError | None:
    """Why the metric ``name`` cannot be computed on this machine; None when it can. It imports the packages to know."""
    for package in METRICS[name].packages:
        try:
            optional(package)
        except MelcodecError as error:
            return error
    return None


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the packages behind the metrics ``names``: scores belong to them."""
    found = {}
    for package in sorted({package for name in names for package in METRICS[name].packages}):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # importable, but not from a distribution of that name
            found[package] = "unknown"
    return found
