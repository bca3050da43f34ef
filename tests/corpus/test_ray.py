"""The same job on Ray: the same bytes, also when a node dies; and what kills or hangs its actor is found there too."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from melcodec.corpus.driver import Callbacks, PreprocessSettings, preprocess
from melcodec.corpus.ray_executor import _too_many, check_cluster
from melcodec.errors import MelcodecError

pytest.importorskip("ray")

SCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from melcodec.corpus.driver import PreprocessSettings, Callbacks, preprocess
from melcodec.manifests.build import find_utterances

how, sources, folder, options = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
said = []
nodes = []

def progress(now):
    if nodes and now.units >= 2:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        said.append("a node is killed")

if how == "cluster":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    nodes.append(cluster.add_node(num_cpus=2))
    cluster.wait_for_nodes()
    options["address"] = cluster.address
settings = PreprocessSettings(engine="ray", **options)
summary = preprocess(find_utterances([sources]), folder, settings, Callbacks(said.append, progress))
print(json.dumps({"summary": asdict(summary), "said": said, "running": ray.is_initialized()}))
if how == "cluster":
    cluster.shutdown()
"""


@pytest.fixture
def on_ray(tiny_checkpoint):
    def run(how: str, sources: Path, folder: Path, **options: object) -> dict:
        options = {"checkpoint": str(tiny_checkpoint), "device": "cpu", "unit_size": 2, **options}
        command = [sys.executable, "-c", SCRIPT, how, str(sources), str(folder), json.dumps(options)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "parts").iterdir()}


@pytest.mark.slow
def test_a_node_dies_and_the_bytes_are_those_of_one_machine(on_ray, corpus, utterances, tiny_checkpoint, tmp_path):
    job = PreprocessSettings(str(tiny_checkpoint), device="cpu", workers=1, unit_size=2)
    preprocess(utterances(corpus), tmp_path / "embedded", job, Callbacks(print))
    for attempt in range(3):  # until it was at work when it died: on a busy machine its worker may not have begun
        ended = on_ray("cluster", corpus, tmp_path / f"ray{attempt}")
        assert ended["summary"]["ok"] == 24
        assert parts(tmp_path / f"ray{attempt}") == parts(tmp_path / "embedded")
        killed = ended["said"].index("a node is killed")
        if any("its process or its node died" in line for line in ended["said"][killed:]):
            return
    pytest.fail("the node that was killed never had work")


@pytest.mark.slow
def test_what_kills_or_hangs_is_found(on_ray, corpus, tmp_path, landmine):
    folder = tmp_path / "sound"
    shutil.copytree(corpus / "speaker 0", folder)
    os.mkfifo(folder / "hangs.wav")
    with landmine(folder / "mine.wav"):
        names = sorted(path.name for path in folder.iterdir())  # from a list, because folders are not searched for pipes
        (folder / "list.jsonl").write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
        sources = folder / "list.jsonl"
        ended = on_ray("local", sources, tmp_path / "codes", address="local", workers=99, unit_timeout=5.0, attempts=1)
    cores = len(os.sched_getaffinity(0))
    assert ended["said"][0].startswith(f"99 workers do not fit: the cluster has {cores} core")
    assert ended["summary"]["failed"] == {"crash": 1, "timeout": 1}
    assert (ended["summary"]["ok"], ended["summary"]["missing"]) == (8, 0)
    assert not ended["running"]
    errors = [example for examples in ended["summary"]["examples"].values() for example in examples]
    assert errors == [
        f"{folder}/mine.wav: killed its worker (its process or its node died)",
        f"{folder}/hangs.wav: took longer than 5 s",
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "[::1]:{port}", "no.such.host.invalid:6379"])
def test_nobody_at_an_address_is_said_soon_and_no_folder_is_left(corpus, utterances, tiny_checkpoint, tmp_path, address):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # bound, and nobody listens
        job = PreprocessSettings(str(tiny_checkpoint), engine="ray", address=address.format(port=port))
        started = time.monotonic()
        with pytest.raises(MelcodecError, match="no Ray cluster is there") as caught:
            preprocess(utterances(corpus), tmp_path / "codes", job, Callbacks(print))
    assert time.monotonic() - started < 15
    assert caught.value.message.startswith(f"--address {job.address}: ")
    assert caught.value.hint
    assert not (tmp_path / "codes").exists()


def test_somebody_at_an_address_is_left_to_ray():
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_cluster(f"127.0.0.1:{server.getsockname()[1]}")
    for name in ("auto", "local"):
        check_cluster(name)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((2, 1, 2, False), "2 workers do not fit: the cluster has 2 cores, of which Ray itself needs one; 1 is used"),
        ((9, 7, 8, False), "9 workers do not fit: the cluster has 8 cores, of which Ray itself needs one; 7 are used"),
        ((2, 1, 1, False), "2 workers do not fit: the cluster has 1 core, of which Ray itself needs one; 1 is used"),
        ((3, 2, 8, True), "3 workers do not fit: the cluster has 1 GPU, for two workers each; 2 are used"),
        ((9, 8, 8, True), "9 workers do not fit: the cluster has 4 GPUs, for two workers each; 8 are used"),
    ],
)
def test_more_workers_than_fit(counts, words):
    assert _too_many(*counts) == words
