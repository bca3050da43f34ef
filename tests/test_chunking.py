"""Contract 3, long equals short: the integers by exhaustion, then the real convolution stack."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from melcodec.chunking import chunk_at, plan, windows

SMALL = list(itertools.product(range(14), (1, 2, 3, 5), (0, 1, 2, 3, 7), (1, 2, 3, 4)))  # length, chunk, halo, stride


def outputs_of(length: int, stride: int) -> int:
    return -(-length // stride)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_every_output_is_kept_once_in_order_and_sees_its_halo(stride):
    for length, chunk, halo in itertools.product(range(30), (1, 2, 3, 5, 50), (0, 1, 2, 3, 7, 28)):
        items = plan(length, chunk, halo, stride)
        kept = [output for item in items for output in range(item.keep_start, item.keep_stop)]
        assert kept == list(range(outputs_of(length, stride)))
        for index, item in enumerate(items):
            assert item == chunk_at(index, length, chunk, halo, stride)
            assert item.keep_stop - item.keep_start <= chunk
            # windows start on the grid of outputs, and the first kept output is the drop-th of the window
            assert item.read_start % stride == 0
            assert item.read_start // stride + item.drop == item.keep_start
            assert item.kept == slice(item.drop, item.drop + item.keep_stop - item.keep_start)
            # the halo, or the real end of the input
            assert item.read_start == 0 or item.read_start <= item.keep_start * stride - halo
            assert item.read_stop == min(length, (item.keep_start + chunk) * stride + halo)


def test_windows_are_no_larger_than_they_must_be():
    item = chunk_at(3, 1000, chunk=10, halo=28, stride=4)
    assert (item.read_start, item.read_stop) == (120 - 28, 160 + 28)
    assert (item.keep_start, item.keep_stop, item.drop) == (30, 40, 7)
    # a halo that is no multiple of the stride is rounded up to whole outputs on the left
    assert chunk_at(3, 1000, chunk=10, halo=27, stride=4).read_start == 120 - 28


def cut(data: np.ndarray, sizes: itertools.cycle) -> list[np.ndarray]:
    blocks = []
    while data.shape[-1]:
        size = next(sizes)
        blocks.append(data[..., :size])
        data = data[..., size:]
    return blocks


@pytest.mark.parametrize("sizes", [(1,), (2, 3), (7, 0, 1), (100,)], ids=str)
def test_windows_over_a_stream_equal_the_plan(sizes):
    for length, chunk, halo, stride in SMALL:
        data = np.arange(2 * length).reshape(2, length)
        streamed = list(windows(cut(data, itertools.cycle(sizes)), chunk, halo, stride))
        assert [item for item, _ in streamed] == [
            # a stream's length is known only at its end, where the last windows are cut
            chunk_at(index, length, chunk, halo, stride)
            for index in range(len(plan(length, chunk, halo, stride)))
        ]
        for item, inputs in streamed:
            assert np.array_equal(inputs, data[:, item.read_start : item.read_stop])


def test_a_stream_without_blocks_has_no_windows():
    assert list(windows([], 3, 1)) == []
    assert list(windows([np.zeros((2, 0)), np.zeros((2, 0))], 3, 1)) == []


def test_windows_hold_a_window_and_a_block_only():
    held = 0

    def blocks():
        for _ in range(200):
            yield np.zeros(10)

    for _, inputs in windows(blocks(), chunk=20, halo=5):
        base = inputs if inputs.base is None else inputs.base
        held = max(held, base.size)
    assert held <= 2 * (20 + 2 * 5 + 10)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_real_convolution_in_windows_equals_one_pass(kernel):
    torch.manual_seed(0)
    weight, reach = torch.randn(1, 1, kernel, dtype=torch.float64), kernel // 2
    for length, chunk in itertools.product(range(1, 20), (1, 2, 3, 6)):
        x = torch.randn(1, 1, length, dtype=torch.float64)
        whole = F.conv1d(x, weight, padding=reach)
        parts = [
            F.conv1d(x[..., item.read_start : item.read_stop], weight, padding=reach)[..., item.kept]
            for item in plan(length, chunk, reach)
        ]
        assert torch.equal(torch.cat(parts, dim=-1), whole)


@pytest.fixture(scope="module")
def model(tiny_model):
    """In float64, where chunked and whole differ by 1e-12 or by a mistake, and nothing between."""
    return copy.deepcopy(tiny_model).double()


@pytest.fixture(scope="module")
def speech(golden) -> torch.Tensor:
    """(1, 80, 223) normalised."""
    return torch.from_numpy(golden["1.mel"])[None].double()


def encode_in_windows(model, mel, chunk: int, halo: int) -> torch.Tensor:
    items = plan(mel.shape[-1], chunk, halo, model.reach.stride)
    return torch.cat([model.encoder(mel[..., item.read_start : item.read_stop])[..., item.kept] for item in items], dim=-1)


def decode_in_windows(model, latents, chunk: int, halo: int) -> torch.Tensor:
    parts = []
    for item in plan(latents.shape[-1], chunk, halo):
        frames = model.decoder(latents[..., item.read_start : item.read_stop])
        parts.append(frames[..., item.kept.start * 4 : item.kept.stop * 4])
    return torch.cat(parts, dim=-1)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.mark.parametrize("chunk", [1, 2, 5, 13, 55, 56, 57, 1000])
def test_chunked_coding_equals_one_pass(model, speech, chunk):
    latents = model.encoder(speech)
    assert difference(encode_in_windows(model, speech, chunk, model.reach.encoder_halo), latents) < 1e-9
    assert difference(decode_in_windows(model, latents, chunk, model.reach.decoder_halo), model.decoder(latents)) < 1e-9


def test_a_halo_one_output_too_small_is_seen(model, speech):
    latents = model.encoder(speech)
    # 24 frames: 6 outputs to the left, not 7
    assert difference(encode_in_windows(model, speech, 5, model.reach.encoder_halo - 3), latents) > 1e-6
    assert difference(decode_in_windows(model, latents, 5, model.reach.decoder_halo - 1), model.decoder(latents)) > 1e-6
