"""Whoever reads an output sees the old file or the new one, whatever happens to the writer."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from melcodec.errors import MelcodecError
from melcodec.files import written_aside

WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from melcodec.files import written_aside
with written_aside(Path(sys.argv[1])) as aside:
    aside.write_text("half of the new o")
    print("half", flush=True)
    time.sleep(60)
"""

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that too large a write is an error, not a death
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with written_aside(Path(sys.argv[1])) as aside:
        aside.write_bytes(bytes(2000))
except MelcodecError as error:
    print(error.message)
"""


def write(path, text="new", error=None, **options):
    with written_aside(path, **options) as aside:
        aside.write_text(text)
        if error:
            raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "down" / "codes.npy"
    with written_aside(path) as aside:
        assert aside.parent == path.parent
        assert aside.suffix == ".npy"  # for writers that look at it
        assert aside.name.startswith(".")  # and folder walks pass over it
        aside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["codes.npy"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MelcodecError])
def test_an_exception_leaves_what_was_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(error):
        write(path, "half", error("stop"))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["out.txt"]


def test_no_overwriting_unless_asked(tmp_path):
    path = tmp_path / "out.txt"
    write(path, "old", overwrite=False)
    with pytest.raises(MelcodecError, match="exists already") as caught:
        write(path, overwrite=False)
    assert caught.value.hint == "add -f to overwrite it"
    assert path.read_text() == "old"
    write(path, overwrite=True)
    assert path.read_text() == "new"


def test_a_folder_and_a_device_are_not_replaced(tmp_path):
    with pytest.raises(MelcodecError, match="is a folder"):
        write(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(MelcodecError, match="not a regular file"):
        write(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["pipe"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("a file, not a folder")
    for path in (tmp_path / "file" / "out.txt", tmp_path / "file" / "deep" / "out.txt"):
        with pytest.raises(MelcodecError, match="cannot be written") as caught:
            write(path)
        assert str(path) in caught.value.message
    if sys.platform == "linux":
        with pytest.raises(MelcodecError, match="cannot be written"):
            write(type(tmp_path)("/proc/out.txt"))


def test_a_name_as_long_as_names_may_be(tmp_path):
    path = tmp_path / ("n" * 251 + ".npy")
    write(path)
    assert path.read_text() == "new"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX resource limits")
def test_a_file_that_may_not_grow(tmp_path, run_python):
    path = tmp_path / "out.bin"
    path.write_text("old")
    assert run_python(FULL_DISK, path) == f"{path}: cannot be written: File too large\n"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.bin"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB; skipped where it may not be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs rights that this user lacks")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_leaves_the_old_file_whole(small_disk):
    path = small_disk / "out.bin"
    path.write_text("old")
    with pytest.raises(MelcodecError, match="the disk is full") as caught, written_aside(path) as aside:
        aside.write_bytes(bytes(1 << 17))
    assert caught.value.hint == "free some space; what was there before is unchanged"
    assert path.read_text() == "old"
    assert names(small_disk) == ["out.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, mask, mode):
    old = os.umask(mask)
    try:
        write(tmp_path / "out.txt")
        assert os.umask(mask) == mask  # asked for, not changed
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == mode


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "out.txt"
    write(path, "a" * 100_000)
    script = f"""
from pathlib import Path
from melcodec.files import written_aside
for letter in "bcdefgh" * 5:
    with written_aside(Path({str(path)!r})) as aside:
        aside.write_text(letter * 100_000)
"""
    with subprocess.Popen([sys.executable, "-c", script]) as child:
        deadline = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline:
            text = path.read_text()
            assert text == text[0] * 100_000
    assert child.returncode == 0
    assert path.read_text() == "h" * 100_000
