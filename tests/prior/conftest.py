"""Codes with structure: speakers with habits, so that n-grams and networks have something to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melcodec.prior.config import LlamaSettings, MambaSettings
from melcodec.prior.models import Prior
from melcodec.prior.reading import CodeSpace

SIZE = 32  # K of tests/conftest.py's tiny checkpoint
NETWORKS = {
    "llama": LlamaSettings(layers=2, width=16, heads=2, feed_forward=24, context=16),
    "mamba": MambaSettings(layers=1, width=16, state=4, context=16),
}


def spoken_codes(count: int, seed: int, length: int = 40, sizes: tuple[int, ...] = (SIZE,)) -> list[np.ndarray]:
    """Utterances (Q, N) of a chain in which every code has few successors; other codebooks follow the first one."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        line = [int(random.integers(sizes[0]))]
        while len(line) < length + int(random.integers(length)):
            line.append((line[-1] * 5 + int(random.integers(3)) ** 2 + len(line) % 2) % sizes[0])
        first = np.array(line)
        found.append(np.stack([(first * (book + 1) + book) % size for book, size in enumerate(sizes)]))
    return found


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Many threads on few cores wait for each other at every small product."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def codes_folder(tmp_path_factory, tiny_checkpoint) -> Path:
    """12 speakers with 4 .npz files each, of the tiny checkpoint: s0/0.npz ... Not to be changed."""
    from melcodec.codec import Codec
    from melcodec.store.codes import Codes, save_codes

    codec = Codec.from_pretrained(tiny_checkpoint, "cpu")
    folder = tmp_path_factory.mktemp("codes")
    for speaker in range(12):
        for index, codes in enumerate(spoken_codes(4, speaker)):
            facts = Codes(codes, codes.shape[1] * 1024 - 1, 16_000, codec.fingerprint, (SIZE,))
            save_codes(folder / f"s{speaker}" / f"{index}.npz", facts)
    return folder


def make_prior(kind: str, sizes: tuple[int, ...] = (SIZE,), pattern: str = "flat", fingerprint: str = "0123456789ab") -> Prior:
    """A prior with counted n-grams and, for llama and mamba, a network of random weights that are not small."""
    import torch

    from melcodec.metrics import ngram
    from melcodec.prior.network import build_network
    from melcodec.tokens import Tokens

    data = spoken_codes(30, 1, sizes=sizes)
    tables = [ngram.fit(data[:24], data[24:], sizes, order) for order in (1, 2, 3)]
    network = None
    if kind != "ngram":
        torch.manual_seed(0)
        network = build_network(NETWORKS[kind], Tokens(sizes, pattern)).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return Prior(CodeSpace(fingerprint, sizes, 22_050, 1024), pattern, tables[-1], network, {}, tuple(tables[:-1]))
