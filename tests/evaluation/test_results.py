from __future__ import annotations

import pytest

from melcodec.evaluation.results import Result, ResultFile
from melcodec.evaluation.scores import Scores


def result(key):
    scores = Scores({"mcd": 1.5}, {"wer": 3.0}, {"stoi": "because"}, 0.25)
    return Result(key, "a/0", "x/a/0.wav", 1.5, {"language": "en"}, [[1, 2, 2]], [0], {"codes": scores})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "report" / "results.jsonl"
    with ResultFile(path, fresh=False) as file:
        file.add(result("one"))
        file.add(result("two"))
    return path


def test_results_come_back_as_they_were(path):
    kept = ResultFile(path, fresh=False)
    assert kept.known == {"one": result("one"), "two": result("two")}


def test_more_can_be_added(path):
    with ResultFile(path, fresh=False) as file:
        file.add(result("three"))
    assert list(ResultFile(path, fresh=False).known) == ["one", "two", "three"]


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_last_line_is_dropped_and_the_next_one_stands_alone(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    with ResultFile(path, fresh=False) as file:
        assert list(file.known) == ["one"]
        file.add(result("three"))
    assert list(ResultFile(path, fresh=False).known) == ["one", "three"]


def test_lines_of_another_making_are_dropped(path):
    path.write_text(path.read_text() + '{"key": "old"}\n[]\nnonsense\n')
    assert list(ResultFile(path, fresh=False).known) == ["one", "two"]
    assert len(path.read_text().splitlines()) == 2


def test_fresh_forgets_everything(path):
    assert ResultFile(path, fresh=True).known == {}
    assert path.read_text() == ""
