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

import pytest

from melcodec.corpus.driver import Job, Listener, preprocess
from melcodec.corpus.plan import read_plan
from melcodec.corpus.retry import RETRY, begin_retry, end_retry
from melcodec.formats.store import marker_path
from melcodec.manifests.build import find_utterances

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
    job = Job(str(tiny_checkpoint), device="cpu", workers=1, unit_size=2)
    folder = tmp_path_factory.mktemp("stores")
    spoil(sound)
    assert preprocess(find_utterances([sound]), folder / "failed", job, Listener(print)).failed == {"unreadable": 3}
    for name in CURED:
        shutil.copy(corpus / name, sound / name)
    assert preprocess(find_utterances([sound]), folder / "fresh", job, Listener(print)).failed == {"unreadable": 1}
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
    job = Job(str(tiny_checkpoint), device="cpu", workers=1, unit_size=2, attempts=1)
    return lambda **changes: preprocess(find_utterances([sound]), folder, replace(job, **changes), Listener(said.append))


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
    assert times(folder) == stamps
    summary = run(retry_failed=True)
    assert (summary.ok, summary.failed, summary.missing) == (17, {"unreadable": 1}, 0)
    assert said == ["3 units that hold failures: done again"]
    assert changed(stamps, times(folder)) == {"0000-00000", "0000-00002", "0000-00008"}
    assert files(folder) == files(stores[1])  # failures.jsonl and summary.json, too
    said.clear()
    stamps = times(folder)
    assert run(retry_failed=True) == summary
    assert said == ["1 unit that holds failures: done again"]
    assert changed(stamps, times(folder)) == {"0000-00000"}


def test_killed_while_markers_are_taken_away(run, folder, stores):
    """Before the note of it is there, that is: then any command makes the store whole."""
    marker_path(folder / "parts/0000-00000.parquet").unlink()
    run()
    assert files(folder) == files(stores[0])


def test_what_is_under_way_is_not_begun_again(folder, stores):
    segments = read_plan(folder)
    assert begin_retry(folder, segments) == ["0000-00000", "0000-00002", "0000-00008"]
    shutil.copy(marker_path(stores[0] / "parts/0000-00000.parquet"), folder / "parts")  # done, and failed again
    assert begin_retry(folder, segments) == []
    end_retry(folder)
    assert begin_retry(folder, segments) == ["0000-00000"]


def test_damaged_markers_are_not_its_business(folder):
    marker_path(folder / "parts/0000-00000.parquet").write_text("{")
    assert begin_retry(folder, read_plan(folder)) == ["0000-00002", "0000-00008"]


def test_killed_meanwhile_the_same_command_goes_on(run, cure, corpus, folder, sound, stores, tiny_checkpoint):
    """What it did again, and failed again, is not done a third time: or a retry longer than a job would never end."""
    cure()
    (sound / CURED[1]).unlink()
    os.mkfifo(sound / CURED[1])  # keeps its worker waiting, so that there is a meanwhile
    command = "import sys; from melcodec.cli.main import main; sys.argv[0] = 'melcodec'; main()"
    words = ["preprocess", str(sound), "-o", str(folder), "-c", str(tiny_checkpoint), "--device", "cpu", "--workers", "1"]
    before = times(folder)
    with subprocess.Popen([sys.executable, "-c", command, *words, "--retry-failed"], stderr=subprocess.PIPE) as job:
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
