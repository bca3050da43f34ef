"""The mel cache: built once, by any number of processes, killed or not, whatever lies in the folder."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from melcodec.audio.io import Span, find_audio, load
from melcodec.audio.mel import build_frontend
from melcodec.config import MelConfig
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.training import cache_build, cache_index, cache_work
from melcodec.training.cache import CacheEntries, MelCache, cache_mels, cache_root
from melcodec.training.cache_index import DONE, INDEX, MELS, Names, count_kept, read_index
from tests import forked

RATE = 22_050

BUILD = """
import sys, time, zlib
from pathlib import Path
from melcodec.audio.io import find_audio
from melcodec.config import MelConfig
from melcodec.errors import MelcodecError
from melcodec.manifests.base import Utterance
from melcodec.training import cache_build
from melcodec.training.cache import cache_mels

folder, workers, copies, flag = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
cache_build.COMMIT_ENTRIES = 5

def progress(done, total):
    print(done, flush=True)
    time.sleep(0.002)
    while flag.exists():
        time.sleep(0.01)

def say(text):
    print("say", text, flush=True)

if __name__ == "__main__":
    files = [(path.relative_to(folder).as_posix(), str(path)) for path in find_audio(folder)]
    utterances = [Utterance(f"{copy}/{name}", path) for copy in range(copies) for name, path in files]
    try:
        cache = cache_mels(utterances, MelConfig(), (1.0,), workers, progress, say)
        print("made", cache.key, len(cache.ids), zlib.crc32(cache.mels))
    except MelcodecError as error:
        print("refused", error.message)
        print("hint", error.hint)
