"""Without a GPU: the tensor paths run on fake CUDA tensors, whose operators refuse to mix devices as real ones do.

Fake tensors have shapes, types and devices, and no values; what looks at values is not covered here.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from melcodec.audio.mel import build_frontend
from melcodec.codec import Codec
from melcodec.config import ConvConfig, EMAConfig, GriffinLimConfig, ModelConfig, xtts_mel_norms
from melcodec.evaluation.scores import Sound
from melcodec.evaluation.systems.base import Tools
from melcodec.evaluation.systems.bypassed import bypassed
from melcodec.inputs import padded
from melcodec.vocoder.build import build_vocoder
from melcodec.vqvae import build_vqvae

CUDA = torch.device("cuda", 0)
CONFIG = ModelConfig(dim=8, backbone=ConvConfig(hidden=16), quantizer=EMAConfig(codebook_size=32))


@pytest.fixture
def fake():
    """A codec whose every tensor is a fake one on a GPU, and the mode in which they live."""
    frontend = build_frontend(CONFIG.mel, xtts_mel_norms())  # its construction looks at values
    with FakeTensorMode() as mode:
        frontend._apply(mode.from_tensor)
        vocoder = build_vocoder(GriffinLimConfig(iterations=2), frontend.to(CUDA))
        with CUDA:  # parameters cannot be moved in this mode
            model = build_vqvae(CONFIG)
        model.to = lambda device: model
        yield Codec(frontend, model, vocoder, "0123456789ab", CUDA)


def lengths(*values: int) -> torch.Tensor:
    return torch.empty(len(values), dtype=torch.int64)  # on the CPU, as callers have them


def test_mixing_devices_would_show(fake):
    with pytest.raises(RuntimeError, match="two different devices"):
        fake.frontend.norms + torch.empty(80)


@pytest.mark.parametrize("chunk_codes", [16, 1024])
def test_encoding_and_decoding(fake, chunk_codes):
    fake.chunk_codes = chunk_codes
    mel = fake._mel(torch.empty(2, 50_000))
    assert (mel.device, mel.shape) == (CUDA, (2, 80, 196))
    for inside in (None, lengths(196, 100)):
        codes = fake._encode(mel, inside)
        assert (codes.device, codes.shape, codes.dtype) == (CUDA, (2, 1, 49), torch.int64)
    for inside in (None, lengths(49, 25)):
        made = torch.cat(list(fake._decode_chunks(codes, inside)), dim=-1)
        assert (made.device, made.shape) == (CUDA, (2, 80, 196))


def test_padding(fake):
    batch, frames = padded([fake._mel(torch.empty(1, n))[0] for n in (5_000, 9_000)])
    assert (batch.device, frames.device, batch.shape) == (CUDA, CUDA, (2, 80, 36))


def test_the_network_without_its_quantizer(fake):
    made = bypassed(fake, torch.empty(1, 80, 100))
    assert (made.device, made.shape) == (CUDA, (1, 80, 100))


def test_a_mel_from_a_file_becomes_sound(fake):
    """The mel of a system may come from the CPU; the vocoder gets it on its own device."""
    seen = []

    def vocoder(mel, num_samples):
        seen.append(mel.device)
        raise InterruptedError  # what comes next are values

    fake.vocoder = vocoder
    original = Sound(np.zeros(9_984, np.float32), 22_050, np.zeros((80, 40), np.float32))
    with pytest.raises(InterruptedError):
        Tools(fake, audible=True).from_mel(torch.empty(1, 80, 40), original)
    assert seen == [CUDA]
