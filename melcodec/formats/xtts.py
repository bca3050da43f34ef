"""Conversion of XTTS files: ``dvae.pth`` and ``mel_stats.pth``, read and written.

melcodec's tensors carry the names that Coqui's ``DiscreteVAE`` gives them, so nothing is renamed: coming in, wrappers and
prefixes are taken off; going out, the three buffers that only Coqui's class has (``unused_buffers``) are added, because
its strict load demands them although nothing reads them. ``xtts_trainer`` writes into a GPT trainer's file.

Pickle is never trusted: files are read with ``weights_only=True`` and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from melcodec.audio.stats import checked_norms, load_mel_norms, save_mel_norms
from melcodec.config import ConvConfig, EMAConfig, MelConfig, ModelConfig, load_preset, parse, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.files import written_aside
from melcodec.formats.checkpoint import Checkpoint, training_only
from melcodec.vqvae import build_vqvae

DVAE_FILE, MEL_STATS_FILE = "dvae.pth", "mel_stats.pth"
# what torch.compile, DistributedDataParallel, FSDP and activation checkpointing put into the name of the module they wrap
MODULE_WRAPPERS = re.compile(r"(?<=\.)(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
WRAPPERS = ("model", "state_dict", "model_state_dict")
# what shows where in a larger file the DVAE stands, best first
ANCHORS = ("codebook.embed", "encoder.0.0.weight", "decoder.0.weight")
# as Xtts and GPTTrainer name them; the first is what the DVAE itself was fed with
MEL_KEYS = ("torch_mel_spectrogram_dvae.mel_norms", "mel_stats")
DVAE_PREFIX = "dvae."  # of a GPT trainer's keys
UNUSED = "discrete_loss."  # of the buffers that only Coqui's class has
ACCUMULATOR_STEPS = 100  # rows of discrete_loss.accumulator
RE_SAVE = 'where its code is trusted, save the tensors alone: torch.save(model.state_dict(), "dvae.pth")'


class KnownFile(NamedTuple):
    """A published file and the licence of its weights."""

    name: str
    licence: str


KNOWN_FILES = {  # by SHA-256
    "b29bc227d410d4991e0a8c09b858f77415013eeb9fba9650258e96055557d97a": KnownFile(
        "official XTTS v2 dvae.pth", "Coqui Public Model License"
    ),
    "a990825371506c16bcf0e8167bf24ccf82f65bb6a1dbcbfcf058d76f9b197e35": KnownFile("Tortoise dvae.pth", "Apache-2.0"),
}
OTHER_LICENCE = "that of the imported file; what is fine-tuned from XTTS v2 stays under the Coqui Public Model License"


@dataclass(frozen=True)
class ImportReport:
    """What an import found.

    Args:
        checkpoint: the weights, float32, with their moving averages.
        sha256: of the file, hexadecimal.
        known: the name of a published file with this hash, or None.
        notes: what was chosen or mended on the way, one sentence each.
    """

    checkpoint: Checkpoint
    sha256: str
    known: str | None
    notes: tuple[str, ...]


def import_xtts(path: Path, mel_stats: Path | None = None) -> ImportReport:
    """Read the DVAE of XTTS or Tortoise: a state dict, flat, nested or prefixed, or a GPT trainer's checkpoint.

    Args:
        path: a ``torch.save`` file.
        mel_stats: norms (80,), see ``audio.stats``; None takes the norms inside ``path``, else those of XTTS.

    Raises:
        MelcodecError: needs pickle, is no torch file, or a tensor is missing, unknown, misshapen or not finite.
    """
    found = _without_wrappers(state_dict_in(torch_load(path), path), path)
    prefix = dvae_prefix(found, path)
    ours = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    ours = {key: value for key, value in ours.items() if not key.startswith(UNUSED) and key not in MEL_KEYS}
    config = _config_of(ours, path)
    tensors = _checked(ours, config, path)
    mel_norms, mel_note = _mel_norms(found, path, mel_stats)

    notes = [mel_note]
    if prefix:
        notes.append(f"the DVAE is its '{prefix}*' keys")
    if other_types := {str(value.dtype).removeprefix("torch.") for value in ours.values()} - {"float32"}:
        notes.append(f"{' and '.join(sorted(other_types))} tensors became float32")
    if not training_only(config) <= ours.keys():
        notes.append("moving averages were missing and were rebuilt, with a count of one for every code")
    sha256 = _sha256(path)
    known = KNOWN_FILES.get(sha256, KnownFile("", OTHER_LICENCE))
    provenance = {"source": path.name, "sha256": sha256, "known": known.name or None, "licence": known.licence}
    whole = Checkpoint(config, mel_norms, tensors, provenance).build().state_dict()  # with averages, if they were missing
    checkpoint = Checkpoint(config, mel_norms, dict(whole), provenance)
    return ImportReport(checkpoint, sha256, known.name or None, tuple(notes))


def export_xtts(checkpoint: Checkpoint, folder: Path, overwrite: bool = False) -> tuple[str, ...]:
    """Write ``folder/dvae.pth``, which Coqui's ``DiscreteVAE`` loads strictly, and ``folder/mel_stats.pth``, (80,) float32.

    The same checkpoint gives the same bytes.

    Returns:
        What the user should know, one sentence each.

    Raises:
        MelcodecError: Coqui has no such model or mel front end, or a file exists and ``overwrite`` is False.
    """
    state, notes = state_for_coqui(checkpoint)
    content = io.BytesIO()
    torch.save(state, content)  # to memory: a path's name would become part of the file
    with written_aside(folder / DVAE_FILE, overwrite) as aside:
        aside.write_bytes(content.getvalue())
        save_mel_norms(folder / MEL_STATS_FILE, checkpoint.mel_norms, overwrite)  # inside: both or neither
    return notes


def state_for_coqui(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict of Coqui's ``DiscreteVAE`` with the checkpoint's weights, and what the user should know.

    Raises:
        MelcodecError: Coqui has no such model or mel front end.
    """
    backbone, quantizer = checkpoint.config.backbone, checkpoint.config.quantizer
    if checkpoint.config.mel != MelConfig():
        raise MelcodecError("the checkpoint's mel settings are not those of XTTS, which cannot be changed there")
    plain = isinstance(quantizer, EMAConfig) and not quantizer.code_dim and not quantizer.normalize
    if not isinstance(backbone, ConvConfig) or not isinstance(quantizer, EMAConfig) or not plain:
        raise MelcodecError(
            f"a {backbone.kind} backbone with the quantizer {quantizer.kind} has no counterpart in Coqui's DiscreteVAE",
            "only conv with ema, without code_dim and normalize, has one",
        )
    if backbone.num_blocks == 0:
        raise MelcodecError("a model without residual blocks has no counterpart in Coqui's DiscreteVAE")
    notes, xtts = [], load_preset("xtts").model
    same_codebook = (checkpoint.config.dim, quantizer.sizes) == (xtts.dim, xtts.quantizer.sizes)
    if backbone != xtts.backbone or not same_codebook:
        notes.append(
            f"not the size of XTTS v2: build DiscreteVAE with hidden_dim={backbone.hidden}, "
            f"codebook_dim={checkpoint.config.dim}, num_tokens={quantizer.codebook_size}, num_resnet_blocks={backbone.num_blocks}"
        )
    if not training_only(checkpoint.config) <= checkpoint.tensors.keys():
        notes.append("the checkpoint has no moving averages; rebuilt ones are written, with a count of one for every code")
    return {**unused_buffers(quantizer.codebook_size), **checkpoint.build().state_dict()}, tuple(notes)