"""


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def speech(speech_folder, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(speech_folder, tmp_path / "speech"))


def listed(folder: Path, copies: int = 0) -> list[Utterance]:
    """The utterances of a folder; of as many copies as BUILD makes."""
    files = [(path.relative_to(folder).as_posix(), str(path)) for path in find_audio(folder)]
    if copies:
        return [Utterance(f"{copy}/{name}", path) for copy in range(copies) for name, path in files]
    return [Utterance(name, path) for name, path in files]


def contents(root: Path) -> dict[str, bytes]:
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if not name.endswith(".lock")}


def named(root: Path) -> dict[str, bytes]:
    """Contents by bare name."""
    return {Path(name).name: content for name, content in contents(root).items()}


def where(cache: MelCache) -> Path:
    return cache_root() / "mels" / cache.key


def bad_files(folder: Path) -> dict[str, str]:
    """Put files that cannot be read beside the good ones; their names and a word of each reason."""
    (folder / "text.wav").write_text("these are words, not sound\n" * 10)
    (folder / "empty.flac").touch()
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    soundfile.write(folder / "nan.wav", np.full(5000, np.nan, np.float32), RATE, subtype="FLOAT")
    whole = (folder / "a" / "1.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    return {
        "text.wav": "not readable",
        "empty.flac": "empty",
        "gone.wav": "no such file",
        "nan.wav": "NaN",
        "cut.wav": "truncated",
    }


def mel_of(wav: np.ndarray) -> np.ndarray:
    """(T, M) float16."""
    (mel,) = build_frontend(MelConfig(), (1.0,) * 80).stream([wav])
    return mel.T.astype(np.float16)


def entry(cache: MelCache, name: str) -> np.ndarray:
    index = list(cache.ids).index(name)
    return cache.mels[cache.starts[index] : cache.starts[index + 1]]


# ---- what is in it


def test_frames_are_those_of_the_front_end(speech):
    utterances = listed(speech)
    cache = cache_mels(utterances, MelConfig(), num_workers=1)
    assert cache.ids == [item.id for item in utterances]
    assert cache.failures == {}
    assert cache.mels.dtype == np.float16
    assert cache.mels.shape == (cache.starts[-1], 80)
    frontend = build_frontend(MelConfig(), (1.0,) * 80)
    for index, item in enumerate(utterances):
        (mel,) = frontend.stream([load(item.path, RATE)])
        frames = cache.mels[cache.starts[index] : cache.starts[index + 1]]
        assert cache.lengths[index] == len(frames) == mel.shape[1]
        assert np.abs(frames.T - mel).max() <= 0.004  # what float16 is good for, down to the floor of ln 1e-5


def test_the_mel_settings_are_used(speech):
    cache = cache_mels(listed(speech), MelConfig(n_mels=20, floor=1e-2), num_workers=1)
    assert cache.mels.shape[1] == 20
    assert cache.mels.min() == np.float16(np.log(1e-2))


def test_speeds(speech):
    utterances = listed(speech)
    cache = cache_mels(utterances, MelConfig(), (1.0, 0.9, 1.1), num_workers=1)
    ids = [item.id for item in utterances]
    assert cache.ids == ids + [f"{name}@0.9" for name in ids] + [f"{name}@1.1" for name in ids]
    plain = cache_mels(utterances, MelConfig(), num_workers=1)
    np.testing.assert_array_equal(cache.mels[: len(plain.mels)], plain.mels)
    for speed, rate in ((0.9, 24_500), (1.1, 20_050)):
        for item in utterances:
            np.testing.assert_array_equal(entry(cache, f"{item.id}@{speed}"), mel_of(load(item.path, rate)))
    at_once = cache_mels(utterances, MelConfig(), (0.9, 0.9), num_workers=1)
    assert at_once.ids == [f"{name}@0.9" for name in ids]


def test_stretches_members_and_urls(speech, tmp_path):
    path = speech / "a" / "0.wav"
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(path, "x/y.wav")
    utterances = [
        Utterance("late", str(path), start=0.5),
        Utterance("middle", str(path), start=0.25, duration=0.5),
        Utterance("packed", str(tmp_path / "shard.tar"), member="x/y.wav", duration=0.75),
        Utterance("far", path.as_uri()),
        Utterance("over", str(path), start=0.5, duration=60.0),
        Utterance("nowhere", str(tmp_path / "shard.tar"), member="z.wav"),
    ]
    cache = cache_mels(utterances, MelConfig(), num_workers=1)
    assert cache.ids == ["late", "middle", "packed", "far"]
    for name, span in (("late", Span(0.5)), ("middle", Span(0.25, 0.5)), ("packed", Span(0, 0.75)), ("far", Span())):
        np.testing.assert_array_equal(entry(cache, name), mel_of(load(path, RATE, span)))
    assert cache.failures.keys() == {"over", "nowhere"}
    assert "past the end" in cache.failures["over"]
    assert "holds no file 'z.wav'" in cache.failures["nowhere"]


def test_torch_takes_it_without_a_warning_and_writing_stays_here(speech):
    cache = cache_mels(listed(speech), MelConfig(), num_workers=1)
    before = contents(cache_root())
    torch.from_numpy(cache.mels)[0] = 7
    assert cache.mels[0, 0] == 7
    assert contents(cache_root()) == before


def test_bad_files_are_named_and_do_no_harm(speech):
    good = cache_mels(listed(speech), MelConfig(), num_workers=1)
    reasons = bad_files(speech)
    cache = cache_mels(listed(speech), MelConfig(), num_workers=1)
    assert cache.ids == good.ids
    assert np.array_equal(cache.mels, good.mels)
    assert cache.failures.keys() == reasons.keys()
    for name, reason in cache.failures.items():
        assert reasons[name] in reason
        assert str(speech / name) in reason


def test_nothing_readable(tmp_path, fresh_cache):
    only = tmp_path / "only"
    only.mkdir()
    (only / "text.wav").write_text("words")
    for _ in range(2):  # not remembered: it may be mended by then
        with pytest.raises(MelcodecError, match="no file of the corpus could be read") as caught:
            cache_mels(listed(only), MelConfig(), num_workers=1)
        assert "text.wav" in caught.value.hint
        assert contents(fresh_cache) == {}
    with pytest.raises(MelcodecError, match="no file of the corpus could be read"):
        cache_mels([], MelConfig(), num_workers=1)


def test_what_is_too_long_to_hold_goes_through_a_file(speech, tmp_path, monkeypatch, fresh_cache):
    held = contents(where(cache_mels(listed(speech), MelConfig(), num_workers=1)))
    job = CacheEntries(listed(speech), MelConfig(), (1.0,))[0]
    worker = cache_work._Worker(MelConfig(), tmp_path)
    rows = worker.made(job)
    monkeypatch.setattr(cache_work, "HELD_BYTES", 1000)
    made = worker.made(job)
    assert isinstance(rows, bytes)
    assert isinstance(made, Path)
    assert made.read_bytes() == rows
    monkeypatch.setattr(cache_build, "COPY_BYTES", 777)
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / "other"))
    assert contents(where(cache_mels(listed(speech), MelConfig(), num_workers=1))) == held


# ---- when it is built


def test_built_once(speech, fresh_cache):
    calls = []
    caches = [cache_mels(listed(speech), MelConfig(), (1.0,), 1, lambda *at: calls.append(at)) for _ in range(2)]
    assert calls == [(done, 6) for done in range(1, 7)]
    assert named(fresh_cache).keys() == {MELS, INDEX, DONE}
    assert caches[0].key == caches[1].key == where(caches[0]).name
    assert caches[0].ids == caches[1].ids


def test_whatever_changes_builds_anew(speech, monkeypatch):
    def key(utterances=None, config=MelConfig(), speeds=(1.0,)) -> str:  # noqa: B008
        return cache_mels(utterances or listed(speech)[:2], config, speeds, 1).key

    first, second = listed(speech)[:2]
    path = Path(first.path)
    keys = [
        key(),
        key([first]),
        key([second, first]),
        key([replace(first, id="other"), second]),
        key([replace(first, path=second.path), second]),
        key([replace(first, start=0.1), second]),
        key([replace(first, duration=0.5), second]),
        key(config=MelConfig(hop_length=400)),
        key(speeds=(1.0, 0.9)),
        key(speeds=(0.9,)),
    ]
    shutil.copy(speech / "b" / "0.wav", path)
    keys.append(key())
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    keys.append(key())
    other = None if find_spec("av") else object()  # an extra less, or more
    monkeypatch.setattr("melcodec.training.cache.find_spec", lambda name: other)
    keys.append(key())
    assert len(set(keys)) == len(keys)
    monkeypatch.chdir(speech)
    assert key([replace(first, path="a/0.wav"), second]) == keys[-1] == key()
    assert key([replace(first, text="words", speaker="a", split="train"), second]) == keys[-1]


def test_one_process_and_two_write_the_same_bytes(speech, tmp_path, monkeypatch):
    bad = bad_files(speech)
    seen = {}
    for workers in (1, 2):
        monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / f"cache{workers}"))
        calls, processes = [], set()

        def note(done, total, calls=calls, processes=processes):
            calls.append((done, total))
            processes.add(len(multiprocessing.active_children()))

        cache = cache_mels(listed(speech), MelConfig(), (1.0, 1.1), workers, note)
        total = 2 * (6 + len(bad))
        assert calls == [(done, total) for done in range(1, total + 1)]
        assert len(cache.failures) == 2 * len(bad)
        # the setting is obeyed: one works here, two are two processes
        assert max(processes) == (0 if workers == 1 else 2)
        seen[workers] = contents(tmp_path / f"cache{workers}")
    assert seen[1] == seen[2]
    assert len(seen[1]) == 3


def test_where_the_cache_lies(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("MELCODEC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "melcodec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "melcodec"


# ---- stopped and continued


def run(*args: object, env: dict[str, str] | None = None, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", BUILD, *map(str, args)]
    return forked.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | (env or {}), **options)


def children_of(pid: int) -> set[int]:
    """Every process below ``pid`` (Linux)."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                child = int(stat.parent.name)
                found |= {child} | children_of(child)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again(speech, fresh_cache, tmp_path, monkeypatch, workers):
    """Real processes, real SIGKILL, at moments that chance picks; in the end nothing tells it from an undisturbed one."""
    copies, chance, begun = 40, random.Random(workers), 0
    bad_files(speech)
    for _ in range(2 if workers == 1 else 1):
        child = run(speech, workers, copies, tmp_path / "no flag")
        begun_at = int(child.stdout.readline())
        assert begun_at == 1 or begun_at > begun - 5  # it goes on
        time.sleep(chance.uniform(0, 0.3))
        below = children_of(child.pid)
        child.kill()
        begun = [begun_at, *map(int, child.stdout.read().split())][-1]
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        assert begun < 11 * copies
        # the process that workers are forked from; the pool and its resource tracker
        assert len(below) == (1 if workers == 1 else 4)
        end = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in below):  # nobody waits for a dead parent
            assert time.monotonic() < end
            time.sleep(0.05)
    first = []
    resumed = cache_mels(listed(speech, copies), MelConfig(), (1.0,), 1, lambda *at: first.append(at))
    assert begun - 5 < first[0][0] <= begun + 2
    assert first[-1] == (11 * copies, 11 * copies)
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / "other"))
    whole = cache_mels(listed(speech, copies), MelConfig(), num_workers=1)
    assert contents(where(whole)) == contents(fresh_cache / "mels" / resumed.key)


