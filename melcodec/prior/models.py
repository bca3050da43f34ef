"""A trained prior: what it predicts, and its folder, which holds:

    prior.json                        the code space (fingerprint, K of each codebook, rates), pattern, kind, figures
    ngram.safetensors                 n-gram counts and their smoothing: the prior itself of kind ngram, else a baseline
    baselines.safetensors             n-grams of lower orders, for ``prior score``; may be missing
    config.json, model.safetensors    the network, by transformers' ``save_pretrained``; not for kind ngram

Whatever loads models of the transformers library loads the folder.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.container import read_container, write_container
from melcodec.metrics import ngram
from melcodec.metrics.ngram import NGram
from melcodec.prior.facts import FACTS, FORMAT, VERSION, read_facts
from melcodec.prior.reading import CodeSpace
from melcodec.prior.stepper import Core, Session, build_core, whole_logits
from melcodec.tokens import Pattern, Tokens

TABLE, BASELINES = "ngram.safetensors", "baselines.safetensors"
TABLE_KIND, BASELINES_KIND = "ngram", "ngram baselines"


class Growing(Protocol):
    """Sequences that grow together; see ``stepper.Session``."""

    def next(self, rows: np.ndarray) -> np.ndarray:
        """The next row of each sequence (B, W) -> float64 logits (B, V) of the row after it; the first row is begin."""


@dataclass(frozen=True)
class Prior:
    """A probability of codes.

    Args:
        space: whose codes.
        pattern: how codes become rows of tokens.
        table: the n-grams.
        network: of the transformers library, in eval mode; None: the n-grams are the prior.
        figures: what training measured, JSON values.
        baselines: n-grams of lower orders, for comparison.
    """

    space: CodeSpace
    pattern: Pattern
    table: NGram
    network: torch.nn.Module | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    baselines: tuple[NGram, ...] = ()

    @property
    def kind(self) -> str:
        """ngram, llama or mamba."""
        return "ngram" if self.network is None else str(self.network.config.model_type)  # type: ignore[union-attr]

    @property
    def tokens(self) -> Tokens:
        """Vocabulary and layout."""
        return Tokens(self.space.sizes, self.pattern)

    @property
    def can_end(self) -> bool:
        """Whether it predicts where an utterance ends; n-grams do not."""
        return self.network is not None

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits of SHA-256 over everything that decides a probability."""
        digest = hashlib.sha256(json.dumps([asdict(self.space), self.pattern], sort_keys=True).encode())
        if self.network is not None:
            arrays = {name: value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}
            digest.update(json.dumps(_deciding(self.network), sort_keys=True).encode())
        else:
            arrays, meta = ngram.to_arrays(self.table)
            digest.update(json.dumps(meta, sort_keys=True).encode())
        for name in sorted(arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        return digest.hexdigest()[:12]

    @cached_property
    def _core(self) -> dict[torch.dtype, Core]:
        return {}

    def core(self, dtype: torch.dtype) -> Core:
        """The network's arithmetic in ``dtype``."""
        assert self.network is not None
        if dtype not in self._core:
            self._core[dtype] = build_core(self.network, dtype)
        return self._core[dtype]

    def logits(self, codes: np.ndarray, dtype: torch.dtype = torch.float32) -> Iterator[np.ndarray]:
        """Codes (Q, N) -> float64 logits of every row given those before it, in blocks (n, V); n-grams are always float64."""
        rows = self.tokens.rows(codes)
        if self.network is None:
            growing = self.start()
            for row in np.concatenate([np.full((1, self.tokens.width), self.tokens.begin), rows])[:-1]:
                yield growing.next(row[None])
            return
        for block in whole_logits(self.core(dtype), self.tokens, torch.from_numpy(rows)):
            yield block.double().numpy()

    def surprise(self, codes: np.ndarray) -> np.ndarray:
        """Codes (Q, N) -> (Q, N) bits of each, the length being known: -log2 of its share among the codes of its codebook."""
        if self.network is None:
            return self.table.surprise(codes)
        tokens, rows, first = self.tokens, self.tokens.rows(codes), 0
        bits = np.zeros(rows.shape)
        for block in self.logits(codes):
            for column in range(tokens.width):
                part = rows[first : first + len(block), column]
                for book in {tokens.book(row, column) for row in range(len(tokens.sizes))}:
                    begin, size = tokens.first(book), tokens.sizes[book]
                    mine = np.flatnonzero((part >= begin) & (part < begin + size))
                    logs = torch.from_numpy(block[mine, begin : begin + size]).log_softmax(-1).numpy()
                    bits[first + mine, column] = -logs[np.arange(len(mine)), part[mine] - begin] / np.log(2)
            first += len(block)
        return tokens.by_book(bits)

    def start(self, batch: int = 1, dtype: torch.dtype = torch.float32) -> Growing:
        """``batch`` sequences without a row."""
        if self.network is None:
            return _GrowingTable(self.table, self.tokens, batch)
        return _GrowingNetwork(Session(self.core(dtype), batch))


class _GrowingNetwork:
    def __init__(self, session: Session) -> None:
        self.session = session

    @torch.inference_mode()
    def next(self, rows: np.ndarray) -> np.ndarray:
        return self.session.next(torch.from_numpy(rows)).double().numpy()


class _GrowingTable:
    """Histories of codes (flat pattern), of which each codebook sees its own last ones."""

    def __init__(self, table: NGram, tokens: Tokens, batch: int) -> None:
        self.table, self.tokens = table, tokens
        self.past: list[list[list[int]]] = [[[] for _ in tokens.sizes] for _ in range(batch)]
        self.row, self.started = 0, False  # the row that is predicted next; whether begin was read

    def next(self, rows: np.ndarray) -> np.ndarray:
        books = len(self.tokens.sizes)
        if self.started:
            book = self.row % books
            for past, (token,) in zip(self.past, rows.tolist(), strict=True):
                past[book] = [*past[book], token - self.tokens.first(book)][-max(1, self.table.order) :]
            self.row += 1
        self.started = True
        book = self.row % books
        first, size = self.tokens.first(book), self.tokens.sizes[book]
        result = np.full((len(rows), self.tokens.vocabulary), -np.inf)
        for line, past in zip(result, self.past, strict=True):
            line[first : first + size] = np.log(self.table.books[book].probabilities(np.array(past[book], np.int64)))
        return result


def _deciding(network: torch.nn.Module) -> dict[str, Any]:
    """The settings that decide what a network computes from its weights."""
    config: Any = network.config
    names = ("model_type", "num_attention_heads", "rms_norm_eps", "layer_norm_epsilon", "max_position_embeddings", "state_size")
    return {name: getattr(config, name, None) for name in names}


def save_prior(folder: Path, prior: Prior) -> None:
    """Write ``prior`` into ``folder``, file by file aside and renamed; other files there stay.

    Weights that float16 holds without a difference, as ``rounded`` makes them, are written in float16.
    """
    arrays, meta = ngram.to_arrays(prior.table)
    write_container(folder / TABLE, _tensors(arrays), {"kind": TABLE_KIND, **meta})
    if prior.baselines:
        parts = [ngram.to_arrays(table) for table in prior.baselines]
        named = {f"n{meta['order']}.{name}": value for arrays, meta in parts for name, value in arrays.items()}
        write_container(folder / BASELINES, _tensors(named), {"kind": BASELINES_KIND, "models": [meta for _, meta in parts]})
    if prior.network is not None:
        with tempfile.TemporaryDirectory(prefix=".network.", dir=folder) as name:
            _narrowest(prior.network).save_pretrained(name)  # type: ignore[operator]
            for path in sorted(Path(name).iterdir()):
                path.chmod((folder / TABLE).stat().st_mode)  # safetensors lets no one else read its files
                path.replace(folder / path.name)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "kind": prior.kind,
        "space": asdict(prior.space),
        "pattern": prior.pattern,
        "fingerprint": prior.fingerprint,
        "figures": prior.figures,
    }
    with written_aside(folder / FACTS) as aside:
        aside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def rounded(network: torch.nn.Module) -> torch.nn.Module:
    """A copy whose float32 weights are numbers of float16, so that its file is half as large."""
    result = copy.deepcopy(network)
    with torch.no_grad():
        for weight in result.parameters():
            weight.copy_(weight.half())
    return result


