"""``melcodec info``: what a file is, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _options as options
from melcodec.cli._console import say
from melcodec.cli._standard import input_file, plain
from melcodec.errors import MelcodecError

if TYPE_CHECKING:
    from pydantic import BaseModel

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A checkpoint (file, run folder or shipped name), a vocoder, a prior, codes, a mel, audio or .pth; - is standard "
        "input.",
        show_default=False,
    ),
]
FOLDERS = {  # what lies in a folder, and where to look then
    "run.json": "melcodec corpus info {}",
    "metrics.json": "open index.html in it",
    "config.toml": "it has no best.safetensors yet; index.html in it shows the run",
}


def info(file: File, as_json: options.AsJSON = False) -> None:
    """Say what a file is: a checkpoint, a vocoder, a prior, codes, a mel or audio. Reads headers only."""
    facts = describe(file)
    facts["file"] = plain(facts["file"])
    if as_json:
        print(json.dumps(facts))
        return
    rows = in_words(facts)
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:<{width}}  {value}")


def in_words(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What is printed for a person; groups of settings, which --json shows, are named only."""
    rows = []
    for key, value in facts.items():
        if key in ("parameters", "samples") and value is not None:
            rows.append((key, f"{value:,}"))
        elif key == "size":
            rows.append((key, f"{value:,} bytes"))
        elif isinstance(value, dict):
            plain = {name: each for name, each in value.items() if not isinstance(each, dict) and each is not None}
            rows += [(name, str(each)) for name, each in plain.items()]
            rows += [("trained from", str(value["init"].get("fingerprint")))] if isinstance(value.get("init"), dict) else []
            groups = [name for name, each in value.items() if isinstance(each, dict) and name != "init"]
            rows += [("settings", f"{', '.join(groups)}: --json shows them")] if groups else []
        else:
            rows.append((key, str(value)))
    return rows


def describe(file: str) -> dict[str, Any]:
    """Facts about ``file``, in the order to show them; values are JSON."""
    from melcodec.formats.arrays import SUFFIXES
    from melcodec.formats.shipped import HUB_WEIGHTS, ONNX_FACTS, find_checkpoint, is_run, shipped_names
    from melcodec.formats.torchfile import describe as describe_torch_file
    from melcodec.formats.torchfile import is_torch_file
    from melcodec.prior.facts import FACTS, shipped_priors

    prior = shipped_priors().get(file, Path(file))
    if prior.is_dir() and (prior / FACTS).is_file():
        return describe_prior(prior)
    path = (
        find_checkpoint(file)
        if file in shipped_names() or is_run(file) or (Path(file) / HUB_WEIGHTS).is_file()
        else input_file(Path(file))
    )
    suffix = path.suffix.lower()
    if suffix == ".safetensors" and (found := describe_container(path)):
        return found
    if suffix in (*SUFFIXES, options.MLC):
        return describe_mlc(path) if suffix == options.MLC else describe_array(path)
    if is_torch_file(path):
        holds, hint = describe_torch_file(path)
        if hint:
            say(f"hint: {hint}")
        return {"file": str(path), "kind": "PyTorch file", "holds": holds, "size": path.stat().st_size}
    refuse_folder(path)
    return describe_export(path) if (path / ONNX_FACTS).is_file() else describe_audio(path)


def describe_container(path: Path) -> dict[str, Any] | None:
    """A file that melcodec wrote as a container: a checkpoint, a vocoder or a state of a training; None for other contents."""
    from melcodec.formats.container import read_header

    meta, entries = read_header(path)
    try:
        if meta["kind"] == "checkpoint":
            return describe_checkpoint(path, meta, entries)
        if meta["kind"] == "vocoder":
            return describe_vocoder(path, meta, entries)
        if meta["kind"] in ("training state", "vocoder training state"):
            return {
                "file": str(path),
                "kind": meta["kind"],
                "step": meta["progress"]["step"],
                "best": meta["progress"]["best"],
            }
    except (KeyError, TypeError, AttributeError, ArithmeticError):  # a value is missing, or of another type
        raise MelcodecError(f"{path}: damaged: its header is not one that melcodec wrote", code="damaged") from None
    return None


def refuse_folder(path: Path) -> None:
    """Say of a folder that melcodec wrote where to look."""
    for name, hint in FOLDERS.items():
        if path.is_dir() and (path / name).is_file():
            raise MelcodecError(f"{path}: is a folder that melcodec wrote; info is for files", hint.format(path))


def describe_prior(folder: Path) -> dict[str, Any]:
    """A prior in words."""
    from melcodec.prior.facts import read_facts

    facts = read_facts(folder)
    files = [path for path in folder.iterdir() if path.is_file()]
    return {
        "file": str(folder),
        "kind": f"prior over codes ({facts['kind']})",
        "fingerprint": facts["fingerprint"],
        "checkpoint": facts["space"]["fingerprint"],
        "sizes": facts["space"]["sizes"],
        "pattern": facts["pattern"],
        **({"valid_bits_per_code": bits} if (bits := facts["figures"].get("valid_bits_per_code")) else {}),
        "size": sum(path.stat().st_size for path in files),
    }


