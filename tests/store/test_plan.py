"""Plans: sorted, frozen, hashed, cut, extended, and refused when they were touched."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.store import plan


def listed(count: int, seconds: float | None = 5.0) -> list[Utterance]:
    return [Utterance(f"u{index:04d}", f"/data/{index}.wav", duration=seconds, text="wörter") for index in range(count)]


def planned(segments) -> list[list[str]]:
    return [[u.id for u in segment.unit(n).utterances] for segment in segments for n in range(len(segment.units))]


@pytest.fixture
def said():
    return []


@pytest.fixture
def extend(tmp_path, said):
    return lambda utterances, unit_size=2: plan.extend_plan(tmp_path, utterances, unit_size, said.append)


def test_sorted_whatever_the_order_they_come_in(extend, tmp_path):
    utterances = listed(5)
    (segment,) = extend([utterances[i] for i in (3, 0, 4, 1, 2)])
    assert planned([segment]) == [["u0000", "u0001"], ["u0002", "u0003"], ["u0004"]]
    assert segment.utterances == 5
    assert segment.unit(1).utterances == tuple(utterances[2:4])  # every field survives
    assert (segment.unit(1).segment, segment.unit(1).number, segment.unit(1).plan_hash) == (0, 1, segment.hash)
    assert json.loads((tmp_path / "segments/0000/plan.json").read_text())["utterances"] == 5


def test_the_hash_is_of_the_bytes(extend, tmp_path):
    import hashlib

    (segment,) = extend(listed(3))
    assert segment.hash == hashlib.sha256((tmp_path / "segments/0000/plan.jsonl").read_bytes()).hexdigest()


def test_the_same_again_changes_nothing(extend, tmp_path):
    before = extend(listed(5))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    assert extend(listed(5), unit_size=4) == before
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json*")} == files


def test_new_ones_are_a_new_segment_and_old_ones_stay(extend):
    extend(listed(3))
    new = [Utterance("a", "/data/a.wav"), Utterance("z", "/data/z.wav")]
    assert planned(extend([*listed(2), *new])) == [["u0000", "u0001"], ["u0002"], ["a", "z"]]
    assert planned(extend([new[0]])) == [["u0000", "u0001"], ["u0002"], ["a", "z"]]


@pytest.mark.parametrize(
    ("count", "unit_size", "sizes"),
    [(10, 3, [3, 3, 3, 1]), (220, 0, [100, 100, 20])],
)
def test_unit_size(tmp_path, count, unit_size, sizes):
    plan.write_segment(tmp_path / "segments/0000", listed(count), unit_size)
    (segment,) = plan.read_plan(tmp_path)
    assert [unit.count for unit in segment.units] == sizes
    assert [unit.seconds for unit in segment.units] == [5.0 * size for size in sizes]


@pytest.mark.parametrize(("count", "size"), [(1, 100), (6_401, 101), (12_800, 200), (64_000, 1000), (10**8, 1000)])
def test_small_corpora_are_cut_finer(count, size):
    assert plan.usual_size(count) == size


def test_units_hold_bounded_sound():
    lengths = [60, 60, 30, 500, 10, 90]
    utterances = [replace(u, duration=float(s)) for u, s in zip(listed(6), lengths, strict=True)]
    units = list(plan.cut(utterances, unit_seconds=120))
    assert [[int(u.duration) for u in unit] for unit, _ in units] == [[60, 60], [30], [500], [10, 90]]
    assert [seconds for _, seconds in units] == [120, 30, 500, 100]


def test_durations_are_guessed_from_sizes(tmp_path):
    for name in ("a.wav", "a.mp3"):
        (tmp_path / name).write_bytes(bytes(96_000))
    assert plan.estimated_seconds(Utterance("a", str(tmp_path / "a.wav"))) == 3.0
    assert plan.estimated_seconds(Utterance("a", str(tmp_path / "a.wav"), start=1.0)) == 2.0
    assert plan.estimated_seconds(Utterance("a", str(tmp_path / "a.mp3"))) == 16.0
    assert plan.estimated_seconds(Utterance("a", str(tmp_path / "gone.wav"))) == 0.0
    assert plan.estimated_seconds(Utterance("a", "s3://bucket/a.wav")) == plan.ASSUMED_SECONDS
    assert plan.estimated_seconds(Utterance("a", "/data/a.tar", member="a.wav")) == plan.ASSUMED_SECONDS


def test_paths_hold_from_everywhere(extend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (segment,) = extend([Utterance("a", "sound/a.wav"), Utterance("b", "https://example.org/b.wav")])
    paths = [utterance.path for utterance in segment.unit(0).utterances]
    assert paths == [str(tmp_path / "sound/a.wav"), "https://example.org/b.wav"]


def test_ups_in_a_path_are_walked(extend, tmp_path, monkeypatch, said):
    (tmp_path / "lists").mkdir()
    monkeypatch.chdir(tmp_path / "lists")
    (segment,) = extend([Utterance("a", "../rep/a.wav")])
    assert segment.unit(0).utterances[0].path == str(tmp_path / "rep/a.wav")
    assert planned(extend([Utterance("a", str(tmp_path / "rep/a.wav"))])) == [["a"]]
    assert planned(extend([Utterance("a", f"{tmp_path}/lists/../other/../rep/a.wav")])) == [["a"]]
    assert said == []


def test_a_plan_that_holds_ups_goes_on(extend, tmp_path, said):
    """As they were written once."""
    odd = Utterance("a", f"{tmp_path}/lists/../rep/a.wav")
    plan.write_segment(tmp_path / "segments/0000", [odd])
    assert planned(extend([odd, Utterance("b", "/b.wav")])) == [["a"], ["b"]]
    assert planned(extend([replace(odd, path=f"{tmp_path}/rep/a.wav")])) == [["a"], ["b"]]
    assert said == []


def test_an_up_behind_a_link_stays(extend, tmp_path):
    """It leads to the folder above the one that the link means."""
    (tmp_path / "far/lists").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "far/lists")
    (tmp_path / "far/a.wav").write_text("here")
    (segment,) = extend([Utterance("a", f"{tmp_path}/near/../a.wav"), Utterance("b", f"{tmp_path}/near/../near/b.wav")])
    first, second = segment.unit(0).utterances
    assert Path(first.path).read_text() == "here"
    assert second.path == f"{tmp_path}/near/../near/b.wav"  # far/near, which is not there
    (other,) = extend([Utterance("c", f"{tmp_path}/near/x/../b.wav")])[1:]
    assert other.unit(0).utterances[0].path == f"{tmp_path}/near/b.wav"  # links themselves stay


def test_names_that_are_no_unicode(extend):
    odd = Utterance("a", "/data/\udcff.wav")
    (segment,) = extend([odd])
    assert segment.unit(0).utterances == (odd,)


@pytest.mark.parametrize(
    "change",
    [{"path": "/other/0.wav"}, {"duration": 4.0}, {"start": 1.0}, {"member": "x.wav"}],
    ids=lambda change: next(iter(change)),
)
def test_an_id_that_means_other_sound_is_refused(extend, change):
    extend(listed(2))
    with pytest.raises(MelcodecError, match=r"'u0000' was /data/0.wav") as caught:
        extend([replace(listed(1)[0], **change)])
    assert caught.value.hint


def test_other_words_are_told_and_the_plan_stays(extend, said):
    before = extend(listed(2))
    assert extend([replace(listed(1)[0], text="other")]) == before
    assert said == ["1 utterances have another text, speaker, language or split than when planned; those of the plan are kept"]


def test_sound_that_is_planned_keeps_its_id(extend, said):
    """A folder calls a.flac ``a`` until a.wav is there, and a.wav ``a`` when a.flac has left."""
    flac, wav = Utterance("a", "/data/a.flac"), Utterance("a.wav", "/data/a.wav")
    extend([flac])
    assert planned(extend([replace(flac, id="a.flac"), wav])) == [["a"], ["a.wav"]]
    assert said == ["1 utterance is planned already under another id: 'a.flac' is 'a' there, and keeps that id"]
    said.clear()
    assert planned(extend([replace(wav, id="a")])) == [["a"], ["a.wav"]]
    assert said == ["1 utterance is planned already under another id: 'a' is 'a.wav' there, and keeps that id"]
    said.clear()
    assert planned(extend([replace(flac, id="x/a"), replace(wav, id="x/b")])) == [["a"], ["a.wav"]]
    assert said == ["2 utterances are planned already under another id: 'x/a' is 'a' there, and keeps that id"]


@pytest.mark.parametrize("change", [{"start": 1.0}, {"duration": 1.0}, {"member": "b"}, {"path": "/data/b.tar"}])
def test_other_sound_of_another_id_is_planned(extend, said, change):
    first = Utterance("a", "/data/a.tar", "a")
    extend([first])
    assert planned(extend([first, replace(first, id="b", **change)])) == [["a"], ["b"]]
    assert said == []


def test_two_ids_of_one_sound_stay_two(extend, said):
    pair = [Utterance(name, "/data/a.wav") for name in "ab"]
    assert planned(extend(pair)) == [["a", "b"]]
    assert planned(extend([replace(pair[0], text="hi"), pair[1]])) == [["a", "b"]]
    assert said == ["1 utterances have another text, speaker, language or split than when planned; those of the plan are kept"]


def test_a_store_does_not_depend_on_how_it_grew(extend, said):
    pair = [Utterance(name, "/data/a.wav", text=name) for name in "xy"]
    extend(pair[:1])
    assert planned(extend(pair)) == [["x"], ["y"]]  # as two rows at once
    assert planned(extend([*pair, Utterance("z", "/data/a.wav")])) == [["x"], ["y"], ["z"]]
    assert said == []


def test_a_planned_id_that_is_absent_stands_for_one(extend, said):
    extend([Utterance("x", "/data/a.wav", text="hi")])
    listed = [Utterance("y", "/data/a.wav"), Utterance("z", "/data/a.wav", text="hi")]
    assert planned(extend(listed)) == [["x"], ["y"]]
    assert said == ["1 utterance is planned already under another id: 'z' is 'x' there, and keeps that id"]
    said.clear()
    assert planned(extend(listed)) == [["x"], ["y"]]


def test_other_words_of_another_id_are_told(extend, said):
    extend([Utterance("x", "/data/a.wav", text="hi")])
    assert planned(extend([Utterance("y", "/data/a.wav", text="ho")])) == [["x"]]
    assert said == [
        "1 utterance is planned already under another id: 'y' is 'x' there, and keeps that id",
        "1 utterances have another text, speaker, language or split than when planned; those of the plan are kept",
    ]


def test_a_planned_id_goes_to_other_planned_sound(extend, said):
    flac, wav = Utterance("a", "/data/a.flac"), Utterance("a.wav", "/data/a.wav")
    extend([flac, wav])
    assert planned(extend([replace(wav, id="a"), replace(flac, id="a.flac"), Utterance("0", "/data/a.wav")])) == [
        ["a", "a.wav"],
        ["0"],
    ]
    assert said == ["2 utterances are planned already under another id: 'a' is 'a.wav' there, and keeps that id"]


def test_ids_that_are_swapped_are_refused(extend):
    first, second = Utterance("a", "/data/1.wav"), Utterance("b", "/data/2.wav")
    extend([first, second])
    with pytest.raises(MelcodecError, match=r"'a' was /data/1.wav and is now /data/2.wav; 'b' was /data/2.wav"):
        extend([replace(first, id="b"), replace(second, id="a")])


def test_an_id_twice_is_refused(extend):
    with pytest.raises(MelcodecError, match=r"'u0000' is the id of two utterances: /data/0.wav and /b.wav"):
        extend([*listed(1), Utterance("u0000", "/b.wav")])


def test_nothing_is_refused(extend):
    with pytest.raises(MelcodecError, match="nothing to encode"):
        extend([])


@pytest.mark.parametrize("damage", [lambda text: text.replace("5.0", "6.0", 1), lambda text: text[:-20], lambda text: ""])
def test_a_touched_plan_is_refused(extend, tmp_path, damage):
    extend(listed(3))
    path = tmp_path / "segments/0000/plan.jsonl"
    path.write_text(damage(path.read_text()))
    with pytest.raises(MelcodecError, match="the plan was changed or damaged") as caught:
        extend(listed(3))
    assert caught.value.hint == plan.RESTORE


def test_a_plan_that_is_gone_is_not_taken_for_the_next(extend, tmp_path):
    extend(listed(3))
    extend(listed(5))
    before = {path: path.read_bytes() for path in tmp_path.rglob("plan.json*")}
    (tmp_path / "segments/0000/plan.json").rename(tmp_path / "aside")
    with pytest.raises(MelcodecError, match=r"segments/0000/plan\.json: is gone") as caught:
        extend(listed(6))
    assert caught.value.hint == plan.RESTORE
    (tmp_path / "aside").rename(tmp_path / "segments/0000/plan.json")
    assert {path: path.read_bytes() for path in tmp_path.rglob("plan.json*")} == before
    (tmp_path / "segments/0000/plan.json").write_text("{")
    with pytest.raises(MelcodecError, match=r"segments/0000/plan\.json: damaged: not JSON") as caught:
        extend(listed(6))
    assert caught.value.hint == plan.RESTORE


def test_copies_that_somebody_left_are_no_segments(extend, tmp_path):
    before = extend(listed(3))
    for name in ("0000.bak", "0000 (copy)", "00000", "0001~"):
        shutil.copytree(tmp_path / "segments/0000", tmp_path / "segments" / name)
    assert plan.read_plan(tmp_path) == before
    assert planned(extend(listed(4)))[-1] == ["u0003"]
    (tmp_path / "segments/10000").mkdir()
    (tmp_path / "segments/9999").mkdir()
    assert [home.name for home in plan.segment_folders(tmp_path)] == ["0000", "0001", "9999", "10000"]


def test_a_plan_that_was_not_finished_is_written_anew(extend, tmp_path):
    whole = extend(listed(3))
    (tmp_path / "segments/0000/plan.json").unlink()  # as if killed just before
    assert extend(listed(3)) == whole
