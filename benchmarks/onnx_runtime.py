"""How long `melcodec encode` of a 5.2 s clip takes as a whole command, with torch and with an ONNX export.

python benchmarks/onnx_runtime.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile

from startup import CLIP, seconds

ROUNDS = 7


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
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS + 1):  # in turn, so that a slow moment of the machine hits all; the first round warms up
            for name, command in commands.items():
                times[name].append(seconds(command))
    for name, values in times.items():
        print(f"{name:<32} {statistics.median(values[1:]):6.2f} s  (fastest {min(values[1:]):.2f})")


if __name__ == "__main__":
    main()