def unused_buffers(codebook_size: int) -> dict[str, Tensor]:
    """The buffers of Coqui's class that melcodec's lacks, as it makes them for K = ``codebook_size``."""
    return {
        f"{UNUSED}accumulator_index": torch.zeros(1, dtype=torch.int64),
        f"{UNUSED}accumulator_filled": torch.zeros(1, dtype=torch.int64),
        f"{UNUSED}accumulator": torch.zeros(ACCUMULATOR_STEPS, codebook_size),
    }


def torch_load(path: Path) -> Any:
    """What the ``torch.save`` file ``path`` holds, read without pickle and mapped where possible; MelcodecError says why not."""
    if not path.exists():
        raise MelcodecError(f"{path}: no such file")
    if path.is_dir():
        raise MelcodecError(f"{path}: is a folder, not a file")
    try:
        with warnings.catch_warnings():  # torch warns about pickles of other libraries before it refuses them
            warnings.simplefilter("ignore")
            # mapped: of a trainer's gigabytes of optimiser state only the DVAE's pages are read
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise MelcodecError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # bytes that are no pickle raise whatever they happen to decode to
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> MelcodecError:
    """Why torch did not load ``path``, in the user's words."""
    pickled = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
    if pickled is None:
        return MelcodecError(f"{path}: not a torch file, or a damaged one", "was the download complete?")
    if "config" in pickled[1].lower():
        return MelcodecError(
            f"{path}: a model with its configuration as pickled Python objects ({pickled[1]}), which melcodec does not run",
            "XTTS keeps the DVAE in dvae.pth, not in model.pth; of a trainer's own file save the tensors alone: "
            'torch.save(checkpoint["model"], "plain.pth")',
        )
    return MelcodecError(f"{path}: a pickled Python object ({pickled[1]}), which melcodec does not run", RE_SAVE)


def state_dict_in(content: Any, path: Path) -> dict[Any, Any]:
    """The state dict inside ``content``, however deep: the very object, not a copy."""
    while isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            return content
        content = inner
    raise MelcodecError(f"{path}: holds a {type(content).__name__}, not a state dict", RE_SAVE)


