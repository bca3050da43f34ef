"""``melcodec preprocess`` under kill -9, again and again: are the bytes those of an undisturbed run?

    python benchmarks/kills.py FOLDER [--files 300] [--kills 100]

Copies files of FOLDER, makes one in twenty useless, and encodes them once in peace. Then the same command is killed at
random moments (its driver, a worker, or all its processes) and started again. Each time a store is finished it must be
equal to the undisturbed one, byte for byte, and a new one is begun. The exit status is 1 when one was not.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from melcodec.audio.io import find_audio
from melcodec.store.verify import verify

VICTIMS = ("driver", "worker", "all")
DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"this is not sound",
    "turned": lambda content: content[:2000] + bytes(255 - byte for byte in content[2000:4000]) + content[4000:],
}


def write_corpus(source: Path, folder: Path, count: int, chance: random.Random) -> None:
    """``count`` files, five in a hundred of them damaged."""
    found = find_audio(source)
    for index, path in enumerate(chance.sample(found, min(count, len(found)))):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        if index % 20 == 0:
            damage = DAMAGES[list(DAMAGES)[index // 20 % len(DAMAGES)]]
            target.write_bytes(damage(path.read_bytes()))


def launch(corpus: Path, store: Path, checkpoint: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "melcodec", "preprocess", str(corpus), "-o", str(store), "-c", checkpoint]
    command += ["--device", "cpu", "--num-workers", "2", "--unit-size", "10", "--max-failures", "100%"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def workers(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children()
        return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
    return []


def contents(store: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    found.pop(".lock", None)
    return found


def what_differs(store: Path, expected: dict[str, bytes], status: int) -> list[str]:
    found = contents(store)
    names = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    return [f"status {status}"] * (status != 0) + names + verify(store).problems


def kill_one(running: subprocess.Popen[bytes], chance: random.Random) -> str:
    """Kill the driver, a worker or all of them; the name of who it was, empty when there was nobody yet."""
    victim, children = chance.choice(VICTIMS), workers(running.pid)
    targets = {"driver": [running.pid], "worker": children[:1], "all": [*children, running.pid]}[victim]
    for pid in targets:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return victim if targets else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--checkpoint", default="melcodec-base")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    kills, units, wrong = collections.Counter[str](), set[int](), []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        corpus, store, undisturbed = root / "corpus", root / "store", root / "undisturbed"
        write_corpus(options.folder, corpus, options.files, chance)
        began = time.perf_counter()
        status = launch(corpus, undisturbed, options.checkpoint).wait()
        span = time.perf_counter() - began
        expected, verdict = contents(undisturbed), verify(undisturbed)
        print(f"undisturbed: status {status}, {span:.1f} s, {verdict.planned} files, problems: {verdict.problems}", flush=True)
        stores = 0
        running = launch(corpus, store, options.checkpoint)
        while True:
            with suppress(subprocess.TimeoutExpired):
                running.wait(chance.uniform(0, span / 2) if kills.total() < options.kills else None)
            if running.poll() is None:
                done = len(list(store.glob("parts/*.json")))
                if victim := kill_one(running, chance):
                    kills[victim] += 1
                    units.add(done)
                if victim in ("driver", "all"):
                    running.wait()
                    running = launch(corpus, store, options.checkpoint)
                continue
            differs = what_differs(store, expected, running.returncode)  # it was finished before it could be killed
            stores, wrong = stores + 1, wrong + differs
            print(f"after {kills.total()} kills store {stores} is finished: {', '.join(differs) or 'equal'}", flush=True)
            if kills.total() >= options.kills:
                break
            shutil.rmtree(store)
            running = launch(corpus, store, options.checkpoint)
    print(f"{kills.total()} kills ({', '.join(f'{what} {count}' for what, count in kills.items())}), ", end="")
    print(f"with {min(units)} to {max(units)} units done; {stores} stores, all equal: {not wrong}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
