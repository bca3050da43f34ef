"""What a PyTorch file holds, told without torch and without running anything in it: the names of its tensors."""

from __future__ import annotations

import pickletools
import shlex
import zipfile
from pathlib import Path

from melcodec.errors import MelcodecError

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how torch.save begins a file: since PyTorch 1.6, and before
MOST_BYTES = 64 << 20  # of names and shapes; XTTS has 1 MB


def is_torch_file(path: Path) -> bool:
    """Whether ``path`` is a file that begins as torch.save begins one, and is not named as NumPy's archives are."""
    if path.suffix.lower() == ".npz" or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(4)
    return start == ZIP or (start[:1] == PICKLE and path.suffix.lower() in (".pth", ".pt", ".ckpt", ".bin"))


def not_a_checkpoint(path: Path) -> MelcodecError:
    """What to say where the PyTorch file ``path`` was given for a checkpoint: what it is, and the command that helps."""
    holds, hint = describe(path)
    return MelcodecError(f"{path}: a PyTorch file, not a checkpoint of melcodec: it holds {holds}", hint, "unreadable")


def describe(path: Path) -> tuple[str, str | None]:
    """What the PyTorch file ``path`` holds, and the next step."""
    there, here = shlex.quote(str(path)), shlex.quote(f"{path.stem}.safetensors")
    command = f"melcodec import-xtts {there} -o {here} makes a checkpoint of it"
    names = _names(path)
    if names is None:
        return "weights in the format of PyTorch before 1.6", command
    if any(name.endswith("codebook.embed") for name in names):
        whole = "codebook.embed" in names
        return ("the DVAE of XTTS or Tortoise" if whole else "a larger model, with the DVAE of XTTS or Tortoise in it"), command
    if any(name.startswith(("gpt.", "xtts.gpt.", "model.gpt.")) for name in names):
        return "the GPT of XTTS without its DVAE", "the DVAE is another file of XTTS: melcodec import-xtts dvae.pth"
    if not any("." in name for name in names - {"torch._utils", "torch"} if name.endswith(("weight", "bias"))):
        return "no model; a single tensor such as mel_stats.pth", "norms are given with --mel-stats"
    return "a model that is not the DVAE of XTTS or Tortoise", None


def _names(path: Path) -> set[str] | None:
    """All words in the file's table of contents; None where it has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if member is None or archive.getinfo(member).file_size > MOST_BYTES:
                return set()
            content = archive.read(member)
        return {value for _, value, _ in pickletools.genops(content) if isinstance(value, str)}
    except zipfile.BadZipFile:
        return None
    except (ValueError, EOFError, OSError, RuntimeError):
        return set()
