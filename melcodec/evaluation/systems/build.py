"""Which systems there are, in the order in which reports show them."""

from __future__ import annotations

from collections.abc import Iterable

from melcodec.codec import Codec
from melcodec.evaluation.systems.base import System, Tools
from melcodec.evaluation.systems.bypassed import Bypassed
from melcodec.evaluation.systems.codes import Codes
from melcodec.evaluation.systems.foreign import Codec2, Opus
from melcodec.evaluation.systems.kmeans import KMeans
from melcodec.evaluation.systems.untouched import Mel, Original

KINDS: tuple[type[System], ...] = (Codes, Bypassed, KMeans, Codec2, Opus, Mel, Original)
SYSTEMS = {kind.name: kind for kind in KINDS}
CODES, BYPASSED, KMEANS, MEL, ORIGINAL = (kind.name for kind in (Codes, Bypassed, KMeans, Mel, Original))


def plan_systems(codec: Codec, anchors: bool, train: bool) -> tuple[list[System], dict[str, str]]:
    """The systems to measure, and the ones that cannot be, with the reason.

    Args:
        anchors: measure more than the codes.
        train: there is speech to learn a k-means codebook from.
    """
    wanted = SYSTEMS if anchors else [CODES]
    absent = {name: reason for name in wanted if (reason := SYSTEMS[name].unavailable(codec, train))}
    return build_systems(Tools(codec), [name for name in wanted if name not in absent]), absent


def build_systems(tools: Tools, names: Iterable[str]) -> list[System]:
    """The systems called ``names``."""
    return [SYSTEMS[name](tools) for name in names]
