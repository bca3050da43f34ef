"""The delay of streams: what must be waited for, what is computed, and how late codes leave a real pipe.

    python benchmarks/streaming.py --checkpoint melcodec-base

* look-ahead: sound that a code waits for, and sound that a sample waits for, as the model and the vocoder say;
* compute: CPU time on one thread of the pushes that give one code, and of those that give the sound of one code;
* pipe: ``melcodec encode - -o -`` is fed a wav at the pace of a microphone, in blocks of ``--block`` ms. Of each code: the time
  from the arrival of the last sample that it depends on until its line is read, minus half a block that it waits for its block on
  average. A machine that does other work as well shows in the 95th percentile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from melcodec.cli._streams import wav_header

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.streaming.decoder import StreamingDecoder
from melcodec.streaming.encoder import StreamingEncoder

CLIP = Path(__file__).parents[1] / "examples" / "lj_en.flac"


def cpu_ms(push, items) -> float:
    """CPU milliseconds of a push, the median over ``items`` after the first third."""
    times = []
    for item in items:
        start = time.process_time()
        push(item)
        times.append(1000 * (time.process_time() - start))
    return float(np.median(times[len(times) // 3 :]))


def lateness(checkpoint: str, wav: np.ndarray, rate: int, block: int, lookahead: int, per_code: int) -> np.ndarray:
    """Seconds that each code came after the samples that it needs were written."""
    samples = np.round(wav * 32_767).astype("<i2")
    command = [sys.executable, "-m", "melcodec", "encode", "-", "-o", "-", "-c", checkpoint, "--device", "cpu"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdin.write(wav_header(rate))
        process.stdin.flush()
        process.stdout.readline()
        start = time.perf_counter()

        def feed() -> None:
            for at in range(0, len(samples), block):
                time.sleep(max(0.0, start + (at + block) / rate - time.perf_counter()))
                process.stdin.write(samples[at : at + block].tobytes())
                process.stdin.flush()
            process.stdin.close()

        threading.Thread(target=feed).start()
        late: list[float] = []
        for line in process.stdout:
            now = time.perf_counter() - start
            for _ in json.loads(line).get("codes", [[]])[0]:
                late.append(now - (len(late) * per_code + lookahead) / rate)
    return np.array(late[: (len(wav) - lookahead) // per_code]) - block / rate / 2


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="melcodec-base")
    parser.add_argument("--vocoder", default="griffin-lim")
    parser.add_argument("--block", type=float, default=20.0, help="ms")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    codec = Codec.from_pretrained(arguments.checkpoint, "cpu", arguments.vocoder)
    wav, rate, step = load(CLIP, codec.sample_rate), codec.sample_rate, codec.samples_per_code
    encoder, decoder = StreamingEncoder(codec), StreamingDecoder(codec)
    encode = cpu_ms(encoder.push, [wav[at : at + step] for at in range(0, len(wav), step)])
    codes = codec.encode(wav)[0]
    sound = cpu_ms(decoder.push, [codes[:, at : at + 1] for at in range(codes.shape[-1])])
    whole = StreamingDecoder(codec)
    start = time.process_time()
    for at in range(codes.shape[-1]):
        whole.push(codes[:, at : at + 1])
    mean = 1000 * (time.process_time() - start) / codes.shape[-1]
    late = lateness(arguments.checkpoint, wav, rate, int(arguments.block / 1000 * rate), encoder.lookahead, step)
    rows = [
        ("a code lasts", f"{1000 * step / rate:.1f} ms"),
        ("encoder: look-ahead", f"{1000 * encoder.lookahead / rate:.0f} ms"),
        ("encoder: compute of a code", f"{encode:.1f} ms"),
        (f"encoder: through pipes, blocks of {arguments.block:g} ms, median", f"look-ahead + {1000 * np.median(late):.0f} ms"),
        ("encoder: the same, 95 of 100 codes", f"look-ahead + {1000 * np.percentile(late, 95):.0f} ms"),
        (f"decoder with {arguments.vocoder}: look-ahead, at most", f"{1000 * decoder.lookahead / rate:.0f} ms"),
        ("decoder: compute of a code, median and mean", f"{sound:.1f} and {mean:.1f} ms"),
    ]
    print(f"| {arguments.checkpoint}, one CPU thread | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))


if __name__ == "__main__":
    main()