@pytest.mark.slow
def test_whatever_a_crash_left_is_continued(speech, fresh_cache):
    """Every state that the order of writing allows: rows as far as the index says or further, lines whole or torn."""
    bad_files(speech)
    folder = where(cache_mels(listed(speech), MelConfig(), num_workers=1))
    whole = contents(folder)
    lines = whole[INDEX].splitlines(keepends=True)
    rng = random.Random(0)
    for kept in range(len(lines)):
        rows = sum(json.loads(line).get("frames", 0) for line in lines[:kept]) * 160
        for torn in (b"", lines[kept][:1], lines[kept][: rng.randrange(2, len(lines[kept]))], lines[kept][:-1]):
            (folder / DONE).unlink(missing_ok=True)
            (folder / INDEX).write_bytes(b"".join(lines[:kept]) + torn)
            extra = rng.choice([0, 1, 80, 159, 5000, 10**6])
            (folder / MELS).write_bytes(whole[MELS][: rows + extra] + rng.randbytes(rng.choice([0, 100, 10**6])))
            (folder / "left.part").touch()
            first = []
            cache_mels(listed(speech), MelConfig(), (1.0,), 1, lambda *at, first=first: first.append(at))
            assert first[0] == (kept + 1, len(lines))
            assert contents(folder) == whole


