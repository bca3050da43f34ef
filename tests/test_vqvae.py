"""mel -> codes -> mel: XTTS's keys and sizes, lengths, and contract 4, batch equals alone."""

from __future__ import annotations

import pytest
import torch

from melcodec.config import ConvConfig, EMAConfig, ModelConfig, load_preset
from melcodec.vqvae import build_vqvae

FRAMES = [*range(1, 18), *range(100, 104), 833]


def expected_shapes(hidden: int, dim: int, size: int) -> dict[str, tuple[int, ...]]:
    """The table of the XTTS specification, spelt out for three residual blocks."""
    wide = 2 * hidden
    weights = {"encoder.0.0": (hidden, 80, 3), "encoder.1.0": (wide, hidden, 3), "encoder.5": (dim, wide, 1)}
    weights |= {"decoder.0": (wide, dim, 1), "decoder.4.0.conv": (wide, wide, 3), "decoder.5.0.conv": (hidden, wide, 3)}
    weights |= {"decoder.6": (80, hidden, 1)}
    for prefix in ("encoder.2", "encoder.3", "encoder.4", "decoder.1", "decoder.2", "decoder.3"):
        weights |= {f"{prefix}.net.0": (wide, wide, 3), f"{prefix}.net.2": (wide, wide, 3), f"{prefix}.net.4": (wide, wide, 1)}
    shapes = {f"{key}.weight": shape for key, shape in weights.items()}
    shapes |= {f"{key}.bias": shape[:1] for key, shape in weights.items()}
    return shapes | {"codebook.embed": (dim, size), "codebook.cluster_size": (size,), "codebook.embed_avg": (dim, size)}


@pytest.mark.parametrize(
    ("preset", "dim", "size"), [("xtts", 512, 1024), ("base", 512, 1024), ("small", 512, 1024), ("tiny", 16, 64)]
)
def test_keys_and_shapes_are_those_of_xtts(preset, dim, size):
    config = load_preset(preset).model
    with torch.device("meta"):
        state = build_vqvae(config).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == expected_shapes(config.backbone.hidden, dim, size)
    assert len(state) == 53
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_the_keys_of_a_file_that_the_reference_wrote(golden_folder, tiny_model):
    reference = torch.load(golden_folder / "tiny_dvae.pth", weights_only=True)
    assert len(reference) == 56
    assert tiny_model.state_dict().keys() == {key for key in reference if not key.startswith("discrete_loss.")}


def test_parameter_counts_of_xtts():
    with torch.device("meta"):
        model = build_vqvae(load_preset("xtts").model)

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)

    assert (count(model), count(model.encoder), count(model.decoder)) == (51_567_184, 24_251_392, 27_315_792)


@pytest.mark.parametrize("frames", FRAMES)
def test_lengths(tiny_model, frames):
    mel = torch.zeros(1, 80, frames)
    codes = tiny_model.encode(mel)
    assert codes.shape == (1, 1, -(-frames // 4))
    assert codes.shape[-1] == tiny_model.num_codes(frames)
    assert codes.dtype == torch.int64
    assert tiny_model.decode(codes).shape == (1, 80, 4 * codes.shape[-1])


def padded(items: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Items (C, L) as a batch (B, C, longest) and their lengths."""
    lengths = torch.tensor([item.shape[-1] for item in items])
    return torch.nn.utils.rnn.pad_sequence([item.T for item in items], batch_first=True).transpose(1, 2), lengths


def test_a_padded_batch_equals_its_items_alone(tiny_model, golden):
    mels = [torch.from_numpy(golden[f"{index}.mel"]) for index in range(3)]
    items = [*mels, *(mels[0][:, :frames] for frames in (1, 2, 3, 4, 5, 17, 103))]
    mel, lengths = padded(items)
    latents, codes = tiny_model.encode_latents(mel, lengths), tiny_model.encode(mel, lengths)
    for index, item in enumerate(items):
        count = tiny_model.num_codes(item.shape[-1])
        torch.testing.assert_close(latents[index, :, :count], tiny_model.encode_latents(item[None])[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(codes[index, :, :count], tiny_model.encode(item[None])[0])
    # without lengths the padding leaks into an item's last codes: this test can fail
    leaked = tiny_model.encode_latents(mel)
    assert (leaked[0, :, :39] - latents[0, :, :39]).abs().max() > 1e-3


def test_decoding_a_padded_batch_equals_decoding_its_items_alone(tiny_model, golden):
    items = [torch.from_numpy(golden[f"{index}.codes"])[None, :length] for index, length in ((0, 39), (1, 56), (2, 1), (2, 20))]
    codes, lengths = padded(items)
    mel = tiny_model.decode(codes, lengths)
    for index, item in enumerate(items):
        alone = tiny_model.decode(item[None])[0]
        # this model's outputs reach 200: 1e-5 is meant relative to that
        torch.testing.assert_close(mel[index, :, : alone.shape[-1]], alone, atol=2e-3, rtol=0)
    leaked = tiny_model.decode(codes)[0, :, : 4 * 39]
    assert (leaked - mel[0, :, : 4 * 39]).abs().max() > 0.1


def test_a_training_pass_and_its_gradients():
    torch.manual_seed(0)
    model = build_vqvae(ModelConfig(backbone=ConvConfig(hidden=4), dim=6, quantizer=EMAConfig(codebook_size=10)))
    mel = torch.randn(2, 80, 16)
    output = model.eval()(mel)
    assert output.reconstruction.shape == (2, 80, 16)
    assert output.latents.shape == (2, 6, 4)
    assert output.quantized.codes.shape == (2, 1, 4)
    assert torch.equal(output.quantized.codes, model.encode(mel))
    assert torch.equal(output.latents, model.encode_latents(mel))
    torch.testing.assert_close(output.reconstruction, model.decode(output.quantized.codes))
    # the reconstruction error reaches the encoder through the codebook; the commitment stops at the encoder
    output.quantized.losses["commitment"].backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in model.decoder.parameters())
    model.zero_grad(set_to_none=True)
    output.reconstruction.square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
