"""Which utterance is the bad one: every way in which a unit can kill its workers, played through."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from melcodec.corpus.quarantine import LEAST_SECONDS, UnitProgress
from melcodec.manifests.base import Utterance
from melcodec.store.plan import UNIT_SECONDS, Unit


def unit_of(count, seconds=5.0):
    utterances = tuple(Utterance(f"u{index}", f"/{index}.wav", duration=seconds) for index in range(count))
    return Unit(0, 17, "hash", count * seconds, utterances)


def play(case, dies, order=None):
    """Run the tasks of ``case`` until the whole is done or stuck; returns the last task and how many died."""
    waiting, died, last = [case.first()], 0, None
    while waiting:
        task = waiting.pop(order.randrange(len(waiting)) if order else 0)
        touched = [utterance for utterance in task.unit.utterances if utterance.id not in task.bad]
        if dies(task, {utterance.id for utterance in touched}):
            died += 1
            waiting += case.lost(task, "crash", "killed its worker (SIGKILL)")
        else:
            waiting += case.finished(task)
            last = task
            if not task.probe:
                assert not waiting
                return task, died
    assert case.stuck
    return last, died


def test_a_worker_lost_by_chance_changes_nothing():
    times = iter([True, True, True, False])
    task, died = play(UnitProgress(unit_of(9), 100.0), lambda task, ids: next(times))
    assert (task.unit, task.bad, task.gentle, died) == (unit_of(9), {}, False, 3)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 33])
@pytest.mark.parametrize("how_many", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_bad_ones_and_no_others_are_condemned(count, how_many, seed):
    chance = random.Random(seed)
    bad = {f"u{index}" for index in chance.sample(range(count), min(count, how_many))}
    case = UnitProgress(unit_of(count), 100.0)
    task, _ = play(case, lambda task, ids: bool(ids & bad), chance)
    assert set(task.bad) == bad
    assert task.unit == unit_of(count)  # the part is that of the whole unit
    assert not task.probe
    assert not task.gentle
    first = sorted(bad)[0]
    assert task.bad[first] == ("crash", f"/{first[1:]}.wav: killed its worker (SIGKILL)")


def test_a_bad_one_is_tried_so_often_as_is_said():
    for attempts in (1, 2, 4):
        _, died = play(UnitProgress(unit_of(8), 100.0, attempts), lambda task, ids: "u3" in ids)
        assert died == attempts + 2 + attempts  # the whole, its half and its quarter, it alone


def test_chance_does_not_condemn():
    """One probe of a single utterance may die with its machine; it must die ``attempts`` times."""
    alone = iter([True, True, True, False, *[False] * 99])

    def dies(task, ids):
        return not task.probe and task.tries < 4 if len(task.unit.utterances) > 1 else next(alone)

    task, _ = play(UnitProgress(unit_of(2), 100.0), dies)
    assert task.bad == {}


def test_too_much_at_once_is_done_one_at_a_time():
    case = UnitProgress(unit_of(8), 100.0)
    task, died = play(case, lambda task, ids: not task.gentle and len(ids) > 3)
    assert (task.gentle, task.bad, died) == (True, {}, 4 + 2)


def test_too_much_even_without_the_bad_one():
    case = UnitProgress(unit_of(8), 100.0)
    task, _ = play(case, lambda task, ids: "u3" in ids or (not task.gentle and len(ids) > 5))
    assert task.gentle
    assert set(task.bad) == {"u3"}


def test_what_dies_whatever_is_tried_is_stuck():
    case = UnitProgress(unit_of(8), 100.0)
    _, died = play(case, lambda task, ids: len(ids) > 3)
    assert case.stuck == "killed its worker (SIGKILL)"
    assert died == 3 * 4 + 2


def test_time_goes_with_the_sound():
    assert UnitProgress(unit_of(10), 100.0).first().timeout == 100.0
    long = replace(unit_of(2), seconds=3 * UNIT_SECONDS)
    assert UnitProgress(long, 100.0).first().timeout == 300.0
    case = UnitProgress(unit_of(10), 1000.0, attempts=1)
    halves = case.lost(case.first(), "timeout", "")
    assert [task.timeout for task in halves] == [500.0, 500.0]
    quarters = case.lost(halves[0], "timeout", "")
    assert [task.timeout for task in quarters] == [300.0, 200.0]
    case = UnitProgress(unit_of(1000), 60.0, attempts=1)
    assert case.lost(case.first(), "timeout", "")[0].timeout == LEAST_SECONDS
    case = UnitProgress(unit_of(10), 2.0, attempts=1)
    assert case.lost(case.first(), "timeout", "")[0].timeout == 2.0  # never more than for the whole
