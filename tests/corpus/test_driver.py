"""The whole job: nothing lost, nothing twice, the same bytes whoever is killed, and every refusal."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from melcodec.corpus import driver, spec
from melcodec.corpus.driver import Callbacks, PreprocessSettings, preprocess
from melcodec.corpus.reading import Rules
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.store import finalize
from melcodec.store.layout import marker_path
from melcodec.store.parquet import read_rows
from melcodec.store.plan import read_plan
from tests import forked


@pytest.fixture(scope="module")
def messy(corpus, tmp_path_factory):
    """The corpus and three files that are no use."""
    folder = tmp_path_factory.mktemp("messy")
    shutil.copytree(corpus, folder, dirs_exist_ok=True)
    (folder / "text.wav").write_text("this is not sound")
    (folder / "empty.flac").touch()
    (folder / "speaker 1/cut.flac").write_bytes((folder / "speaker 1/ütt07.flac").read_bytes()[:4000])
    return folder


@pytest.fixture
def job(tiny_checkpoint):
    return PreprocessSettings(str(tiny_checkpoint), device="cpu", workers=1, unit_size=2, attempts=1)


@pytest.fixture
def said():
    return []


@pytest.fixture
def run(job, said):
    """run(utterances, folder, **job) -> summary; what is said is in ``said``."""
    return lambda listed, folder, **changes: preprocess(listed, folder, replace(job, **changes), Callbacks(said.append))


@pytest.fixture(scope="module")
def undisturbed(messy, tiny_checkpoint, tmp_path_factory):
    """A store of ``messy`` in fourteen units, by two workers."""
    from melcodec.manifests.build import find_utterances

    folder = tmp_path_factory.mktemp("undisturbed") / "codes"
    summary = preprocess(
        find_utterances([messy]), folder, PreprocessSettings(str(tiny_checkpoint), device="cpu", workers=2, unit_size=2)
    )
    return folder, summary


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a store, the lock apart."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(".lock", None)
    return found


def copied(folder: Path, target: Path) -> Path:
    return shutil.copytree(folder, target, ignore=shutil.ignore_patterns(".lock"))


def ids(folder: Path) -> list[str]:
    return [row.id for path in sorted((folder / "parts").glob("*.parquet")) for row in read_rows(path)]


def test_every_id_once_and_a_summary_that_adds_up(undisturbed, messy, utterances):
    folder, summary = undisturbed
    assert ids(folder) == [utterance.id for utterance in utterances(messy)]
    assert (summary.utterances, summary.ok, summary.kept, summary.missing, summary.units) == (27, 24, 0, 0, 14)
    assert summary.failed == {"truncated": 1, "unreadable": 2}
    rows = [row for path in sorted((folder / "parts").glob("*.parquet")) for row in read_rows(path)]
    good = [row for row in rows if row.codes is not None]
    assert summary.codes == sum(row.codes.shape[1] for row in good)
    assert summary.seconds == pytest.approx(sum(row.duration for row in good), abs=1e-3)
    assert json.loads((folder / "summary.json").read_text()) == asdict(summary)
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    expected = [row for row in rows if row.codes is None]
    assert [line["id"] for line in failures] == [row.id for row in expected]
    assert [(line["status"], line["error"], line["source"]) for line in failures] == [
        (row.status, row.error, row.source) for row in expected
    ]


def test_one_worker_gives_the_same_bytes_and_a_second_run_changes_nothing(undisturbed, messy, utterances, run, said, tmp_path):
    run(utterances(messy), tmp_path / "codes")
    assert files(tmp_path / "codes") == files(undisturbed[0])
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "codes/parts").iterdir()}
    assert run(utterances(messy), tmp_path / "codes") == undisturbed[1]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "codes/parts").iterdir()} == times
    assert said == []


def test_a_file_that_is_replaced_later_is_named(utterances, speech_folder, run, said, tmp_path):
    """Its codes are those of the file before: nothing that is stored changes, and the way to encode it again is said."""
    shutil.copytree(speech_folder / "a", tmp_path / "data")
    run(utterances(tmp_path / "data"), tmp_path / "codes")
    before = files(tmp_path / "codes")
    changed = tmp_path / "data/0.wav"
    shutil.copy(speech_folder / "c/0.wav", changed)
    os.utime(changed, (time.time() + 1, time.time() + 1))
    run(utterances(tmp_path / "data"), tmp_path / "codes")
    part = tmp_path / "codes/parts/0000-00000.parquet"
    (note,) = said
    assert note.startswith(f"note: 1 file has changed since it was encoded, such as {changed}, in {part}: ")
    assert "others again, remove their parts and run the command again" in note
    assert files(tmp_path / "codes") == before
    part.unlink()
    os.utime(changed)
    run(utterances(tmp_path / "data"), tmp_path / "codes")
    assert files(tmp_path / "codes") != before
    run(utterances(tmp_path / "data"), tmp_path / "codes")
    assert len(said) == 2 + 1  # the note, and it again with the part that is missing


def test_what_is_damaged_is_repaired_and_said_and_nothing_else_is_touched(undisturbed, messy, utterances, run, said, tmp_path):
    folder = copied(undisturbed[0], tmp_path / "codes")
    parts = sorted((folder / "parts").glob("*.parquet"))
    times = {path: path.stat().st_mtime_ns for path in parts}
    parts[0].unlink()
    marker_path(parts[1]).unlink()  # as a worker leaves it that is killed between the two
    parts[2].write_bytes(parts[2].read_bytes()[:-7])
    (folder / "parts/.0000-00003.abcdef.parquet").write_text("half")
    run(utterances(messy), folder)
    assert files(folder) == files(undisturbed[0])
    assert said == [
        f"{parts[0]}: is gone; the unit will be done again",
        f"{parts[2]}: is not what its marker says; the unit will be done again",
    ]
    assert all(path.stat().st_mtime_ns == times[path] for path in parts[3:])


def test_new_files_are_a_new_segment(messy, utterances, run, tmp_path):
    listed = utterances(messy)
    run(listed[:9], tmp_path / "codes")
    before = files(tmp_path / "codes/parts")
    summary = run(listed[6:20], tmp_path / "codes")
    after = files(tmp_path / "codes/parts")
    assert before.items() <= after.items()
    assert (summary.segments, summary.units, summary.utterances) == (2, 5 + 6, 20)
    assert ids(tmp_path / "codes") == [utterance.id for utterance in listed[:20]]
    assert "0001-00005.parquet" in after


# Killing. The job is a real one, from the command line.

COMMAND = """
import signal, sys
from melcodec.cli.main import main
sys.argv[0] = "melcodec"
signal.signal(signal.SIGHUP, getattr(signal, sys.argv.pop(1)))
main()
"""


def launched(messy, folder, checkpoint, *options, hangup="SIG_DFL"):
    command = [sys.executable, "-c", COMMAND, hangup, "preprocess", str(messy), "-o", str(folder), "-c", str(checkpoint)]
    command += ["--device", "cpu", "--unit-size", "2", "--num-workers", "2", *options]
    return forked.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def children(pid: int) -> list[int]:
    """Processes whose parent is ``pid``, those that python starts to tidy up apart."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (entry / "cmdline").read_bytes() + (entry / "comm").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes(undisturbed, messy, tiny_checkpoint, tmp_path):
    folder, chance = tmp_path / "codes", random.Random(7)
    for victim in ("driver", "worker, then driver", "all at once"):
        before = len(list(folder.glob("parts/*.json")))
        with launched(messy, folder, tiny_checkpoint) as running:
            while running.poll() is None and len(list(folder.glob("parts/*.json"))) <= before:
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.01))
            workers = children(running.pid)
            killed = {"driver": [], "worker, then driver": workers[:1], "all at once": workers}[victim]
            for pid in [*killed, running.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            running.communicate()
        assert running.returncode == -signal.SIGKILL  # it was not done yet
        assert len(list(folder.glob("parts/*.json"))) > before  # but further than before
    with launched(messy, folder, tiny_checkpoint) as running:
        os.kill(wait_for_child(running.pid), signal.SIGKILL)  # a worker alone: the run goes on
        running.communicate(timeout=200)
    assert running.returncode == 1  # three files are no use
    assert files(folder) == files(undisturbed[0])


def wait_for_child(pid: int) -> int:
    while not (found := children(pid)):
        time.sleep(0.01)
    return found[0]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_stopping_leaves_what_is_committed(undisturbed, messy, tiny_checkpoint, tmp_path, number, status):
    folder = tmp_path / "codes"
    with launched(messy, folder, tiny_checkpoint) as running:
        while running.poll() is None and not list(folder.glob("parts/*.json")):
            time.sleep(0.002)
        os.killpg(running.pid, number)  # as a terminal and as Slurm do: to everybody
        _, err = running.communicate(timeout=100)
    assert running.returncode == status, err
    assert "the same command resumes from here" in err
    assert "Traceback" not in err
    left = files(folder)
    assert not any(Path(name).name.startswith(".") for name in left)
    done = {name: content for name, content in left.items() if name.startswith("parts/")}
    assert done.items() <= files(undisturbed[0]).items()


def test_under_nohup_the_end_of_the_terminal_is_nothing(undisturbed, messy, tiny_checkpoint, tmp_path):
    with launched(messy, tmp_path / "codes", tiny_checkpoint, hangup="SIG_IGN") as running:
        while running.poll() is None and not list(tmp_path.glob("codes/parts/*.json")):
            time.sleep(0.002)
        os.killpg(running.pid, signal.SIGHUP)
        running.communicate(timeout=100)
    assert running.returncode == 1  # three files are no use
    assert files(tmp_path / "codes") == files(undisturbed[0])


def test_what_kills_its_worker_is_found_and_the_others_are_kept(run, said, corpus, utterances, tmp_path, landmine):
    listed = utterances(corpus)[:5]
    mine = Utterance("c", str(tmp_path / "mine.wav"), text="boom")
    with landmine(tmp_path / "mine.wav"):
        summary = run([*listed, mine], tmp_path / "codes", unit_size=6)
    assert (summary.ok, summary.failed, summary.missing) == (5, {"crash": 1}, 0)
    assert len([line for line in said if line.startswith("worker 0 is replaced")]) == 1 + 1 + 1 + 1  # 6, 3, 2 or 1, 1
    rows = {row.id: row for row in read_rows(tmp_path / "codes/parts/0000-00000.parquet")}
    assert sorted(rows) == sorted(["c", *(utterance.id for utterance in listed)])
    assert (rows["c"].status, rows["c"].text) == ("crash", "boom")
    assert rows["c"].error == f"{tmp_path}/mine.wav: killed its worker (SIGKILL)"


@pytest.mark.slow
def test_what_hangs_is_found_and_the_others_are_kept(run, corpus, utterances, tmp_path):
    os.mkfifo(tmp_path / "hangs.wav")
    listed = [*utterances(corpus)[:1], Utterance("hangs", str(tmp_path / "hangs.wav"))]
    summary = run(listed, tmp_path / "codes", unit_timeout=3.0)
    assert (summary.ok, summary.failed) == (1, {"timeout": 1})
    assert summary.examples == {"timeout": [f"{tmp_path}/hangs.wav: took longer than 3 s"]}


def test_another_run_is_refused_with_every_difference(undisturbed, messy, utterances, run, tmp_path, monkeypatch):
    folder = copied(undisturbed[0], tmp_path / "codes")
    before = files(folder)
    monkeypatch.setattr(spec, "__version__", "9.9")
    monkeypatch.setattr(spec, "decoder_versions", lambda: {"soundfile": "9", "libsndfile": "1.2.2", "av": None})
    with pytest.raises(MelcodecError) as caught:
        run(utterances(messy), folder, rules=Rules("keep", 0.5), checkpoint="melcodec-base")
    said = caught.value.message
    for words in (
        "melcodec was ", " and is 9.9", "fingerprint was ", "--checkpoint was ", " and is melcodec-base",
        "sizes was [32] and is [1024]", "--on-truncated was fail or drop and is keep",
        "--min-seconds was 0.0 and is 0.5", "decoder.soundfile was ",
    ):  # fmt: skip
        assert words in said
    assert "sample_rate" not in said
    assert caught.value.hint
    assert files(folder) == before


def test_a_specification_that_is_gone_is_written_anew_after_the_parts(undisturbed, messy, utterances, run, said, tmp_path):
    folder = copied(undisturbed[0], tmp_path / "codes")
    (folder / "run.json").unlink()
    before = files(folder)
    with pytest.raises(MelcodecError, match="--on-truncated was fail or drop and is keep"):
        run(utterances(messy), folder, rules=Rules("keep"))
    assert files(folder) == before
    run(utterances(messy), folder)
    assert files(folder) == files(undisturbed[0])
    assert said == [f"{folder}/run.json: was missing; it is written again from what the parts contain"]


def test_parts_of_different_runs_have_no_specification(undisturbed, messy, utterances, run, tmp_path):
    from melcodec.store.parquet import part_spec, write_part

    folder = copied(undisturbed[0], tmp_path / "codes")
    path = folder / "parts/0000-00001.parquet"
    other = part_spec(path) | {"settings": {"on_truncated": "drop", "min_seconds": 0.5}}
    write_part(path, list(read_rows(path)), other)
    (folder / "run.json").unlink()
    with pytest.raises(MelcodecError, match=r"parts are of different runs: --min-seconds was 0\.0 and is 0\.5") as caught:
        run(utterances(messy), folder)
    assert caught.value.hint
    # what is not committed, or not readable, says nothing
    marker_path(path).unlink()
    (folder / "parts/0000-00000.parquet").write_text("no Parquet")
    run(utterances(messy), folder)
    assert files(folder) == files(undisturbed[0])


def test_a_specification_that_is_damaged(undisturbed, messy, utterances, run, tmp_path):
    folder = copied(undisturbed[0], tmp_path / "codes")
    (folder / "run.json").write_text("{")
    with pytest.raises(MelcodecError, match=r"run\.json: damaged: not JSON") as caught:
        run(utterances(messy), folder)
    assert caught.value.hint.startswith("remove run.json and run ")
    (folder / "run.json").unlink()  # as it says
    run(utterances(messy), folder)
    assert files(folder) == files(undisturbed[0])


def test_a_checkpoint_may_move(undisturbed, messy, utterances, run, tiny_checkpoint, tmp_path):
    shutil.copy(tiny_checkpoint, tmp_path / "moved.safetensors")
    folder = copied(undisturbed[0], tmp_path / "codes")
    assert run(utterances(messy), folder, checkpoint=str(tmp_path / "moved.safetensors")) == undisturbed[1]


def test_two_at_once_are_refused(run, tmp_path, corpus, utterances):
    with driver._locked(tmp_path), pytest.raises(MelcodecError, match="another melcodec preprocess is running"):
        run(utterances(corpus), tmp_path)


def test_a_file_where_the_folder_should_be_is_refused(run, tmp_path, corpus, utterances):
    (tmp_path / "codes").touch()
    with pytest.raises(MelcodecError, match="codes: is a file; a folder was expected"):
        run(utterances(corpus), tmp_path / "codes")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"engine": "spark"}, "no such engine"),
        ({"device": "cuda:99"}, "this machine has . CUDA devices"),
        ({"device": "abacus"}, "no such kind of device"),
        ({"checkpoint": "gone"}, "gone: no such checkpoint"),
    ],
)
def test_what_is_refused_at_once_leaves_no_folder(run, tmp_path, corpus, utterances, changes, complaint):
    with pytest.raises(MelcodecError, match=complaint):
        run(utterances(corpus), tmp_path / "codes", **changes)
    assert not (tmp_path / "codes").exists()


