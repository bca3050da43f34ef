"""What a panel of listeners would say of a sound without hearing the original: DNSMOS and DistillMOS.

Both are small networks whose weights lie inside their wheels; they need ``melcodec[eval]`` and no network.
"""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from melcodec.errors import MelcodecError
from melcodec.metrics.optional import optional
from melcodec.metrics.waves import resample

RATE = 16_000  # Hz, of both networks
DNSMOS_WINDOW = int(9.01 * RATE)  # samples


class DNSMOS(NamedTuple):
    """overall: OVRL of P.835, the quality of the whole; p808: of P.808. Both 1 to 5."""

    overall: float
    p808: float


def dnsmos(wav: np.ndarray, rate: int) -> DNSMOS:
    """DNSMOS (Reddy et al. 2021 and 2022) of a wave (S,); ``rate`` in Hz.

    Windows of 9.01 s, one second apart, as in its authors' script. A shorter sound is repeated until it fills one window; the
    script doubles it and takes up to eight windows of the repetition, which costs that many times more and comes to the
    same: over 28 sounds the means differed by 0.001, single sounds by 0.03.

    Raises:
        MelcodecError: silence, or speechmos or onnxruntime is not installed.
    """
    network = _dnsmos()
    heard = np.clip(_audible(wav, rate), -1, 1)
    if len(heard) < DNSMOS_WINDOW:
        heard = np.tile(heard, -(-DNSMOS_WINDOW // len(heard)))[:DNSMOS_WINDOW]
    scores = network(heard, RATE, False)
    return DNSMOS(float(scores["ovrl_mos"]), float(scores["p808_mos"]))


def distillmos(wav: np.ndarray, rate: int) -> float:
    """DistillMOS (Stahl and Gamper 2025) of a wave (S,), 1 to 5; ``rate`` in Hz.

    Raises:
        MelcodecError: silence, or distillmos is not installed.
    """
    import torch

    network = _distillmos()
    with torch.inference_mode():
        return float(network(torch.from_numpy(_audible(wav, rate))[None])[0, 0])


def _audible(wav: np.ndarray, rate: int) -> np.ndarray:
    if not wav.any():
        raise MelcodecError("the output is silent: there is no quality to score")
    return resample(wav, rate, RATE)


@lru_cache(maxsize=1)
def _dnsmos() -> Any:
    runtime = optional("onnxruntime")
    package = optional("speechmos.dnsmos")
    weights = Path(package.__file__).parent / "dnsmos_models"
    paths = [str(weights / name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")]
    network = package.DNSMOS(*paths)
    # its own sessions take every core, while evaluation runs a process on each
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    network.onnx_sess, network.p808_onnx_sess = (runtime.InferenceSession(path, options) for path in paths)
    return network


@lru_cache(maxsize=1)
def _distillmos() -> Any:
    package = optional("distillmos")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are, and stdout is data
        return package.ConvTransformerSQAModel().eval()
