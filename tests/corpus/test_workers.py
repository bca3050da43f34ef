"""Workers as processes: they work, die, hang, are replaced, and never outlive the driver."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from melcodec.codec import Codec
from melcodec.corpus.quarantine import UnitProgress
from melcodec.corpus.reading import Rules
from melcodec.corpus.spec import run_spec
from melcodec.corpus.tasks import Setup, UnitTask, start_worker
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import load_checkpoint
from melcodec.manifests.base import Utterance
from melcodec.processes import Finished, Lost, Pool, Reported
from melcodec.store import plan
from melcodec.store.layout import part_path
from melcodec.store.parquet import read_part
from tests import forked

PATIENCE = 120.0


@pytest.fixture
def setup(tiny_checkpoint, tmp_path) -> Setup:
    codec = Codec.from_pretrained(tiny_checkpoint, "cpu")
    spec = run_spec(codec, load_checkpoint(tiny_checkpoint).config.mel, "tiny", Rules())
    return Setup(str(tiny_checkpoint), "cpu", 1, str(tmp_path / "codes"), spec)


@pytest.fixture
def start(setup):
    """start(count) -> an executor, closed at the end."""
    started = []

    def begin(count=1, setup=setup):
        started.append(Pool(start_worker, [setup] * count))
        return started[-1]

    yield begin
    for executor in started:
        executor.close()
        assert not any(worker.process.is_alive() for worker in executor.workers)


def unit_of(utterances, number=0) -> plan.Unit:
    return plan.Unit(0, number, "hash", 1.0, tuple(utterances))


def until_idle(executor, count=1):
    wait_for(lambda: executor.poll(0.1) is not None and executor.idle() == count)


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def events(executor, count=1):
    """The next so many events that are more than progress."""
    found = []
    wait_for(lambda: found.extend(e for e in executor.poll(0.1) if not isinstance(e, Reported)) or len(found) >= count)
    return found


def test_work_death_and_hanging(start, setup, corpus, utterances, tmp_path):
    """One executor for the whole story: processes are slow to start."""
    executor = start(2)
    assert executor.idle() == 0  # they have only begun
    until_idle(executor, 2)
    listed = utterances(corpus)

    first, second = UnitTask(unit_of(listed[:12], 0), 60.0), UnitTask(unit_of(listed[12:], 1), 60.0)
    executor.submit(first)
    executor.submit(second)
    assert executor.idle() == 0
    done = {event.task.unit.number: event for event in events(executor, 2)}
    assert {event.worker for event in done.values()} == {0, 1}  # each did one
    for task in (first, second):
        event = done[task.unit.number]
        assert isinstance(event, Finished)
        table = read_part(part_path(Path(setup.folder), 0, task.unit.number))
        assert table.column("id").to_pylist() == [utterance.id for utterance in task.unit.utterances]
        assert event.result.rows == event.result.ok == 12

    # a probe writes nothing
    executor.submit(UnitTask(unit_of(listed[:2], 2), 60.0, probe=True))
    (event,) = events(executor)
    assert isinstance(event, Finished)
    assert event.result is None
    assert not part_path(Path(setup.folder), 0, 2).exists()

    # one hangs, is killed in time, and is replaced; the other one is killed while it waits, and is replaced as well
    os.mkfifo(tmp_path / "hangs.wav")
    before = [worker.process.pid for worker in executor.workers]
    hanging = UnitTask(unit_of([Utterance("hangs", str(tmp_path / "hangs.wav"))], 3), 1.0)
    executor.submit(hanging, hanging.timeout)
    busy = next(worker.number for worker in executor.workers if worker.tasks)
    os.kill(before[1 - busy], signal.SIGKILL)
    started = time.monotonic()
    (event,) = events(executor)
    assert replace(event, number=0) == Lost(busy, hanging, "timeout", "took longer than 1 s")
    assert 1.0 <= time.monotonic() - started < 30.0
    until_idle(executor, 2)
    assert not set(before) & {worker.process.pid for worker in executor.workers}
    executor.submit(first)
    assert isinstance(events(executor)[0], Finished)

    # what no other worker could do either, a full disk or the like, ends the run
    shutil.rmtree(Path(setup.folder) / "parts")
    (Path(setup.folder) / "parts").write_text("in the way")
    executor.submit(first)
    with pytest.raises(MelcodecError, match="parts"):
        events(executor)


def test_a_worker_that_is_killed_takes_only_its_task(start, utterances, corpus, tmp_path, landmine):
    executor = start()
    until_idle(executor)
    with landmine(tmp_path / "mine.wav"):
        task = UnitProgress(unit_of([*utterances(corpus)[:2], Utterance("mine", str(tmp_path / "mine.wav"))]), 60.0).first()
        executor.submit(task)
        assert events(executor) == [Lost(0, task, "crash", "killed its worker (SIGKILL)")]
    until_idle(executor)


def test_what_no_worker_can_mend_is_the_users(start, setup):
    executor = start(1, replace(setup, spec=setup.spec | {"fingerprint": "other", "melcodec": "0.0.9"}))
    with pytest.raises(MelcodecError, match=r"melcodec was 0.0.9 and is .*; fingerprint was other and is"):
        until_idle(executor)


def test_workers_that_cannot_start_are_given_up(start, monkeypatch):
    monkeypatch.setenv("PYTHONMALLOC", "no such allocator")  # python itself will not start
    executor = start()
    with pytest.raises(MelcodecError, match="workers stop while they start") as caught:
        until_idle(executor)
    assert "try fewer workers" in caught.value.hint


DRIVER = """
import json, sys, time
from melcodec.store.plan import Unit
from melcodec.corpus.tasks import Setup, UnitTask, start_worker
from melcodec.manifests.base import Utterance
from melcodec.processes import Pool

if __name__ == "__main__":
    executor = Pool(start_worker, [Setup(**json.loads(sys.argv[1]))] * 2)
    while executor.idle() < 2:
        executor.poll(0.1)
    executor.submit(UnitTask(Unit(0, 0, "", 0.0, (Utterance("hangs", sys.argv[2]),)), 600.0))  # one is busy, the other waits
    print(*(worker.process.pid for worker in executor.workers), flush=True)
    time.sleep(600)
"""


def test_no_worker_outlives_a_killed_driver(setup, tmp_path):
    os.mkfifo(tmp_path / "hangs.wav")
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), json.dumps(asdict(setup)), str(tmp_path / "hangs.wav")]
    with forked.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        workers = [int(word) for word in driver.stdout.readline().split()]
        assert len(workers) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in workers)
        driver.kill()
    wait_for(lambda: not any(alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_threads_are_what_is_asked_for(setup, run_python):
    script = """if True:
        import json, os, sys, torch
        from melcodec.corpus.tasks import Setup, Worker
        for threads in (1, 3, 99):
            worker = Worker(Setup(**json.loads(sys.argv[1]) | {"threads": threads}))
            print(torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], worker.batching.readers)
    """
    assert run_python(script, json.dumps(asdict(setup))).splitlines() == ["1 1 2", "3 3 3", "99 99 16"]
