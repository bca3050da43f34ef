"""How long a user waits before anything happens: whole commands, against an empty Python and against `import torch`.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLIP = Path(__file__).parents[1] / "examples" / "lj_en.flac"
ROUNDS = 7


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    melcodec = [sys.executable, "-m", "melcodec"]
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
            "melcodec --help": [*melcodec, "--help"],
            "melcodec info melcodec-base": [*melcodec, "info", "melcodec-base"],
            "melcodec encode (5.2 s clip)": [*melcodec, "encode", str(CLIP), "-o", f"{folder}/codes.npy", "-f"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS + 1):  # in turn, so that a slow moment of the machine hits all; the first round warms up
            for name, command in commands.items():
                times[name].append(seconds(command))
    torch = statistics.median(times["python -c 'import torch'"][1:])
    print(f"{'command':<32} {'median s':>9} {'x import torch':>15}")
    for name, values in times.items():
        median = statistics.median(values[1:])
        print(f"{name:<32} {median:9.2f} {median / torch:15.2f}")


if __name__ == "__main__":
    main()
