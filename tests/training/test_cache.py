"""The mel cache: built once, by any number of processes, whatever lies in the folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from melcodec.audio.io import find_audio, load
from melcodec.audio.mel import build_frontend
from melcodec.config import MelConfig
from melcodec.errors import MelcodecError
from melcodec.training.cache import INDEX, MELS, cache_mels, cache_root

KILLED_WHILE_BUILDING = """
import os, signal, sys
from pathlib import Path
from melcodec.audio.io import find_audio
from melcodec.config import MelConfig
from melcodec.training.cache import cache_mels

def die(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

cache_mels(find_audio(Path(sys.argv[1])), MelConfig(), 1, die)
"""

WITHOUT_A_GUARD = """
import sys
from pathlib import Path
from melcodec.audio.io import find_audio
from melcodec.config import MelConfig
from melcodec.errors import MelcodecError
from melcodec.training.cache import cache_mels

try:
    cache_mels(find_audio(Path(sys.argv[1])), MelConfig(), 2)
except MelcodecError as error:
    print(error.hint)
"""


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def speech(speech_folder, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(speech_folder, tmp_path / "speech"))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def bad_files(folder: Path) -> dict[str, str]:
    """Put files that cannot be read beside the good ones; their names and a word of each reason."""
    import soundfile

    (folder / "text.wav").write_text("these are words, not sound\n" * 10)
    (folder / "empty.flac").touch()
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    soundfile.write(folder / "nan.wav", np.full(5000, np.nan, np.float32), 22_050, subtype="FLOAT")
    whole = (folder / "a" / "1.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    return {
        "text.wav": "not readable",
        "empty.flac": "empty",
        "gone.wav": "no such file",
        "nan.wav": "NaN",
        "cut.wav": "truncated",
    }


def test_frames_are_those_of_the_front_end(speech):
    paths = find_audio(speech)
    cache = cache_mels(paths, MelConfig(), 1)
    assert cache.paths == [str(path) for path in paths]
    assert cache.failures == {}
    assert cache.mels.dtype == np.float16
    assert cache.mels.shape == (cache.starts[-1], 80)
    frontend = build_frontend(MelConfig(), (1.0,) * 80)
    for index, path in enumerate(paths):
        (mel,) = frontend.stream([load(path, 22_050)])
        frames = cache.mels[cache.starts[index] : cache.starts[index + 1]]
        assert cache.lengths[index] == len(frames) == mel.shape[1]
        assert np.abs(frames.T - mel).max() <= 0.004  # what float16 is good for, down to the floor of ln 1e-5


def test_the_mel_settings_are_used(speech):
    cache = cache_mels(find_audio(speech), MelConfig(n_mels=20, floor=1e-2), 1)
    assert cache.mels.shape[1] == 20
    assert cache.mels.min() == np.float16(np.log(1e-2))


def test_one_process_and_two_write_the_same_bytes(speech, tmp_path, monkeypatch):
    bad = bad_files(speech)
    seen = {}
    for workers in (1, 2):
        monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / f"cache{workers}"))
        calls, processes = [], set()

        def note(done, total, calls=calls, processes=processes):
            calls.append((done, total))
            processes.add(len(multiprocessing.active_children()))

        cache = cache_mels(find_audio(speech), MelConfig(), workers, note)
        total = 6 + len(bad)
        assert calls == [(done, total) for done in range(1, total + 1)]
        assert len(cache.failures) == len(bad)
        # the setting is obeyed: one works here, two are two processes
        assert max(processes) == (0 if workers == 1 else 2)
        seen[workers] = contents(tmp_path / f"cache{workers}")
    assert seen[1] == seen[2]
    assert len(seen[1]) == 2


def test_built_once(speech, fresh_cache):
    calls = []
    for _ in range(2):
        cache_mels(find_audio(speech), MelConfig(), 1, lambda *at: calls.append(at))
    assert len(calls) == 6
    assert len(contents(fresh_cache)) == 2


def test_a_changed_or_added_file_or_setting_builds_anew(speech):
    def frames(config: MelConfig = MelConfig()) -> int:  # noqa: B008
        calls = []
        cache = cache_mels(find_audio(speech), config, 1, lambda *at: calls.append(at))
        built.append(bool(calls))
        return len(cache.mels)

    built: list[bool] = []
    before = frames()
    shutil.copy(speech / "a" / "0.wav", speech / "b" / "0.wav")
    after = frames()
    assert after != before
    shutil.copy(speech / "a" / "0.wav", speech / "new.wav")
    assert frames() > after
    frames(MelConfig(hop_length=400))
    stat = (speech / "new.wav").stat()
    os.utime(speech / "new.wav", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    frames()
    frames()
    assert built == [True, True, True, True, True, False]


def test_bad_files_are_named_and_do_no_harm(speech):
    good = cache_mels(find_audio(speech), MelConfig(), 1)
    reasons = bad_files(speech)
    cache = cache_mels(find_audio(speech), MelConfig(), 1)
    assert cache.paths == good.paths
    assert np.array_equal(cache.mels, good.mels)
    assert {Path(path).name for path in cache.failures} == reasons.keys()
    for path, reason in cache.failures.items():
        assert reasons[Path(path).name] in reason
        assert path in reason


def test_nothing_readable(speech, tmp_path, fresh_cache):
    only = tmp_path / "only"
    only.mkdir()
    (only / "text.wav").write_text("words")
    for _ in range(2):  # not remembered: it may be mended by then
        with pytest.raises(MelcodecError, match="no file of the corpus could be read") as caught:
            cache_mels(find_audio(only), MelConfig(), 1)
        assert "text.wav" in caught.value.hint
        assert not list(fresh_cache.rglob(INDEX))


def test_a_killed_build_is_built_again(speech, fresh_cache, tmp_path, monkeypatch):
    child = subprocess.run([sys.executable, "-c", KILLED_WHILE_BUILDING, str(speech)], check=False, timeout=120)
    assert child.returncode == -signal.SIGKILL
    assert not list(fresh_cache.rglob(INDEX))
    assert not list(fresh_cache.rglob(MELS))
    resumed = cache_mels(find_audio(speech), MelConfig(), 1)
    monkeypatch.setenv("MELCODEC_CACHE", str(tmp_path / "other"))
    assert np.array_equal(resumed.mels, cache_mels(find_audio(speech), MelConfig(), 1).mels)


def test_a_killed_worker_is_named(speech, fresh_cache):
    many = [*find_audio(speech)]
    for index in range(40):
        os.link(many[0], speech / f"{index}.wav")

    def kill(done, total):
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(MelcodecError, match="a process that computes mels died") as caught:
        cache_mels(find_audio(speech), MelConfig(), 2, kill)
    assert "num_workers=1" in caught.value.hint
    assert contents(fresh_cache) == {}


def test_where_the_cache_lies(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("MELCODEC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "melcodec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "melcodec"


def test_the_index_is_written_last(speech, fresh_cache):
    cache_mels(find_audio(speech), MelConfig(), 1)
    (index,), (mels,) = fresh_cache.rglob(INDEX), fresh_cache.rglob(MELS)
    assert index.stat().st_mtime_ns >= mels.stat().st_mtime_ns
    assert json.loads(index.read_text())["starts"][-1] * 80 * 2 == mels.stat().st_size


def test_a_script_without_a_guard_is_told_of_it(speech, fresh_cache, tmp_path):
    """Every process of the pool imports the script, which must not start a pool of its own."""
    (tmp_path / "script.py").write_text(WITHOUT_A_GUARD)
    command = [sys.executable, tmp_path / "script.py", speech]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "under if __name__ == '__main__':" in told.stdout
    assert contents(fresh_cache) == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_progress_raises_ends_the_work(speech, fresh_cache, workers):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_mels(find_audio(speech), MelConfig(), workers, stop)
    assert contents(fresh_cache) == {}
    assert multiprocessing.active_children() == []
