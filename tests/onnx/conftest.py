"""A checkpoint exported once, and the page in a browser that uses it."""

from __future__ import annotations

import functools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import soundfile

from melcodec.audio.io import load
from tests.conftest import ROOT
from tests.onnx.browsing import Quiet, wait

MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


@pytest.fixture(scope="session")
def exported(tiny_checkpoint, tmp_path_factory) -> Path:
    """The tiny checkpoint as graphs. Not to be changed."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from melcodec.config import GriffinLimConfig
    from melcodec.formats.checkpoint import load_checkpoint
    from melcodec.onnx.export import export_onnx

    folder = tmp_path_factory.mktemp("onnx") / "tiny"
    export_onnx(load_checkpoint(tiny_checkpoint), GriffinLimConfig(iterations=4), folder)
    return folder


@pytest.fixture(scope="session")
def npm(tmp_path_factory) -> Path:
    """A folder with onnxruntime-web in its node_modules."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: apt-get install npm")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "onnxruntime-web"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-web: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture(scope="session")
def address(npm, exported, tmp_path_factory) -> Iterator[str]:
    """The page as docs/onnx.md sets it up, behind a server on this machine."""
    site = shutil.copytree(ROOT / "docs" / "browser", tmp_path_factory.mktemp("site"), dirs_exist_ok=True)
    shutil.copytree(exported, site / "model")
    (site / "node_modules").symlink_to(npm / "node_modules")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def page(launch, address, examples, tmp_path_factory):
    """The page, opened in a browser whose microphone hears lj_en."""
    heard = tmp_path_factory.mktemp("heard") / "heard.wav"
    soundfile.write(heard, load(examples["lj_en"], 48_000), 48_000, subtype="PCM_16")
    browser = launch(*MICROPHONE, f"--use-file-for-fake-audio-capture={heard}")
    opened = browser.new_page()
    complaints, requests = [], []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(address)
    wait(opened, "is ready")
    yield opened
    browser.close()
    assert complaints == []
    home = address.rpartition("/")[0]
    assert all(url.startswith((home, f"blob:{home}", "data:")) for url in requests)
