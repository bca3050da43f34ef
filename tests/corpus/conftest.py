"""A little corpus of real speech, files that are broken in every known way, and those that kill whoever reads them."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melcodec.manifests.build import find_utterances

COMPRESSED = {"cut.opus": {"format": "OGG", "subtype": "OPUS"}, "cut.ogg": {"subtype": "VORBIS"}, "cut.mp3": {}}


@pytest.fixture(scope="session")
def corpus(golden, tmp_path_factory) -> Path:
    """24 files of speech, 0.2 to 1.4 s, wav and flac, 16 and 22.05 kHz. Not to be changed."""
    folder = tmp_path_factory.mktemp("corpus")
    speech = np.concatenate([golden[f"{index}.wav"] for index in range(3)])
    for index in range(24):
        name = folder / f"speaker {index % 3}" / f"ütt{index:02d}{'.flac' if index % 2 else '.wav'}"
        name.parent.mkdir(exist_ok=True)
        start, length = 5_000 * index, 5_000 + 1_117 * index
        soundfile.write(name, speech[start : start + length], 16_000 if index % 5 == 0 else 22_050, subtype="PCM_16")
    return folder


@pytest.fixture
def add_broken(golden):
    """add_broken(folder) puts one file of each kind there; returns the status that each must get, by id."""

    def add(folder: Path) -> dict[str, str]:
        speech = golden["0.wav"]
        nan = speech.copy()
        nan[1000] = np.nan
        waves = {"nan": nan, "silent": np.zeros(9000, np.float32), "too-short": speech[:512], "none": speech[:0]}
        for name, wave in waves.items():
            soundfile.write(folder / f"{name}.wav", wave, 22_050, subtype="FLOAT")
        for name in ("cut.flac", "cut.wav"):
            soundfile.write(folder / name, speech, 22_050, subtype="PCM_16")
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: len(content) * 2 // 3])
        for name, options in COMPRESSED.items():
            soundfile.write(folder / name, np.tile(speech, 3), 24_000, **options)
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: len(content) // 2])
        for name in ("text.wav", "text.mp3"):
            (folder / name).write_text("this is not sound")
        (folder / "empty.flac").touch()
        (folder / "gone.wav").symlink_to("nowhere")
        os.mkfifo(folder / "pipe.wav")  # not an utterance
        unreadable = dict.fromkeys(("text.wav", "text.mp3", "empty", "gone"), "unreadable")
        short = dict.fromkeys(("too-short", "none"), "too-short")
        truncated = dict.fromkeys(("cut.flac", "cut.wav", *COMPRESSED), "truncated")
        return {"nan": "nan", "silent": "silent", **truncated, **unreadable, **short}

    return add


@pytest.fixture
def utterances():
    """utterances(folder): what preprocess finds there."""
    return lambda folder: find_utterances([folder])


@pytest.fixture
def landmine():
    """with landmine(path): whoever opens the named pipe ``path`` to read is killed, whenever that is."""

    @contextmanager
    def lay(path: Path):
        os.mkfifo(path)
        ended = threading.Event()

        def kill_readers() -> None:
            while not ended.is_set():
                pipe = os.open(path, os.O_WRONLY)  # waits until somebody reads
                for entry in Path("/proc").glob("[0-9]*"):
                    if int(entry.name) != os.getpid() and any(same(link, path) for link in opened(entry)):
                        os.kill(int(entry.name), signal.SIGKILL)
                os.close(pipe)

        def opened(entry: Path) -> list[Path]:
            try:
                return list((entry / "fd").iterdir())
            except OSError:
                return []

        def same(link: Path, target: Path) -> bool:
            try:
                return link.readlink() == target
            except OSError:
                return False

        thread = threading.Thread(target=kill_readers, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # lets the thread go
            thread.join(timeout=10)

    return lay
