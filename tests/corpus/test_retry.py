"""Failures once more: what was cured gets its codes, as a fresh run would give them, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from melcodec.corpus.driver import Callbacks, PreprocessSettings, preprocess
from melcodec.corpus.quarantine import UnitProgress
from melcodec.errors import MelcodecError
from melcodec.manifests.build import find_utterances
from melcodec.store.layout import marker_path, read_spec
from melcodec.store.parquet import Row, read_rows, write_part
from melcodec.store.plan import read_plan
from melcodec.store.retry import RETRY, begin_retry, end_retry, known_rows, resume_retry
from tests import forked

# nine units of two files each; these lie in 2, 8 and 0
CURED, INCURABLE = ("speaker 1/ütt10.wav", "speaker 2/ütt23.flac"), "speaker 0/ütt03.flac"


@pytest.fixture(scope="module")
def sound(corpus, tmp_path_factory) -> Path:
    """18 files; what is wrong with them changes with every test."""
    folder = tmp_path_factory.mktemp("cures") / "sound"
    left_out = ("ütt00", "ütt09", "ütt12", "ütt15", "ütt18", "ütt21")
    shutil.copytree(corpus, folder, ignore=lambda _, names: [name for name in names if name.startswith(left_out)])
    return folder


def spoil(sound: Path) -> None:
    for name in (*CURED, INCURABLE):
        (sound / name).unlink()
        (sound / name).write_text("this is not sound")


@pytest.fixture
def cure(corpus, sound):
    """Put the sound there that should have been there; but one stays as it is."""

    def run() -> None:
        for name in CURED:
            (sound / name).unlink()
            shutil.copy(corpus / name, sound / name)

    return run


@pytest.fixture(scope="module")
def stores(corpus, sound, tiny_checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """What becomes of the spoilt files, and of the cured ones in a fresh run. Not to be changed."""
    job = PreprocessSettings(str(tiny_checkpoint), device="cpu", workers=1, unit_size=2)
    folder = tmp_path_factory.mktemp("stores")
    spoil(sound)
    assert preprocess(find_utterances([sound]), folder / "failed", job, Callbacks(print)).failed == {"unreadable": 3}
    for name in CURED:
        shutil.copy(corpus / name, sound / name)
    assert preprocess(find_utterances([sound]), folder / "fresh", job, Callbacks(print)).failed == {"unreadable": 1}
    return folder / "failed", folder / "fresh"


@pytest.fixture
def folder(stores, sound, tmp_path) -> Path:
    """The store of the spoilt files, which are spoilt again."""
    spoil(sound)
    return shutil.copytree(stores[0], tmp_path / "codes")


@pytest.fixture
def said():
    return []


@pytest.fixture
def run(tiny_checkpoint, folder, sound, said):
    """run(**job) -> summary of ``folder``."""
    job = PreprocessSettings(str(tiny_checkpoint), device="cpu", workers=1, unit_size=2, attempts=1)
    return lambda **changes: preprocess(find_utterances([sound]), folder, replace(job, **changes), Callbacks(said.append))


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a store, the lock apart, and how long the plan took the files for when they were spoilt."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    facts = json.loads(found.pop("segments/0000/plan.json"))
    found.pop(".lock", None)
    return found | {"plan's hash": facts["hash"].encode()}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name.partition(".")[0] for name in {**before, **after} if before.get(name) != after.get(name)}


def test_what_was_cured_gets_codes_and_nothing_else_is_touched(run, cure, said, folder, stores):
    stamps = times(folder)
    cure()
    assert run().ok == 15  # without being asked, nothing is done again
    assert said.pop().startswith("note: 3 files have changed since they were encoded, such as ")
    assert times(folder) == stamps
    summary = run(retry_failed=True)
    assert (summary.ok, summary.failed, summary.missing) == (17, {"unreadable": 1}, 0)
    assert said == ["3 units that hold failures will be done again"]
    assert changed(stamps, times(folder)) == {"0000-00000", "0000-00002", "0000-00008"}
    assert files(folder) == files(stores[1])  # failures.jsonl and summary.json, too
    said.clear()
    stamps = times(folder)
    assert run(retry_failed=True) == summary
    assert said == ["1 unit that holds failures will be done again"]
    assert changed(stamps, times(folder)) == {"0000-00000"}


@pytest.fixture
def away(run, sound, monkeypatch):
    """Nothing of ``sound`` is within reach, though it is still listed."""
    listed = find_utterances([sound])
    monkeypatch.setattr(sys.modules[__name__], "find_utterances", lambda _: listed)
    hidden = sound.rename(sound.with_name("hidden"))
    yield
    shutil.rmtree(sound, ignore_errors=True)
    hidden.rename(sound)


def with_codes(folder: Path) -> dict[str, list[int]]:
    rows = [row for part in sorted((folder / "parts").glob("*.parquet")) for row in read_rows(part)]
    return {row.id: row.codes[0].tolist() for row in rows if row.codes is not None}


def flip(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["embedded", "ray"])
def test_what_has_codes_keeps_them_when_its_sound_is_out_of_reach(engine, run, away, corpus, sound, folder, stores):
    if engine == "ray":
        pytest.importorskip("ray")
    before = with_codes(folder)
    (sound / CURED[0]).parent.mkdir(parents=True)
    shutil.copy(corpus / CURED[0], sound / CURED[0])
    summary = run(retry_failed=True, engine=engine, address="local")
    assert (summary.ok, summary.failed, summary.missing) == (16, {"unreadable": 2}, 0)
    assert before.items() <= with_codes(folder).items()
    cured = "parts/0000-00002.parquet"
    assert (folder / cured).read_bytes() == (stores[1] / cured).read_bytes()


def test_killed_meanwhile_any_command_keeps_what_has_codes(run, away, said, folder):
    begin_retry(folder, read_plan(folder))
    before = with_codes(folder)
    assert (run().ok, said) == (15, ["resuming the retry that was started before"])
    assert with_codes(folder) == before
    assert not (folder / RETRY).exists()


@pytest.mark.slow
def test_what_kills_its_worker_now_takes_nothing_with_it(run, away, sound, folder, landmine):
    before = with_codes(folder)
    (sound / INCURABLE).parent.mkdir(parents=True)
    with landmine(sound / INCURABLE):
        summary = run(retry_failed=True)
    assert (summary.ok, summary.failed, summary.missing) == (15, {"crash": 1, "unreadable": 2}, 0)
    assert with_codes(folder) == before


def test_pieces_and_further_attempts_touch_only_error_rows_too(folder):
    unit = read_plan(folder)[0].unit(0)
    for again in (True, False):
        case = UnitProgress(unit, 60.0, attempts=2, again=again)
        tasks = [case.first(), *case.lost(case.first(), "crash", ""), *case.lost(case.first(), "crash", "")]
        assert [(task.probe, task.again) for task in tasks] == [(False, again), (False, again), (True, again), (True, again)]


@pytest.mark.slow
def test_of_a_damaged_part_nothing_is_kept(run, away, said, folder):
    """What still can be read of it, too, would be committed as whole."""
    flip(folder / "parts/0000-00000.parquet")
    assert (run(retry_failed=True).ok, with_codes(folder).keys() & {"speaker 0/ütt06"}) == (14, set())
    part = folder / "parts/0000-00002.parquet"
    begin_retry(folder, read_plan(folder))
    shutil.copy(marker_path(folder / "parts/0000-00001.parquet"), marker_path(part))  # as if redone
    assert run().ok == 13
    assert [line.partition(": ")[2] for line in said if "done again" in line and "parts" in line] == [
        "is not what its marker says; the unit will be done again",
        "belongs to another plan; the unit will be done again",
    ]


def test_known_rows(folder, tmp_path):
    part, spec, unit = folder / "parts/0000-00000.parquet", read_spec(folder), read_plan(folder)[0].unit(0)
    good = {row.id: row for row in read_rows(part) if row.codes is not None}
    assert len(good) == 1
    assert [vars(row) | {"codes": None} for row in known_rows(folder, unit, spec).values()] == [
        vars(row) | {"codes": None} for row in good.values()
    ]
    for utterance in unit.utterances:  # pieces
        assert list(known_rows(folder, replace(unit, utterances=(utterance,)), spec)) == [utterance.id] * (utterance.id in good)
    assert known_rows(folder, unit, spec | {"fingerprint": "other"}) == {}
    flip(part)
    assert known_rows(folder, unit, spec) == {}
    odd = replace(unit.utterances[0], id="caf\udce9")
    write_part(part, [Row(odd.id, np.zeros((1, 2), np.uint16), 2000)], spec)
    assert known_rows(folder, replace(unit, utterances=(odd,)), spec)[odd.id].id == odd.id
    part.unlink()
    assert known_rows(folder, unit, spec) == {}


def test_where_nothing_failed_nothing_is_opened(run, cure, said, corpus, folder, sound):
    cure()
    (sound / INCURABLE).unlink()
    shutil.copy(corpus / INCURABLE, sound / INCURABLE)
    assert run(retry_failed=True).failed == {}
    said.clear()
    stamps = times(folder)
    run(retry_failed=True)
    assert said == ["nothing failed before: there is nothing to try again"]
    assert times(folder) == stamps


def test_killed_before_the_list_is_there(run, folder, stores):
    marker_path(folder / "parts/0000-00000.parquet").unlink()
    run()
    assert files(folder) == files(stores[0])


def test_what_is_under_way_is_not_begun_again(run, said, folder, stores):
    """Nor what is done and failed again as before: its marker is the same, but not of the same time."""
    markers = [f"parts/0000-0000{number}.done.json" for number in (0, 2, 8)]
    assert begin_retry(folder, read_plan(folder)) == ["0000-00000", "0000-00002", "0000-00008"]
    assert not any((folder / marker).exists() for marker in markers)
    shutil.copy(stores[0] / markers[0], folder / "parts")  # done
    shutil.copy2(stores[0] / markers[1], folder / "parts")  # not gone after all, after a power cut
    assert resume_retry(folder) == {"0000-00000", "0000-00002", "0000-00008"}
    assert [(folder / marker).exists() for marker in markers] == [True, False, False]
    stamps = times(folder)
    run(retry_failed=True)
    assert said == ["resuming the retry that was started before; run it once more for what failed since"]
    assert changed(stamps, times(folder)) == {"0000-00002", "0000-00008"}
    assert resume_retry(folder) == set()
    assert begin_retry(folder, read_plan(folder)) == ["0000-00000", "0000-00002", "0000-00008"]


def test_a_unit_that_was_given_up_stays_listed(folder, stores):
    """Or its rows with codes would be made anew by the next command."""
    opened = begin_retry(folder, read_plan(folder))
    for name in opened:
        end_retry(folder)
        assert (folder / RETRY).exists()
        shutil.copy(stores[0] / f"parts/{name}.done.json", folder / "parts")
    end_retry(folder)
    assert not (folder / RETRY).exists()


def test_the_list_is_written_before_the_first_marker_goes(folder, monkeypatch):
    """Killed there, all is gone on with."""
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".done.json"):
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            begin_retry(folder, read_plan(folder))
    opened = resume_retry(folder)
    assert opened == {"0000-00000", "0000-00002", "0000-00008"}
    assert not any((folder / f"parts/{name}.done.json").exists() for name in opened)


@pytest.mark.parametrize("content", ["{", "{}", '{"units": ["0000-00000"]}'])
def test_a_list_that_is_damaged_is_refused(run, folder, content):
    (folder / RETRY).write_text(content)
    with pytest.raises(MelcodecError, match=r"retry\.json: damaged") as caught:
        run()
    assert "remove retry.json" in caught.value.hint


def test_damaged_markers_are_not_its_business(folder):
    marker_path(folder / "parts/0000-00000.parquet").write_text("{")
    assert begin_retry(folder, read_plan(folder)) == ["0000-00002", "0000-00008"]


@pytest.mark.slow
def test_killed_meanwhile_the_same_command_goes_on(run, cure, corpus, folder, sound, stores, tiny_checkpoint):
    """What it did again, and failed again, is not done a third time: or a retry longer than a job would never end."""
    cure()
    (sound / CURED[1]).unlink()
    os.mkfifo(sound / CURED[1])  # keeps its worker waiting, so that there is a meanwhile
    command = "import sys; from melcodec.cli.main import main; sys.argv[0] = 'melcodec'; main()"
    words = ["preprocess", str(sound), "-o", str(folder), "-c", str(tiny_checkpoint), "--device", "cpu", "--num-workers", "1"]
    before = times(folder)
    with forked.Popen([sys.executable, "-c", command, *words, "--retry-failed"], stderr=subprocess.PIPE) as job:
        redone = [marker_path(folder / f"parts/0000-0000{unit}.parquet") for unit in (0, 2)]
        while job.poll() is None and not all(path.exists() and path.stat().st_mtime_ns > before[path.name] for path in redone):
            time.sleep(0.005)
        os.kill(job.pid, signal.SIGKILL)
        job.communicate()
    assert job.returncode == -signal.SIGKILL
    assert (folder / RETRY).is_file()
    stamps = times(folder)
    assert "0000-00008.done.json" not in stamps
    (sound / CURED[1]).unlink()
    shutil.copy(corpus / CURED[1], sound / CURED[1])
    run(retry_failed=True)
    assert changed(stamps, times(folder)) == {"0000-00008"}
    assert files(folder) == files(stores[1])
