"""The pool of worker processes: tasks done in any order or in theirs, deaths, time limits, errors; nothing outlives it."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from melcodec.errors import MelcodecError
from melcodec.processes import Finished, Lost, Pool, Reported, run_all


def start(offset):
    """A worker that adds ``offset``, or does what a word asks for."""
    if offset is None:
        raise MelcodecError("cannot begin", "mend it", "missing")

    def do(task, report):
        word, value = task
        if word == "sleep":
            time.sleep(value)
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "die once" and not os.path.exists(value):  # noqa: PTH110
            open(value, "w").close()
            os._exit(3)
        elif word == "raise":
            raise value
        elif word == "report":
            for step in range(value):
                report(step)
                time.sleep(0.6)
        return (value + offset, os.getpid()) if isinstance(value, int) else value

    return do


@pytest.fixture
def pool():
    """pool(count, depth): workers that add 100, closed at the end."""
    opened = []

    def begin(count=2, depth=1, offset=100):
        opened.append(Pool(start, [offset] * count, depth))
        return opened[-1]

    yield begin
    for each in opened:
        each.close()
        assert not any(worker.process.is_alive() for worker in each.workers)


def test_in_order_or_as_they_are_done_and_never_too_many(pool):
    workers, taken = pool(2, depth=3), []
    tasks = [("sleep", 0.3), *(("add", index) for index in range(40))]
    done = []
    for event in run_all(workers, (taken.append(task) or task for task in tasks), ahead=5):
        done.append(event.task)
        assert len(taken) - len(done) < 5
    assert done == tasks
    events = list(run_all(workers, tasks))
    assert sorted(str(event.task) for event in events) == sorted(map(str, tasks))
    assert events[0].task != tasks[0]  # the slow one is not waited for
    results = [event.result for event in events if event.task[0] == "add"]
    assert sorted(value for value, _ in results) == list(range(100, 140))
    assert {pid for _, pid in results} == {worker.process.pid for worker in workers.workers}
    assert list(run_all(workers, [])) == list(run_all(workers, [], ahead=2)) == []


@pytest.mark.parametrize("depth", [1, 3])
def test_a_death_takes_one_task_and_the_others_are_done(pool, tmp_path, depth):
    workers = pool(1, depth)
    tasks = [("add", 1), ("die", 0), ("add", 2), ("die once", str(tmp_path / "mark")), ("add", 3)]
    events = list(run_all(workers, tasks, ahead=4))
    assert [event.task for event in events] == tasks
    assert [type(event) for event in events] == [Finished, Lost, Finished, Lost, Finished]
    assert (events[1].status, events[1].error) == ("crash", "killed its worker (SIGKILL)")
    assert events[3].error == "killed its worker (exit status 3)"
    assert [event.number for event in events] == list(range(5))


def test_what_takes_too_long_is_ended_and_time_runs_from_its_turn(pool):
    workers = pool(1, depth=2)
    while not workers.idle():
        workers.poll()
    workers.submit(("sleep", 1), 60.0)
    workers.submit(("sleep", 60), 0.5)  # waits for the first one, which is longer than it may take itself
    events = []
    while len(events) < 2:
        events += workers.poll()
    assert [type(event) for event in events] == [Finished, Lost]
    assert (events[1].status, events[1].error) == ("timeout", "took longer than 0.5 s")


def test_reports_on_the_way(pool):
    workers, events = pool(1), []
    while not workers.idle():
        workers.poll()
    workers.submit(("report", 3))
    while not events or not isinstance(events[-1], Finished):
        events += workers.poll()
    assert [event.report for event in events if isinstance(event, Reported)] == [0, 1, 2]


@pytest.mark.parametrize(
    "error", [MelcodecError("no disk", "get one", "unwritable"), OSError(errno.ENOSPC, "No space left on device")], ids=repr
)
def test_an_error_that_no_worker_can_mend_is_raised_as_it_is(pool, error):
    with pytest.raises(type(error)) as caught:
        list(run_all(pool(1), [("raise", error)]))
    assert (vars(caught.value), str(caught.value)) == (vars(error), str(error))


def test_another_exception_costs_a_worker_its_task(pool):
    lost, finished = run_all(pool(1), [("raise", ValueError("odd\nsecond line")), ("add", 1)])
    assert (lost.status, lost.error) == ("crash", "its worker failed: ValueError: odd")
    assert finished.result[0] == 101


def test_workers_that_cannot_start(pool, monkeypatch):
    with pytest.raises(MelcodecError, match="cannot begin"):
        list(run_all(pool(1, offset=None), [("add", 1)]))
    monkeypatch.setenv("PYTHONMALLOC", "no such allocator")  # python itself will not start
    with pytest.raises(MelcodecError, match="workers stop while they start") as caught:
        list(run_all(pool(2), [("add", 1)]))
    assert "if __name__ == '__main__':" in caught.value.hint


def test_closing_ends_what_is_under_way():
    with Pool(start, [0]) as workers:
        while not workers.idle():
            workers.poll()
        workers.submit(("sleep", 600))
        began = time.monotonic()
    assert time.monotonic() - began < 30
    assert not workers.workers[0].process.is_alive()