def _narrowest(network: torch.nn.Module) -> torch.nn.Module:
    half = copy.deepcopy(network).half()
    pairs = zip(half.state_dict().values(), network.state_dict().values(), strict=True)
    return half if all(torch.equal(narrow.float(), wide) for narrow, wide in pairs) else network


def load_prior(folder: Path) -> Prior:
    """Read what ``save_prior`` wrote.

    Raises:
        MelcodecError: not a prior, damaged, from a newer melcodec, or the transformers package is missing.
    """
    facts = read_facts(folder)
    try:
        space = CodeSpace(**facts["space"] | {"sizes": tuple(facts["space"]["sizes"])})
        meta, tensors = read_container(folder / TABLE, TABLE_KIND)
        table = ngram.from_arrays({name: value.numpy() for name, value in tensors.items()}, meta)
        baselines = _load_baselines(folder / BASELINES) if (folder / BASELINES).exists() else ()
        network = None if facts["kind"] == "ngram" else _load_network(folder)
        prior = Prior(space, facts["pattern"], table, network, facts["figures"], baselines)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise MelcodecError(f"{folder}: not a prior, or damaged ({error})") from None
    if prior.fingerprint != facts["fingerprint"]:
        raise MelcodecError(f"{folder}: damaged: its content has fingerprint {prior.fingerprint}, not {facts['fingerprint']}")
    return prior


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}


def _load_baselines(path: Path) -> tuple[NGram, ...]:
    meta, tensors = read_container(path, BASELINES_KIND)
    found = []
    for each in meta["models"]:
        prefix = f"n{each['order']}."
        arrays = {name.removeprefix(prefix): value.numpy() for name, value in tensors.items() if name.startswith(prefix)}
        found.append(ngram.from_arrays(arrays, each))
    return tuple(found)


def _load_network(folder: Path) -> torch.nn.Module:
    from safetensors import SafetensorError

    from melcodec.prior.network import need_transformers

    transformers = need_transformers()
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise MelcodecError(f"{folder}: its network cannot be read: {str(error).splitlines()[0]}") from None