def _without_wrappers(content: dict[Any, Any], path: Path) -> dict[str, Any]:
    """``content`` by ``plain_name``; MelcodecError where two different tensors would have the same."""
    plain: dict[str, Any] = {}
    for key, value in content.items():
        name = plain_name(key)
        other = plain.setdefault(name, value)
        tensors = isinstance(other, Tensor) and isinstance(value, Tensor)
        if other is not value and not (
            tensors and other.dtype == value.dtype and torch.equal(other, value)
        ):  # a module that was saved both compiled and not, from different times
            raise MelcodecError(f"{path}: holds two different tensors '{name}', one of them as '{key}'", RE_SAVE)
    return plain


def plain_name(key: Any) -> str:
    """The name of a tensor without what wraps its module: ``encoder._orig_mod.0`` becomes ``encoder.0``."""
    return MODULE_WRAPPERS.sub("", str(key))


def dvae_prefix(keys: Any, path: Path) -> str:
    """What stands before the DVAE's own names: "", "dvae.", "module.dvae." ..."""
    for anchor in ANCHORS:
        prefixes = {key.removesuffix(anchor) for key in keys if key == anchor or key.endswith(f".{anchor}")}
        if len(prefixes) > 1:
            names = ", ".join(f"'{prefix}'" for prefix in sorted(prefixes))
            raise MelcodecError(f"{path}: holds several DVAEs, under {names}", RE_SAVE)
        if prefixes:
            return prefixes.pop()
    if any("gpt." in key for key in keys):
        raise MelcodecError(
            f"{path}: an XTTS model without its DVAE", "XTTS keeps it in dvae.pth; GPT trainers keep it in best_model*.pth"
        )
    raise MelcodecError(
        f"{path}: a torch file without a DVAE in it", "expected are keys such as encoder.0.0.weight and codebook.embed"
    )


def _config_of(tensors: dict[str, Any], path: Path) -> ModelConfig:
    """The sizes that the tensors' shapes tell; flags and file names are not asked."""
    # the encoder is two strided layers, the residual blocks, and a last layer
    last = max((int(key.split(".")[1]) for key in tensors if re.match(r"encoder\.\d+\.", key)), default=2)

    def size(key: str, axis: int) -> int:
        if key not in tensors:
            raise MelcodecError(f"{path}: tensor '{key}' is missing")
        shape = getattr(tensors[key], "shape", ())
        if len(shape) <= axis:
            raise MelcodecError(f"{path}: tensor '{key}' has the shape {tuple(shape)}")
        return int(shape[axis])

    data = {
        "backbone": {"hidden": size("encoder.0.0.weight", 0), "num_blocks": max(last - 2, 0)},
        "dim": size(f"encoder.{last}.weight", 0),
        "quantizer": {"codebook_size": size("codebook.embed", 1)},
    }
    return parse(ModelConfig, data, f"{path}")


def _checked(tensors: dict[str, Any], config: ModelConfig, path: Path) -> dict[str, Tensor]:
    """Copies of ``tensors`` in float32 and in the model's order; MelcodecError names the first that does not fit."""
    with torch.device("meta"):
        expected = build_vqvae(config).state_dict()
    for key in tensors:
        if key not in expected:
            raise MelcodecError(f"{path}: unknown tensor '{key}'", "is it really the DVAE of XTTS or Tortoise?")
    checked = {}
    for key, like in expected.items():
        if key not in tensors:
            if key in training_only(config):
                continue
            raise MelcodecError(f"{path}: tensor '{key}' is missing")
        value = tensors[key]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise MelcodecError(f"{path}: '{key}' is {getattr(value, 'dtype', type(value).__name__)}, not a tensor of floats")
        if value.shape != like.shape:
            raise MelcodecError(f"{path}: tensor '{key}' is {tuple(value.shape)}, not {tuple(like.shape)}")
        # a copy: it may be a view over larger storage, and the file behind it is only mapped
        checked[key] = value.detach().float().clone(memory_format=torch.contiguous_format)
        if not checked[key].isfinite().all():
            raise MelcodecError(f"{path}: tensor '{key}' holds NaN or infinity", "its training diverged, or the file is damaged")
    return checked


def _mel_norms(found: dict[str, Any], path: Path, mel_stats: Path | None) -> tuple[tuple[float, ...], str]:
    """The norms to use, and where they come from: the file ``mel_stats``, else ``found``, else XTTS."""
    if mel_stats is not None:
        return load_mel_norms(mel_stats), f"mel norms from {mel_stats.name}"
    for name in MEL_KEYS:
        for key, value in found.items():
            if not isinstance(value, Tensor) or (key != name and not key.endswith(f".{name}")):
                continue
            if bool((value == 1).all()):
                continue  # Xtts starts with ones, and trainers that were given no norms save them so
            return checked_norms(value.detach().float(), f"{path}: '{key}'"), f"mel norms from its key '{key}'"
    return xtts_mel_norms(), "mel norms of XTTS: none were given and the file has none"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