@pytest.mark.parametrize("left", [0, 1000, 33_000])
def test_rows_that_a_crash_lost_are_made_again(speech, left):
    """A disk that lies about its syncs: the index vouches for more than is there."""
    folder = where(cache_mels(listed(speech), MelConfig(), num_workers=1))
    whole = contents(folder)
    (folder / DONE).unlink()
    os.truncate(folder / MELS, left)
    cache_mels(listed(speech), MelConfig(), num_workers=1)
    assert contents(folder) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_what_progress_raises_ends_the_work_and_what_is_done_stays(speech, fresh_cache, workers):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_mels(listed(speech), MelConfig(), (1.0,), workers, stop)
    assert multiprocessing.active_children() == []
    assert DONE not in named(fresh_cache)
    calls = []
    cache_mels(listed(speech), MelConfig(), (1.0,), 1, lambda *at: calls.append(at))
    assert calls == [(4, 6), (5, 6), (6, 6)]


def test_a_killed_worker_is_named(speech, fresh_cache):
    def kill(done, total):
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(MelcodecError, match=r"a process that computed its mel stopped|workers stop while they start") as caught:
        cache_mels(listed(speech, 10), MelConfig(), (1.0,), 2, kill)
    assert "out of memory?" in caught.value.hint
    assert DONE not in named(fresh_cache)
    first = []
    cache_mels(listed(speech, 10), MelConfig(), (1.0,), 1, lambda *at: first.append(at))
    assert first[0][0] > 1


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_of_it(speech, fresh_cache, tmp_path):
    """Every process of the pool imports the script, which must neither start a pool of its own nor wait for its parent."""
    (tmp_path / "script.py").write_text(BUILD.replace('if __name__ == "__main__":', "if True:"))
    command = [sys.executable, tmp_path / "script.py", speech, "2", "1", "no flag"]
    told = forked.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "refused workers stop while they start" in told.stdout
    assert "under if __name__ == '__main__':" in told.stdout
    assert "put its work under if __name__" in told.stderr


