"""PyTorch files are recognised without torch, and the next step is named."""

from __future__ import annotations

import pytest
import torch

from melcodec.errors import MelcodecError
from melcodec.formats.shipped import find_checkpoint
from melcodec.formats.torchfile import describe, is_torch_file


@pytest.fixture
def saved(tmp_path, golden_folder):
    """saved("dvae") -> a .pth file of that kind."""
    dvae = torch.load(golden_folder / "tiny_dvae.pth", weights_only=True)
    kinds = {
        "dvae": dvae,
        "trainer": {"model": {f"xtts.dvae.{key}": value for key, value in dvae.items()}, "step": 3},
        "gpt": {"model": {"gpt.gpt.h.0.attn.c_attn.weight": torch.zeros(2, 2)}},
        "stats": torch.zeros(80),
        "other": {"conv.weight": torch.zeros(2)},
    }

    def save(kind, name="x y.pth"):
        torch.save(kinds[kind], tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    ("kind", "holds", "next_step"),
    [
        ("dvae", "the DVAE of XTTS or Tortoise", "melcodec import-xtts '{}' -o 'x y.safetensors' makes a checkpoint of it"),
        ("trainer", "a larger model, with the DVAE of XTTS or Tortoise in it", "melcodec import-xtts '{}' -o 'x y.safetensors' "),
        ("gpt", "the GPT of XTTS without its DVAE", "the DVAE is another file of XTTS: melcodec import-xtts dvae.pth"),
        ("stats", "no model; a single tensor such as mel_stats.pth", "norms are given with --mel-stats"),
        ("other", "a model that is not the DVAE of XTTS or Tortoise", ""),
    ],
)
def test_what_it_holds(saved, kind, holds, next_step):
    path = saved(kind)
    assert is_torch_file(path)
    found, hint = describe(path)
    assert found == holds
    assert (hint or "").startswith(next_step.format(path))
    with pytest.raises(MelcodecError) as caught:
        find_checkpoint(path)
    assert caught.value.message == f"{path}: a PyTorch file, not a checkpoint of melcodec: it holds {holds}"
    assert caught.value.hint == hint


def test_the_old_format_and_damage(saved, tmp_path):
    torch.save({"codebook.embed": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert describe(tmp_path / "old.pth")[0] == "weights in the format of PyTorch before 1.6"
    path = saved("dvae")
    path.write_bytes(path.read_bytes()[:1000])
    assert is_torch_file(path)
    assert "import-xtts" in str(describe(path)[1])


def test_other_files_are_none(tmp_path, tiny_checkpoint):
    (tmp_path / "x.pth").write_text("words")
    assert not is_torch_file(tmp_path / "x.pth")
    assert not is_torch_file(tmp_path)
    assert not is_torch_file(tiny_checkpoint)
    assert find_checkpoint(tiny_checkpoint) == tiny_checkpoint


def test_a_run_folder_means_its_best_checkpoint(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(MelcodecError, match=r"run: a folder without best.safetensors"):
        find_checkpoint(run)
    (run / "best.safetensors").touch()
    assert find_checkpoint(run) == find_checkpoint(str(run)) == run / "best.safetensors"