def test_stopped_before_anything_began(job, corpus, utterances, tmp_path):
    assert preprocess(utterances(corpus), tmp_path / "codes", job, Callbacks(print, stopped=lambda: True)) is None
    assert not (tmp_path / "codes/summary.json").exists()


def test_workers_share_the_cores(job, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    setup = driver.Setup("tiny", "cpu", 1, "codes", {})
    threads = {workers: [one.threads for one in driver._setups(setup, workers, 100)] for workers in (0, 1, 3, 16)}
    assert threads == {0: [1] * 8, 1: [8], 3: [2] * 3, 16: [1] * 16}
    assert len(list(driver._setups(setup, 0, units=3))) == 3


def test_two_workers_share_a_gpu(monkeypatch):
    """So that one encodes while the other reads and writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("melcodec.devices.find_device", torch.device)
    setup = driver.Setup("tiny", "cuda", 1, "codes", {})
    assert [one.device for one in driver._setups(setup, 0, 100)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [one.threads for one in driver._setups(setup, 0, 100)] == [2] * 4
    one_of_them = replace(setup, device="cuda:1")
    assert [one.device for one in driver._setups(one_of_them, 0, 100)] == ["cuda:1", "cuda:1"]
    assert [one.device for one in driver._setups(one_of_them, 1, 100)] == ["cuda:1"]


# Reconciling.


def test_what_is_missing_is_never_forgotten(undisturbed, tmp_path):
    folder = copied(undisturbed[0], tmp_path / "codes")
    marker_path(folder / "parts/0000-00002.parquet").unlink()
    summary = finalize.finalize(folder, read_plan(folder), {"0000-00002": "killed its worker"})
    assert (summary.missing, summary.utterances) == (2, 27)
    missing = [
        line for line in map(json.loads, (folder / "failures.jsonl").read_text().splitlines()) if line["status"] == "missing"
    ]
    assert [line["error"] for line in missing] == ["killed its worker"] * 2
    assert [line["id"] for line in missing] == [utterance.id for utterance in read_plan(folder)[0].unit(2).utterances]


def test_a_part_with_other_rows_than_planned_is_missing(undisturbed, tmp_path):
    """Even when its marker says that all is well."""
    from melcodec.store.parquet import write_part

    folder = copied(undisturbed[0], tmp_path / "codes")
    path = folder / "parts/0000-00001.parquet"
    rows = list(read_rows(path))
    digest = write_part(path, [rows[0], rows[0]], {})
    marker = json.loads(marker_path(path).read_text())
    marker_path(path).write_text(json.dumps(marker | {"sha256": digest}))
    summary = finalize.finalize(folder, read_plan(folder))
    assert summary.missing == 2
    assert summary.stuck == {"0000-00001": "its part does not hold what was planned"}


@pytest.mark.parametrize(
    ("text", "allowed"), [("0", 0), ("12", 12), ("5%", 50), ("0.5%", 5), ("0.05", 50), ("1.0", 1000), ("100%", 1000), ("0.1%", 1)]
)
def test_failures_that_are_allowed(text, allowed):
    assert finalize.Limit(text).allowed(1000) == allowed


@pytest.mark.parametrize("text", ["-1", "1.5", "101%", "many", "", "nan", "1e3", "%"])
def test_limits_that_are_none(text):
    with pytest.raises(MelcodecError, match="is neither a count nor a share"):
        finalize.Limit(text).allowed(1000)
