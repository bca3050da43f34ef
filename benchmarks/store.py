"""A store of many short utterances beside one ``.npy`` for each: written, scanned, read at random, exported.

    python benchmarks/parquet.py [--utterances 100000] [--codes 200]

Every line is both in one run, on one disk; reads come from the system's cache for both. Random reads make tensors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from melcodec.config import MelConfig
from melcodec.manifests.base import Utterance
from melcodec.store import layout, parquet
from melcodec.store.commit import commit
from melcodec.store.dataset import CodesDataset
from melcodec.store.export import export
from melcodec.store.parquet import Row
from melcodec.store.plan import extend_plan

K, HOP, RATE = 1024, 1024, 22_050
SPEC = {
    "format": layout.FORMAT,
    "version": layout.VERSION,
    "melcodec": "benchmark",
    "checkpoint": "none",
    "fingerprint": "0" * 12,
    "mel": MelConfig().model_dump(mode="json"),
    "sizes": [K],
    "samples_per_code": HOP,
    "sample_rate": RATE,
    "settings": {},
}


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def size(folder: Path) -> int:
    """Bytes that the disk gives for it."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def write_store(folder: Path, names: list[str], codes: np.ndarray) -> None:
    """As preprocess does: a plan, then part by part, each synced and marked."""
    folder.mkdir()
    (folder / layout.RUN).write_text(json.dumps(SPEC))
    length = codes.shape[1] * HOP
    listed = [Utterance(id=name, path=f"{name}.flac", duration=length / RATE) for name in names]
    rows = {
        name: Row(name, row[None], row.size * HOP, RATE, row.size * HOP / RATE) for name, row in zip(names, codes, strict=True)
    }
    (segment,) = extend_plan(folder, listed, 0, lambda line: None)
    for number in range(len(segment.units)):
        unit = segment.unit(number)
        commit(unit, [rows[utterance.id] for utterance in unit.utterances], folder, SPEC)


def write_npy(folder: Path, names: list[str], codes: np.ndarray) -> None:
    for name, row in zip(names, codes, strict=True):
        path = folder / f"{name}.npy"
        if name.endswith("000"):
            path.parent.mkdir(parents=True)
        np.save(path, row[None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--codes", type=int, default=200, help="of each")
    options = parser.parse_args()
    chance = np.random.default_rng(0)
    popularity = chance.dirichlet(np.full(K, 0.5))  # some codes are far more frequent, as in speech
    codes = chance.choice(K, (options.utterances, options.codes), p=popularity).astype(np.uint16)
    names = [f"speaker{index // 1000:04d}/utterance{index % 1000:03d}" for index in range(options.utterances)]
    order = chance.permutation(options.utterances)[:10_000].tolist()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        ours, theirs = root / "codes", root / "npy"
        lines = [("write", timed(lambda: write_store(ours, names, codes)), timed(lambda: write_npy(theirs, names, codes)))]

        def scan_store() -> int:
            return sum(int(row.codes.sum()) for path in layout.parts(ours) for row in parquet.read_rows(path))

        def scan_npy() -> int:
            return sum(int(np.load(path).sum()) for path in sorted(theirs.rglob("*.npy")))

        assert scan_store() == scan_npy() == int(codes.sum())
        lines.append(("scan", timed(scan_store), timed(scan_npy)))

        def random_npy() -> None:
            for index in order:
                torch.from_numpy(np.load(theirs / f"{names[index]}.npy").astype(np.int64))

        def random_store(dataset: CodesDataset) -> None:
            for index in order:
                _ = dataset[index]

        opened = {}
        for words, in_memory in (("in memory", True), ("mapped", False)):
            opened[words] = timed(lambda in_memory=in_memory: CodesDataset(ours, in_memory=in_memory))
            dataset = CodesDataset(ours, in_memory=in_memory)
            assert torch.equal(dataset.by_id(names[order[0]]).codes[0], torch.from_numpy(codes[order[0]].astype(np.int64)))
            lines.append((f"10,000 at random, {words}", timed(lambda d=dataset: random_store(d)), timed(random_npy)))
        shutil.rmtree(ours / "cache", ignore_errors=True)
        disk = size(ours), size(theirs)
        export_npy = timed(lambda: write_npy(root / "again", names, codes))
        for form in ("npy", "bin", "webdataset", "huggingface", "lhotse"):
            lines.append((f"export {form}", timed(lambda form=form: export(ours, root / f"out-{form}", form)), export_npy))
        print(f"{options.utterances} utterances of {options.codes} codes; seconds, and beside one .npy each")
        print(f"{'':<28}{'store':>9}{'.npy':>9}{'ratio':>9}")
        for words, mine, other in lines:
            print(f"{words:<28}{mine:>9.2f}{other:>9.2f}{mine / other:>9.2f}")
        print(f"opening a dataset: {opened['in memory']:.2f} s in memory, {opened['mapped']:.2f} s mapped for the first time")
        bits = 8 * disk[0] / codes.size
        print(f"on disk: {disk[0] / 2**20:.0f} MiB ({bits:.1f} bits a code) and {disk[1] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
