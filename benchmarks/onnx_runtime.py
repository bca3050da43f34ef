"""How long `melcodec encode` of a 5.2 s clip takes as a whole command, with torch and with an ONNX export.

python benchmarks/onnx_runtime.py
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile

from startup import CLIP, seconds

ROUNDS = 5


def processor_time() -> float:
    """Seconds that the processes which have ended took, of user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    melcodec = [sys.executable, "-m", "melcodec"]
    with tempfile.TemporaryDirectory() as folder:
        seconds([*melcodec, "export-onnx", "melcodec-base", "-o", f"{folder}/onnx"])
        encode = [*melcodec, "encode", str(CLIP), "-o", f"{folder}/codes.npz", "-f"]
        decode = [*melcodec, "decode", f"{folder}/codes.npz", "-o", f"{folder}/out.wav", "-f"]
        onnx = ["--runtime", "onnx", "--checkpoint", f"{folder}/onnx"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "encode": encode,
            "encode --runtime onnx": [*encode, *onnx],
            "decode to wav": decode,
            "decode to wav --runtime onnx": [*decode, *onnx],
        }
        clock: dict[str, list[float]] = {name: [] for name in commands}
        processor: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS + 1):  # in turn, so that a slow moment of the machine hits all; the first round warms up
            for name, command in commands.items():
                before = processor_time()
                clock[name].append(seconds(command))
                processor[name].append(processor_time() - before)
    print(f"{'command':<30} {'clock, median':>14} {'fastest':>8} {'processor':>10}   seconds")
    for name in commands:
        times, used = clock[name][1:], processor[name][1:]
        print(f"{name:<30} {statistics.median(times):14.2f} {min(times):8.2f} {statistics.median(used):10.2f}")


if __name__ == "__main__":
    main()
