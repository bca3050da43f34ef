"""Memory and equality on a long file: speech repeated for hours, encoded in a process of its own.

    python benchmarks/long_file.py --hours 10

Prints the peak resident memory for that file and for one a tenth as long, and compares the first minutes' codes with a
single whole-file pass over just those minutes plus what the codes there can see.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from melcodec.audio.io import load
from melcodec.codec import Codec

CLIPS = sorted((Path(__file__).parents[1] / "examples").glob("*.flac"))
RATE = 22_050
COMPARED_SECONDS = 240

CHILD = """
import resource, sys, time
from melcodec.cli.main import main
started = time.perf_counter()
try:
    main()
except SystemExit as end:
    assert not end.code
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_speech(path: Path, hours: float) -> None:
    """Write the example clips over and over, 16-bit FLAC."""
    speech = np.concatenate([load(clip, RATE) for clip in CLIPS])
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        left = int(hours * 3600 * RATE)
        while left > 0:
            file.write(speech[:left])
            left -= len(speech)


def encode(path: Path, target: Path, checkpoint: str) -> tuple[float, float]:
    """Encode in a new process -> seconds, peak MiB."""
    command = [sys.executable, "-c", CHILD, "encode", str(path), "-o", str(target), "--checkpoint", checkpoint, "--device", "cpu"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    taken, peak = done.stdout.split()
    return float(taken), float(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--checkpoint", default="melcodec-base")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for hours in (options.hours / 10, options.hours):
            path, target = folder / f"{hours}.flac", folder / f"{hours}.npy"
            write_speech(path, hours)
            taken, peak = encode(path, target, options.checkpoint)
            speed = hours * 3600 / taken
            print(f"{hours:6.2f} h: {np.load(target).shape[1]} codes, peak {peak:.0f} MiB, {speed:.0f}x real time", flush=True)
        codec = Codec.from_pretrained(options.checkpoint, "cpu")
        codec.chunk_codes = 1 << 40  # one window: the whole-file pass
        whole = codec.encode(load_start(path))[0].numpy()
        compared = whole.shape[1] - 16  # what the cut end of the short piece can reach
        same = (np.load(target)[:, :compared] == whole[:, :compared]).mean()
        print(f"first {compared} codes: {100 * same:.4f} % equal to one whole pass")


def load_start(path: Path) -> np.ndarray:
    """The first minutes of a file (S,)."""
    wav, _ = soundfile.read(path, frames=COMPARED_SECONDS * RATE, dtype="float32")
    return wav


if __name__ == "__main__":
    main()
