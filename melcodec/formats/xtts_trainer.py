"""Write a checkpoint into the file of XTTS's GPT trainer, whose ``dvae.*`` keys a restored run takes its DVAE from.

Coqui's trainer reads ``dvae_checkpoint`` when it starts, and a file that it restores or continues from replaces what was
read. So a changed DVAE must stand in that file, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcodec.errors import MelcodecError
from melcodec.files import check_output, written_aside
from melcodec.formats.checkpoint import Checkpoint
from melcodec.formats.xtts import (
    DVAE_PREFIX,
    MEL_KEYS,
    UNUSED,
    dvae_prefix,
    plain_name,
    state_dict_in,
    state_for_coqui,
    torch_load,
)

SOURCE_HINT = "melcodec export-xtts CHECKPOINT -o FOLDER writes a dvae.pth of its own"


def export_into(checkpoint: Checkpoint, source: Path, target: Path, overwrite: bool = False) -> tuple[str, ...]:
    """Write to ``target`` a copy of ``source`` with the DVAE of ``checkpoint``; everything else in it stays as it is.

    The same inputs give the same bytes. ``source`` is read with ``weights_only`` and never written to.

    Args:
        checkpoint: its tensors replace those of the DVAE, its mel norms those of the file where they differ.
        source: a GPT trainer's ``torch.save`` file, such as ``best_model.pth``.
        target: another file.
        overwrite: replace ``target`` when it exists.

    Returns:
        What the user should know, one sentence each.

    Raises:
        MelcodecError: ``target`` is ``source``, Coqui has no such model, or the file's DVAE has other keys or shapes.
    """
    if source.exists() and target.exists() and target.samefile(source):
        raise MelcodecError(f"{target}: is the file that is read, which is never changed", "give another name with -o")
    check_output(target, overwrite)
    new, notes = state_for_coqui(checkpoint)
    content = torch_load(source)
    state = state_dict_in(content, source)
    replaced, prefix = _dvae_keys(state, new, source)
    changed = {name for key, name in replaced.items() if not torch.equal(state[key], new[name])}
    for key, name in replaced.items():
        state[key] = new[name]
    # the hint about the model's size is about building it, which the trainer's file shows to be possible
    told = [note for note in notes if not note.startswith("not the size")]
    told.append(f"{len(changed)} of {len(replaced)} '{prefix}*' tensors changed")
    if any(name.startswith("encoder.") or name == "codebook.embed" for name in changed):
        told.append("encoder or codebook changed: sound gets other codes than those this file's GPT learned, so train it again")
    told += _replace_norms(state, torch.tensor(checkpoint.mel_norms), source)
    with written_aside(target, overwrite) as aside, aside.open("wb") as file:
        torch.save(content, file)  # to an open file: a path's name would become part of it
    return tuple(told)


def _dvae_keys(state: dict[Any, Any], new: dict[str, Tensor], path: Path) -> tuple[dict[Any, str], str]:
    """The keys of the file's DVAE with the names of their replacements in ``new``, and what stands before them."""
    prefix = dvae_prefix({plain_name(key) for key in state}, path)
    if not prefix.endswith(DVAE_PREFIX):
        raise MelcodecError(f"{path}: not a file of XTTS's GPT trainer: it has no '{DVAE_PREFIX}*' keys", SOURCE_HINT)
    found = {key: plain_name(key).removeprefix(prefix) for key in state if plain_name(key).startswith(prefix)}
    found = {key: name for key, name in found.items() if not name.startswith(UNUSED)}
    for name in new:
        if name not in found.values() and not name.startswith(UNUSED):
            raise MelcodecError(f"{path}: tensor '{prefix}{name}' is missing")
    for key, name in found.items():
        if name not in new:
            raise MelcodecError(f"{path}: the checkpoint has no tensor for '{key}'", "it is another kind or size of model")
        old = state[key]
        if not isinstance(old, Tensor) or not old.is_floating_point():
            raise MelcodecError(f"{path}: '{key}' is {getattr(old, 'dtype', type(old).__name__)}, not a tensor of floats")
        if old.shape != new[name].shape:
            raise MelcodecError(
                f"{path}: tensor '{key}' is {tuple(old.shape)}, in the checkpoint {tuple(new[name].shape)}",
                "the trainer builds its DVAE at one size; melcodec info tells the checkpoint's",
            )
    return found, prefix


def _replace_norms(state: dict[Any, Any], norms: Tensor, path: Path) -> list[str]:
    """Put ``norms`` (80,) in the place of the file's where they differ; what was done, a sentence each."""
    told = []
    for key, old in state.items():
        name = plain_name(key)
        if not any(name == each or name.endswith(f".{each}") for each in MEL_KEYS):
            continue
        if not isinstance(old, Tensor) or old.shape != norms.shape:
            raise MelcodecError(f"{path}: '{key}' is not a tensor of {len(norms)} mel norms")
        if not torch.equal(old.float(), norms):
            state[key] = norms.clone()
            told.append(
                f"the mel norms '{key}' differed and were replaced; the GPT reads its reference recordings with them, "
                "so it must be trained again, with the same norms as mel_norm_file"
            )
    return told