def describe_mlc(path: Path) -> dict[str, Any]:
    """Entropy-coded codes in words; the number of codes is known where the prior that made them came with melcodec."""
    from melcodec.prior.facts import read_facts, shipped_priors
    from melcodec.prior.mlc import made_with, read_mlc, unpack

    content = read_mlc(path)
    priors = {name: read_facts(folder) for name, folder in shipped_priors().items()}
    name = next((name for name, facts in priors.items() if facts["fingerprint"].startswith(made_with(content) or "-")), None)
    space = priors[name]["space"] if name else {}
    header, _ = unpack(content, str(path), space.get("samples_per_code", 1))
    seconds = header.num_samples / space["sample_rate"] if space and header.num_samples else None
    return {
        "file": str(path),
        "kind": "codes, entropy-coded",
        "checkpoint": f"{header.codec}...",
        "prior": name or f"{header.prior}...",
        "codes": header.num_codes if space else None,
        "samples": header.num_samples,
        "source_rate": header.source_rate,
        "bit_rate": round(8 * len(content) / seconds, 1) if seconds else None,
        "size": len(content),
    }


def describe_export(path: Path) -> dict[str, Any]:
    """A folder of melcodec export-onnx in words."""
    from melcodec.onnx.folder import read_facts

    facts = read_facts(path)
    return {
        "file": str(path),
        "kind": "ONNX export",
        "fingerprint": facts.fingerprint,
        "sizes": list(facts.sizes),
        "backbone": facts.model.backbone.kind,
        "quantizer": facts.model.quantizer.kind,
        "vocoder": facts.vocoder.kind,
        "opset": facts.opset,
        "codes_compared": facts.agreement.codes,
        "near_ties": facts.agreement.near_ties,
    }


def describe_checkpoint(path: Path, meta: dict[str, Any], entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A checkpoint's header in words."""
    from math import prod

    from melcodec.config import ModelConfig, parse
    from melcodec.metrics.codes import bit_rate

    model = parse(ModelConfig, meta["model"], str(path))
    mel, backbone, quantizer = model.mel, model.backbone, model.quantizer
    weights = sum(prod(entry["shape"]) for key, entry in entries.items() if key.startswith(("encoder.", "decoder.")))
    hop = mel.hop_length * backbone.stride
    return {
        "file": str(path),
        "kind": "checkpoint",
        "fingerprint": meta["fingerprint"],
        "parameters": weights,
        "stored as": ", ".join(sorted({entry["dtype"] for entry in entries.values()})),
        "size": path.stat().st_size,
        "backbone": words(backbone),
        "quantizer": words(quantizer),
        "latents": f"D {model.dim}",
        "codebooks": " + ".join(f"K {size:,}" for size in quantizer.sizes),
        "mel": f"{mel.n_mels} bands, {mel.sample_rate} Hz, hop {mel.hop_length}",
        "codes per second": round(mel.sample_rate / hop, 3),
        "bits per second": round(bit_rate(mel.sample_rate, hop, quantizer.sizes), 1),
        "provenance": meta["provenance"],
    }


def describe_vocoder(path: Path, meta: dict[str, Any], entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A vocoder's header in words."""
    from math import prod

    from melcodec.config import MelConfig, VocosConfig, parse

    return {
        "file": str(path),
        "kind": "vocoder",
        "network": words(parse(VocosConfig, meta["network"], str(path))),
        "parameters": sum(prod(entry["shape"]) for entry in entries.values()),
        "stored as": ", ".join(sorted({entry["dtype"] for entry in entries.values()})),
        "size": path.stat().st_size,
        "mel": words(parse(MelConfig, meta["mel"], str(path))),
        "provenance": meta["provenance"],
    }


def words(settings: BaseModel) -> str:
    """A group of settings on one line, its kind first: ``conv, hidden 256, num_blocks 3``."""
    from pydantic import BaseModel

    parts: list[str] = []
    for name, value in settings:
        if name == "kind":
            parts.insert(0, str(value))
        else:
            parts.append(f"{name} {f'({words(value)})' if isinstance(value, BaseModel) else value}")
    return ", ".join(parts)


def describe_array(path: Path) -> dict[str, Any]:
    """A codes or mel file's header in words."""
    from melcodec.formats.arrays import read_array_header

    name, header = read_array_header(path)
    kind = name or (
        "codes" if header.dtype.startswith(("uint", "int")) else "mel" if header.dtype.startswith("float") else "array"
    )
    facts = {"file": str(path), "kind": kind, "shape": list(header.shape), "dtype": header.dtype}
    return facts | {key: value for key, value in header.facts.items() if key not in ("kind", "format")}


def describe_audio(path: Path) -> dict[str, Any]:
    """An audio file's header in words."""
    from melcodec.audio.io import probe

    audio = probe(path)
    return {
        "file": str(path),
        "kind": "audio",
        "format": f"{audio.format}, {audio.subtype}",
        "sample rate": audio.sample_rate,
        "channels": audio.channels,
        "samples": audio.num_samples,
        "seconds": None if audio.seconds is None else round(audio.seconds, 3),
    }