def test_the_index_never_vouches_for_rows_that_are_not_on_disk(speech, fresh_cache, monkeypatch):
    """At every sync of the index, its lines count no more rows than the last sync of the rows made safe."""
    monkeypatch.setattr(cache_build, "COMMIT_ENTRIES", 2)
    safe, seen, fsync = [0], [], os.fsync

    def watched(descriptor):
        name = Path(f"/proc/self/fd/{descriptor}").resolve()
        if name.name == MELS:
            safe.append(name.stat().st_size)
        elif name.name == INDEX:
            seen.append((int(read_index(name).starts[-1]) * 160, safe[-1]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    cache_mels(listed(speech), MelConfig(), num_workers=1)
    assert len({vouched for vouched, _ in seen}) == 4  # nothing, then two at a time
    assert all(vouched <= there for vouched, there in seen)


# ---- two at once


def test_two_runs_make_one_cache(speech, tmp_path):
    flag = tmp_path / "wait"
    flag.touch()
    one = run(speech, 1, 5, flag)
    assert one.stdout.readline() == "1\n"  # it holds the lock, and waits for the flag to go
    two = run(speech, 1, 5, tmp_path / "no flag")
    assert two.stdout.readline().startswith("say another run is making the mel cache")
    assert int(two.stdout.readline()) < 30
    three = run(speech, 1, 5, tmp_path / "no flag", stderr=subprocess.PIPE)
    three.stdout.readline()
    three.send_signal(signal.SIGINT)  # one that waits can be stopped
    assert three.wait(timeout=120) not in (0, -signal.SIGKILL)
    assert "KeyboardInterrupt" in three.stderr.read()
    for pipe in (three.stdout, three.stderr):
        pipe.close()
    flag.unlink()
    ends = [child.communicate(timeout=60)[0].splitlines() for child in (one, two)]
    assert ends[0][-1] == ends[1][-1]
    assert ends[0][-1].startswith("made ")
    assert ends[0][:-1] == [str(done) for done in range(2, 31)]
    assert ends[1][-2:-1] != ["30"]  # it made nothing


def test_what_progress_raises_ends_the_waiting(speech, tmp_path):
    flag = tmp_path / "wait"
    flag.touch()
    one = run(speech, 1, 1, flag)
    assert one.stdout.readline() == "1\n"

    def stop(done, total):
        raise KeyboardInterrupt(f"{done} of {total}")

    with pytest.raises(KeyboardInterrupt, match="of 6"):
        cache_mels(listed(speech, 1), MelConfig(), (1.0,), 1, stop)
    one.kill()
    one.communicate()
    # a killed run leaves no lock behind
    assert len(cache_mels(listed(speech, 1), MelConfig(), num_workers=1).ids) == 6


# ---- damaged


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def damages() -> list[tuple[str, object]]:
    return [
        ("first row", lambda folder: flip(folder / MELS, 0)),
        ("middle row", lambda folder: flip(folder / MELS, (folder / MELS).stat().st_size // 2)),
        ("last row", lambda folder: flip(folder / MELS, -1)),
        ("rows missing", lambda folder: os.truncate(folder / MELS, 1000)),
        ("rows too many", lambda folder: (folder / MELS).write_bytes((folder / MELS).read_bytes() + bytes(160))),
        ("no rows", lambda folder: (folder / MELS).unlink()),
        ("an id", lambda folder: flip(folder / INDEX, 9)),
        ("a count", lambda folder: flip(folder / INDEX, (folder / INDEX).read_bytes().index(b'"frames": ') + 11)),
        ("a reason", lambda folder: flip(folder / INDEX, (folder / INDEX).read_bytes().index(b"the file is empty") + 5)),
        ("no index", lambda folder: (folder / INDEX).unlink()),
        ("index cut", lambda folder: os.truncate(folder / INDEX, 100)),
        ("not JSON", lambda folder: (folder / DONE).write_text("{")),
        ("not an object", lambda folder: (folder / DONE).write_text("[]")),
        ("another version", lambda folder: (folder / DONE).write_text((folder / DONE).read_text().replace("2", "1", 1))),
    ]


@pytest.mark.parametrize("damage", [pytest.param(do, id=name) for name, do in damages()])
def test_a_damaged_cache_is_said_and_mended(speech, damage):
    bad_files(speech)
    good = cache_mels(listed(speech), MelConfig(), num_workers=1)
    folder = where(good)
    whole = contents(folder)
    damage(folder)
    said, calls = [], []
    cache = cache_mels(listed(speech), MelConfig(), (1.0,), 1, lambda *at: calls.append(at), said.append)
    assert len(said) == 1
    assert f"the mel cache {folder} is damaged" in said[0]
    assert contents(folder) == whole
    assert np.array_equal(cache.mels, good.mels)
    assert cache.failures == good.failures
    cache_mels(listed(speech), MelConfig(), (1.0,), 1, None, said.append)
    assert len(said) == 1


def test_what_is_sound_before_a_damage_stays(speech):
    cache = cache_mels(listed(speech), MelConfig(), num_workers=1)
    flip(where(cache) / MELS, int(cache.starts[4]) * 160 + 5)
    calls = []
    cache_mels(listed(speech), MelConfig(), (1.0,), 1, lambda *at: calls.append(at))
    assert calls == [(5, 6), (6, 6)]


def test_mending_that_is_stopped_goes_on_with_the_rest_of_the_damage(speech):
    cache = cache_mels(listed(speech), MelConfig(), num_workers=1)
    folder = where(cache)
    whole = contents(folder)
    for damaged in (1, 4):
        flip(folder / MELS, int(cache.starts[damaged]) * 160)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_mels(listed(speech), MelConfig(), (1.0,), 1, stop)
    calls, said = [], []
    cache_mels(listed(speech), MelConfig(), (1.0,), 1, lambda *at: calls.append(at), said.append)
    assert calls == [(done, 6) for done in (3, 4, 5, 6)]
    assert said == []  # by now it is merely unfinished
    assert contents(folder) == whole


def test_mending_does_not_take_the_rows_from_one_who_reads_them(speech):
    """A mapped file that shrinks kills its readers; this one would die in the middle of the test."""
    utterances = listed(speech)
    cache = cache_mels(utterances, MelConfig(), num_workers=1)
    before = cache.mels.copy()
    flip(where(cache) / MELS, 0)

    def look(done, total):
        assert np.array_equal(cache.mels, before)

    cache_mels(utterances, MelConfig(), (1.0,), 1, look)
    assert np.array_equal(cache.mels, before)


def test_of_a_large_cache_samples_are_checked(speech, monkeypatch):
    cache = cache_mels(listed(speech), MelConfig(), num_workers=1)
    monkeypatch.setattr(cache_index, "CHECK_ALL_BYTES", 0)
    monkeypatch.setattr(cache_index, "CHECKED_ENTRIES", 3)  # of six: the first, the third and the last
    said = []
    for checked in (0, 2, 5):
        flip(where(cache) / MELS, int(cache.starts[checked]) * 160)
        cache_mels(listed(speech), MelConfig(), (1.0,), 1, None, said.append)
        assert len(said) == 1, checked
        said.clear()
    flip(where(cache) / MELS, int(cache.starts[1]) * 160)
    cache_mels(listed(speech), MelConfig(), (1.0,), 1, None, said.append)
    assert said == []
    monkeypatch.setattr(cache_index, "CHECK_ALL_BYTES", 1 << 30)
    cache_mels(listed(speech), MelConfig(), (1.0,), 1, None, said.append)
    assert len(said) == 1


# ---- no room


def full_disk_story(speech: Path, tmp_path: Path, cache: Path, start) -> None:
    """A build that runs out of room says so, and ends as if it never had once there is some."""
    child = start()
    out = child.communicate(timeout=60)[0]
    refused, hint = (line for line in out.splitlines() if line.startswith(("refused", "hint")))
    assert f"refused {cache}/mels/" in refused
    assert "not enough disk space for the mel cache" in refused
    assert " MB are written, about " in refused
    assert "MELCODEC_CACHE" in hint
    written = int(out.split("refused")[0].split()[-1])
    assert written >= 5


@pytest.mark.slow
def test_a_full_disk(speech, tmp_path, fresh_cache, monkeypatch):
    """A limit on the size of files, as FAT has one, in a process of its own."""
    import resource

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    full_disk_story(speech, tmp_path, fresh_cache, lambda: run(speech, 1, 10, tmp_path / "no", preexec_fn=limited))
    first = []
    resumed = cache_mels(listed(speech, 10), MelConfig(), (1.0,), 1, lambda *at: first.append(at))
    assert first[0][0] > 1
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / "other"))
    whole = cache_mels(listed(speech, 10), MelConfig(), num_workers=1)
    assert contents(where(whole)) == contents(fresh_cache / "mels" / resumed.key)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of half a megabyte, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(speech, tmp_path, tiny_disk, monkeypatch):
    env = {"MELCODEC_CACHE": str(tiny_disk)}
    full_disk_story(speech, tmp_path, tiny_disk, lambda: run(speech, 1, 10, tmp_path / "no", env=env))
    subprocess.run(["mount", "-o", "remount,size=8m", tiny_disk], check=True)
    monkeypatch.setenv("MELCODEC_CACHE", str(tiny_disk))
    first = []
    cache = cache_mels(listed(speech, 10), MelConfig(), (1.0,), 1, lambda *at: first.append(at))
    assert first[0][0] > 1
    assert len(cache.ids) == 60
    cache.mels._mmap.close()  # or the disk is busy


def test_no_room_to_unpack_is_not_the_fault_of_the_file(speech, tmp_path, tiny_disk, monkeypatch, fresh_cache):
    """A listed failure stays in the cache; this one must end the build instead."""
    soundfile.write(tmp_path / "long.wav", np.zeros(400_000), RATE)
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(tmp_path / "long.wav", "long.wav")
    utterances = [Utterance("packed", str(tmp_path / "shard.tar"), member="long.wav"), *listed(speech)]
    monkeypatch.setattr(tempfile, "tempdir", str(tiny_disk))
    with pytest.raises(MelcodecError, match=r"shard\.tar: cannot be read now: No space left on device") as caught:
        cache_mels(utterances, MelConfig(), num_workers=1)
    assert f"{tiny_disk}? TMPDIR" in caught.value.hint
    assert DONE not in named(fresh_cache)


def test_how_much_is_missing_is_told(speech, tmp_path):
    utterances = [replace(item, duration=100.0) for item in listed(speech)]
    jobs = CacheEntries(utterances, MelConfig(), (1.0, 0.5))
    message = cache_build._no_room(tmp_path, jobs, 6, 10**9, MelConfig(), OSError(28, "No space left on device")).message
    per_second = RATE / 256 * 160
    assert f"1.0 GB are written, about {6 * 200 * per_second / 1e6:.1f} MB more are needed" in message
    jobs = CacheEntries(listed(speech), MelConfig(), (1.0,))
    message = cache_build._no_room(tmp_path, jobs, 2, 10**6, MelConfig(), OSError(28, "No space left on device")).message
    assert "1.0 MB are written, about 2.0 MB more are needed" in message
    message = cache_build._no_room(tmp_path, jobs, 0, 0, MelConfig(), OSError(28, "No space left on device")).message
    assert "an hour of speech takes 49.6 MB" in message


def test_a_folder_that_cannot_be_written(speech, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(MelcodecError, match="Not a directory"):
        cache_mels(listed(speech), MelConfig(), num_workers=1)


# ---- names


def test_names_are_a_list_in_little_memory():
    words = ["a", "", "ünï/码", "caf\udce9", "x" * 1000]
    names = Names(words)
    assert list(names) == words
    assert names == words
    assert names != words[:-1]
    assert (names[2], names[-1], names[1:3], len(names)) == (words[2], words[-1], words[1:3], 5)
    with pytest.raises(IndexError):
        names[5]
    assert Names.joined([names, Names(), Names(["end"])]) == [*words, "end"]
    assert "码" in repr(Names(words[2:4]))


def test_an_index_of_many_lines(tmp_path):
    """Read in parts: names, counts and reasons stay in place across them."""
    lines = [
        {"id": f"é{i}", "frames": i % 50, "crc32": i} if i % 7 else {"id": f"é{i}", "error": f"no {i}"} for i in range(50_000)
    ]
    (tmp_path / INDEX).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"id": "torn')
    content = (tmp_path / INDEX).read_bytes()
    assert len(content) > 300_000
    whole = content[: content.index(b'{"id": "torn')]
    for size in (1 << 22, 10_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache_index, "READ_BYTES", size)
            index = read_index(tmp_path / INDEX)
        assert index.names == [line["id"] for line in lines]
        assert index.frames.tolist() == [line.get("frames", -1) for line in lines]
        assert index.reasons == {i: line["error"] for i, line in enumerate(lines) if "error" in line}
        assert (int(index.ends[-1]), index.crc) == (len(whole), zlib.crc32(whole))
        names, starts = index.readable()
        assert names == [line["id"] for line in lines if "frames" in line]
        assert np.diff(starts).tolist() == [line["frames"] for line in lines if "frames" in line]
    assert count_kept(tmp_path, index.names, 80)[1] == 1  # the failure; of the next no rows are there
