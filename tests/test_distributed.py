"""Two real processes over gloo equal one process with the joined batch; alone, everything is a no-op."""

from __future__ import annotations

import sys

import pytest
import torch

from melcodec import distributed
from melcodec.config import CodebookConfig, EMAConfig
from melcodec.quantize.ema import EMACodebook
from melcodec.quantize.revival import revive_from_batch
from tests import forked

STEPS = """
import sys, torch
import torch.distributed as dist
from melcodec import distributed
from melcodec.config import CodebookConfig, EMAConfig
from melcodec.quantize.ema import EMACodebook
from melcodec.quantize.revival import revive_from_batch

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
assert distributed.world_size() == 2
start = torch.load(f"{folder}/start.pt", weights_only=True)
codebook = EMACodebook(3, EMAConfig(codebook_size=16), CodebookConfig(revive="none")).train()
codebook.load_state_dict(start["codebook"])
for latents in start["batches"]:
    codebook.update([codebook(latents.chunk(2)[rank]).moments], 0, torch.Generator())
learned = {name: value.clone() for name, value in codebook.state_dict().items()}
# each rank has latents of its own; the codebooks must stay equal
latents = start["batches"][0].chunk(2)[rank].transpose(1, 2).flatten(0, 1)
revived = revive_from_batch(codebook, latents, 1.0, torch.Generator().manual_seed(7))
torch.save({"learned": learned, "revived": revived, "end": codebook.state_dict()}, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def codebook_of_16() -> EMACodebook:
    return EMACodebook(3, EMAConfig(codebook_size=16), CodebookConfig(revive="none")).train()


def learn(codebook: EMACodebook, latents: torch.Tensor) -> None:
    codebook.update([codebook(latents).moments], 0, torch.Generator())


def test_alone_nothing_happens():
    tensor = torch.ones(3)
    assert distributed.world_size() == 1
    distributed.all_reduce_sum(tensor)
    distributed.broadcast(tensor)
    assert tensor.tolist() == [1, 1, 1]


def test_two_processes_equal_one_with_the_joined_batch(tmp_path):
    torch.manual_seed(0)
    codebook = codebook_of_16()
    codebook.cluster_size.fill_(1)
    batches = [torch.randn(4, 3, 10) for _ in range(4)]
    torch.save({"codebook": codebook.state_dict(), "batches": batches}, tmp_path / "start.pt")
    children = [forked.Popen([sys.executable, "-c", STEPS, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]

    for latents in batches:
        learn(codebook, latents)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rank in ranks:
        for name, value in codebook.state_dict().items():
            torch.testing.assert_close(rank["learned"][name], value, rtol=1e-5, atol=1e-7)
    latents = batches[0].transpose(1, 2).flatten(0, 1)  # of both
    revived = revive_from_batch(codebook, latents, 1.0, torch.Generator().manual_seed(7))
    assert revived > 0
    for rank in ranks:
        assert rank["revived"] == revived
        for name, value in codebook.state_dict().items():
            torch.testing.assert_close(rank["end"][name], value, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(ranks[0]["end"][name], value) for name, value in ranks[1]["end"].items())


def test_half_a_batch_would_not_do():
    torch.manual_seed(0)
    whole, half = codebook_of_16(), codebook_of_16()
    half.load_state_dict(whole.state_dict())
    latents = torch.randn(4, 3, 10)
    learn(whole, latents)
    learn(half, latents[:2])
    assert not torch.allclose(whole.cluster_size, half.cluster_size)


@pytest.mark.parametrize("name", ["all_reduce_sum", "broadcast"])
def test_no_tensors_are_fine(name):
    getattr(distributed, name)()
