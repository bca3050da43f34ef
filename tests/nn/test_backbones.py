"""Every backbone: shapes, its stated reach, padding, gradients, and a codec that gives the same codes in every way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from melcodec.config import (
    BackboneConfig,
    ConvConfig,
    ConvNeXtConfig,
    EMAConfig,
    GroupedConfig,
    MambaConfig,
    MLPConfig,
    ModelConfig,
    TransformerConfig,
    VQVAE2018Config,
    xtts_mel_norms,
)
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import from_model, load_checkpoint, save_checkpoint
from melcodec.nn.base import Backbone, Coder, Reach, mask
from melcodec.nn.blocks import rotate
from melcodec.nn.build import build_backbone
from melcodec.nn.mamba import BLOCK, scan, turned
from melcodec.quantize.build import build_quantizer
from melcodec.vqvae import build_vqvae

M, D = 80, 40
SMALL = {"hidden": 8, "num_blocks": 1}
MEMBERS: dict[str, BackboneConfig] = {
    "conv": ConvConfig(**SMALL),
    "vqvae-2018": VQVAE2018Config(residual=4, **SMALL),
    "vqvae-2018, no blocks": VQVAE2018Config(residual=4, hidden=8, num_blocks=0),
    "vqvae-2018, pictures": VQVAE2018Config(residual=4, axes="time-and-bands", **SMALL),
    "convnext": ConvNeXtConfig(**SMALL),
    "convnext, no blocks": ConvNeXtConfig(hidden=8, num_blocks=0),
    "convnext, attention": ConvNeXtConfig(attention=True, heads=2, longest=400, **SMALL),
    "mlp": MLPConfig(**SMALL),
    "mlp, overlap": MLPConfig(overlap=2, smooth=True, **SMALL),
    "transformer": TransformerConfig(heads=2, longest=400, **SMALL),
    "transformer, learned": TransformerConfig(heads=2, longest=400, positions="learned", **SMALL),
    "transformer, window": TransformerConfig(heads=2, window=2, hidden=8, num_blocks=2, overlap=5),
    "mamba": MambaConfig(heads=2, state=4, longest=400, **SMALL),
    "bimamba": MambaConfig(heads=2, state=4, longest=400, bidirectional=True, **SMALL),
}


@pytest.fixture(params=MEMBERS)
def member(request) -> tuple[BackboneConfig, Backbone]:
    torch.manual_seed(0)
    backbone = build_backbone(MEMBERS[request.param], M, D)
    for half in backbone[:2]:
        half.double()
    return MEMBERS[request.param], backbone


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("frames", [*range(1, 10), 31])
def test_shapes(member, frames):
    config, (encoder, decoder, stride) = member
    assert stride == config.stride
    latents = encoder(noise(2, M, frames))
    assert latents.shape == (2, D, -(-frames // stride))
    assert decoder(latents).shape == (2, M, stride * latents.shape[-1])


def linear(half: torch.nn.Module, monkeypatch) -> torch.nn.Module:
    """Without ReLU and with positive weights: every input that can reach an output does, and none cancels."""
    monkeypatch.setattr(torch.nn.functional, "relu", lambda x, inplace=False: x)
    for module in half.modules():
        if isinstance(module, torch.nn.ReLU):
            module.forward = lambda x: x
    for parameter in half.parameters():
        parameter.data.abs_().add_(1e-3)
    return half


def within(first: int, stated: int, reach: int | None, slack: int) -> None:
    """The first input that counts is the stated one, or less than ``slack`` after it; one before its own if unbounded."""
    assert first < stated if reach is None else stated <= first < stated + slack


def test_nothing_beyond_the_stated_reach_counts(member, monkeypatch):
    _, (encoder, decoder, stride) = member
    encoder, decoder = linear(encoder, monkeypatch), linear(decoder, monkeypatch)
    mel, t = torch.zeros(1, M, 160, dtype=torch.float64), 20
    plain = encoder(mel)[..., t]
    seen = []
    for frame in range(160):
        poked = mel.clone()
        poked[..., frame] = 1e6
        if not torch.equal(encoder(poked)[..., t], plain):
            seen.append(frame)
    # what is stated holds and is not much too large; an unbounded side does see more than its own
    within(seen[0], stride * t - (encoder.reach.left or 0), encoder.reach.left, stride)
    within(-seen[-1], -stride * t - (encoder.reach.right or 0), encoder.reach.right, stride)
    codes = torch.zeros(1, D, 40, dtype=torch.float64)
    plain = decoder(codes)[..., stride * t : stride * (t + 1)]
    touched = []
    for code in range(40):
        poked = codes.clone()
        poked[..., code] = 1e6
        if not torch.equal(decoder(poked)[..., stride * t : stride * (t + 1)], plain):
            touched.append(code)
    within(touched[0], t - (decoder.reach.left or 0), decoder.reach.left, 2)
    within(-touched[-1], -t - (decoder.reach.right or 0), decoder.reach.right, 2)


def test_a_padded_batch_equals_its_items_alone(member):
    _, (encoder, decoder, stride) = member
    lengths = torch.tensor([37, 14, 1])
    mel = noise(3, M, 37)
    garbage = mel.clone()
    for item, length in enumerate(lengths.tolist()):
        garbage[item, :, length:] = 1e9
    latents = encoder(garbage, lengths)
    codes = -(-lengths // stride)
    frames = decoder(latents, codes)
    for item, length in enumerate(lengths.tolist()):
        count = int(codes[item])
        alone = encoder(mel[item : item + 1, :, :length])
        torch.testing.assert_close(latents[item : item + 1, :, :count], alone)
        assert latents[item, :, count:].abs().sum() == 0
        torch.testing.assert_close(frames[item : item + 1, :, : stride * count], decoder(alone))


def test_gradients_reach_every_parameter(member):
    _, (encoder, decoder, _) = member
    decoder(encoder(noise(2, M, 32))).square().mean().backward()
    for half in (encoder, decoder):
        assert all(parameter.grad.abs().sum() > 0 for parameter in half.parameters())


@pytest.mark.parametrize("name", ["vqvae-2018", "vqvae-2018, pictures", "convnext", "convnext, attention", *list(MEMBERS)[7:]])
def test_a_codec_of_it(name, golden, tmp_path):
    from melcodec.codec import Codec

    picture = name == "vqvae-2018, pictures"
    inner = EMAConfig(codebook_size=32)
    quantizer = GroupedConfig(groups=20, shared=True, inner=inner) if picture else inner
    config = ModelConfig(dim=D, backbone=MEMBERS[name], quantizer=quantizer)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "a.safetensors", from_model(build_vqvae(config), config, xtts_mel_norms(), {}))
    codec = Codec.from_checkpoint(load_checkpoint(tmp_path / "a.safetensors"), "cpu")
    wav = torch.from_numpy(golden["0.wav"])
    whole = codec.encode(wav)
    assert whole.shape == (1, 20 if picture else 1, codec.num_codes(len(wav)))
    for chunk in (1, 7):
        codec.chunk_codes = chunk
        assert torch.equal(codec.encode(wav), whole)
        assert codec.decode_to_mel(whole).shape[-1] == 4 * whole.shape[-1]
    one, other = codec.encode_many([wav, wav[: len(wav) // 3]])
    assert torch.equal(one, whole[0])
    assert torch.equal(other, codec.encode(wav[: len(wav) // 3])[0])


def test_pictures_need_whole_rows():
    with pytest.raises(MelcodecError, match="no 30 channels in whole rows"):
        build_backbone(VQVAE2018Config(axes="time-and-bands"), M, 30)


class Whole(Coder):
    """Sees everything: the mean of all frames is added to each."""

    def __init__(self, inner: Coder) -> None:
        super().__init__()
        self.inner, self.reach = inner, Reach(None, None, longest=200)

    def forward(self, x, lengths=None):
        return self.inner(x + mask(x, lengths).mean(-1, keepdim=True), lengths)


def test_a_model_that_sees_everything_runs_whole_and_refuses_more(golden):
    from melcodec.audio.mel import build_frontend
    from melcodec.codec import Codec
    from melcodec.vocoder.griffin_lim import GriffinLim
    from melcodec.vqvae import VQVAE

    torch.manual_seed(0)
    backbone = build_backbone(MEMBERS["conv"], M, D)
    model = VQVAE(backbone._replace(encoder=Whole(backbone.encoder)), build_quantizer(EMAConfig(codebook_size=32), D)).eval()
    frontend = build_frontend(ModelConfig().mel, xtts_mel_norms())
    codec = Codec(frontend, model, GriffinLim(frontend), "whole", torch.device("cpu"), chunk_codes=5)
    wav = golden["0.wav"]
    assert codec.num_codes(len(wav)) > 5
    with torch.no_grad():
        whole = model.encode(frontend.normalize(frontend(torch.from_numpy(wav)[None])))
    assert torch.equal(codec.encode(wav), whole)  # not in chunks of five codes
    codes, _ = codec.encode_stream(np.array_split(wav, 7))
    assert np.array_equal(codes, whole[0].numpy())
    long = np.tile(wav, 2)
    for encode in (
        codec.encode,
        lambda wave: codec.encode_stream(np.array_split(wave, 7)),
        lambda wave: codec.encode_many([wave]),
    ):
        with pytest.raises(MelcodecError, match="longer than 2 s: this model needs the whole sound at once"):
            encode(long)
    with pytest.raises(MelcodecError, match="longer than 2 s"):
        codec.decode_to_mel(np.zeros((1, 51), np.int64))


def test_heads_need_pairs_of_channels():
    with pytest.raises(ValueError, match="16 channels cannot be divided into 3 heads of an even width"):
        ConvNeXtConfig(attention=True, heads=3, **SMALL)


def test_patches_of_other_sizes():
    encoder, decoder, stride = build_backbone(MLPConfig(patch=3, **SMALL), M, D)
    assert (stride, encoder.reach, decoder.reach) == (3, Reach(0, 2), Reach(0, 0))
    assert decoder(encoder(torch.zeros(1, M, 31))).shape == (1, M, 33)


def test_learned_positions_have_no_window():
    with pytest.raises(ValueError, match="a window needs rotary positions"):
        TransformerConfig(positions="learned", window=4)


def test_rotary_positions_tell_differences_alone():
    query, key = noise(1, 1, 20, 8), noise(1, 1, 20, 8)
    products = rotate(query.expand(1, 1, 20, 8)[..., :1, :].expand(1, 1, 20, 8)) @ rotate(key[..., :1, :].expand(1, 1, 20, 8)).mT
    for away in range(-19, 20):
        diagonal = products[0, 0].diagonal(away)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[0, 0, 0].std() > 0.1


@pytest.mark.parametrize("length", [1, BLOCK, 2 * BLOCK + 5])
def test_the_scan_is_the_recurrence(length):
    x, decay = noise(2, length, 3, 5), -noise(2, length, 3).abs()
    write, read = noise(2, length, 4), noise(2, length, 4).flip(1)
    state, expected = torch.zeros(2, 3, 5, 4, dtype=torch.float64), []
    for t in range(length):
        state = decay[:, t, :, None, None].exp() * state + x[:, t, :, :, None] * write[:, t, None, None]
        expected.append((state * read[:, t, None, None]).sum(-1))
    torch.testing.assert_close(scan(x, decay, write, read), torch.stack(expected, 1))


def test_each_item_is_turned_within_its_length():
    x = torch.arange(1.0, 5).expand(2, 1, 4)
    assert turned(x, None).tolist() == [[[4, 3, 2, 1]]] * 2
    assert turned(x, torch.tensor([4, 2])).tolist() == [[[4, 3, 2, 1]], [[2, 1, 3, 4]]]
