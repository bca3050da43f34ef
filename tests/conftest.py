"""Shared fixtures: golden tensors of the reference, a tiny checkpoint, real speech, real processes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests import forked

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Before torch is imported: with several workers of pytest-xdist, more threads would stand in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# the workers of pytest-xdist ignore Ctrl-C, and every process that they start would, too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _isolated(tmp_path_factory):
    """No test touches the user's cache, and every child process finds this melcodec."""
    old = {key: os.environ.get(key) for key in ("MELCODEC_CACHE", "PYTHONPATH")}
    os.environ["MELCODEC_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [old["PYTHONPATH"]])])
    with forked.spawn_from_server():
        yield
    for key, value in old.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """tiny_dvae.pth, tiny_golden.npz and mel_stats.pth of the reference."""
    return GOLDEN


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """The golden arrays by name: ``0.wav``, ``0.mel``, ``0.latents``, ``0.codes``, ``0.decoded``, ... 2, ``train.*``."""
    with np.load(GOLDEN / "tiny_golden.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """The reference's tiny model (hidden 16, D 8, K 32) as a melcodec checkpoint, with its moving averages."""
    import torch

    from melcodec.config import ConvConfig, EMAConfig, ModelConfig
    from melcodec.formats.checkpoint import Checkpoint, save_checkpoint

    state = torch.load(GOLDEN / "tiny_dvae.pth", weights_only=True)
    norms = torch.load(GOLDEN / "mel_stats.pth", weights_only=True)
    tensors = {key: value for key, value in state.items() if not key.startswith("discrete_loss.")}
    config = ModelConfig(backbone=ConvConfig(hidden=16), quantizer=EMAConfig(codebook_size=32), dim=8)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, Checkpoint(config, tuple(norms.tolist()), tensors, {"source": "tests/golden/tiny_dvae.pth"}))
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint):
    """The reference's tiny model, built once: in eval mode and not to be changed."""
    from melcodec.formats.checkpoint import load_checkpoint

    return load_checkpoint(tiny_checkpoint).build().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_vocoder(tmp_path_factory) -> Path:
    """An untrained vocoder of two narrow blocks for the XTTS mel, whose head is not zero. Not to be changed."""
    import torch

    from melcodec.config import MelConfig, VocosConfig
    from melcodec.vocoder.file import VocoderCheckpoint, save_vocoder
    from melcodec.vocoder.network import VocosNetwork

    torch.manual_seed(0)
    config = VocosConfig(width=16, hidden=32, num_blocks=2, nmf_iterations=2)
    network = VocosNetwork(config, MelConfig())
    torch.nn.init.normal_(network.head.weight, std=0.1)
    path = tmp_path_factory.mktemp("vocoder") / "tiny-vocoder.safetensors"
    save_vocoder(path, VocoderCheckpoint(MelConfig(), config, network.state_dict(), {"source": "random"}))
    return path


@pytest.fixture(scope="session")
def examples() -> dict[str, Path]:
    """The clips of examples/ by name: lj_en, nathalie_nl, kerstin_de, kathleen_en_48k_stereo."""
    return {path.stem: path for path in sorted((ROOT / "examples").glob("*.flac"))}


@pytest.fixture(scope="session")
def speech_folder(golden, tmp_path_factory) -> Path:
    """Seven seconds of speech in six 22.05 kHz wav files: a/0.wav, a/1.wav, b/0.wav ... c/1.wav. Not to be changed."""
    import soundfile

    folder = tmp_path_factory.mktemp("speech")
    for index, name in enumerate("abc"):
        (folder / name).mkdir()
        for part, wav in enumerate(np.array_split(golden[f"{index}.wav"], 2)):
            soundfile.write(folder / name / f"{part}.wav", wav, 22_050, subtype="FLOAT")
    return folder


@pytest.fixture(scope="session")
def run_python():
    """Run ``python -W error -c script args...`` in a process of its own; returns its stdout, fails on another exit status."""

    def run(script: str, *args: object, env: dict[str, str] | None = None, status: int = 0) -> str:
        command = [sys.executable, "-W", "error", "-c", script, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | (env or {}), check=False)
        assert done.returncode == status, done.stderr
        return done.stdout

    return run


class Ran(NamedTuple):
    """What a process did."""

    status: int
    out: str
    err: str


@pytest.fixture
def bound_by_permissions(tmp_path):
    """Run python code in ``tmp_path`` as somebody whom permissions bind, also where the tests are run by root."""
    command = [sys.executable]
    if os.name == "nt":
        pytest.skip("permissions are others there")
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("setpriv (util-linux) is not installed: root may enter every folder")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]

    def run(script: str, *args: object) -> Ran:
        whole = [*command, "-c", script, *map(str, args)]
        done = subprocess.run(whole, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


def why_no_browser() -> str | None:
    """What is missing for the browser tests, with the line that installs it."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    if not any(map(shutil.which, BROWSERS)):
        return "no browser on this machine: apt-get install chromium"
    return None


@pytest.fixture(scope="session")
def launch():
    """launch("--argument") -> headless Chromium of the machine; skips where there is none. A process has one playwright."""
    if reason := why_no_browser():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        yield lambda *arguments: playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *arguments])


@pytest.fixture(scope="session")
def browser(launch):
    """A browser that plays sound without being asked."""
    chromium = launch("--autoplay-policy=no-user-gesture-required")
    yield chromium
    chromium.close()
