import numpy as np
import pytest
import torch

from melcodec.audio.io import load
from melcodec.audio.mel import MelFrontend
from melcodec.config import LearnedVocoderConfig, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.formats.container import read_container, write_container
from melcodec.vocoder.build import build_vocoder
from melcodec.vocoder.file import load_vocoder, save_vocoder
from melcodec.vocoder.learned import LearnedVocoder

HOP = 256


@pytest.fixture(scope="module")
def network(tiny_vocoder):
    return load_vocoder(tiny_vocoder).build()


@pytest.fixture(scope="module")
def mel(examples):
    """(1, M, 259) three seconds of speech."""
    return MelFrontend(xtts_mel_norms())(torch.from_numpy(load(examples["lj_en"], 22_050)[: 3 * 22_050])[None])


def test_the_settings_reach_the_member(tiny_vocoder, network, mel):
    frontend = MelFrontend(xtts_mel_norms())
    made = build_vocoder(LearnedVocoderConfig(weights=str(tiny_vocoder), refine=2), frontend)
    assert isinstance(made, LearnedVocoder)
    assert made.refine == 2
    assert made.mel == frontend.config
    alone, refined = LearnedVocoder(network)(mel, 66_150), made(mel, 66_150)
    assert not torch.equal(alone, refined)


def test_refining_comes_nearer_to_the_magnitudes(network, mel):
    frontend = network.frontend
    wanted = network(mel)[0].exp()

    def error(refine):
        wav = LearnedVocoder(network, refine)(mel, 66_150)
        made = torch.stft(wav, 1024, HOP, window=frontend.window, pad_mode="constant", return_complex=True).abs()
        return (made - wanted).norm().item()

    errors = [error(refine) for refine in (0, 2, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.8 * errors[0]


@pytest.mark.parametrize("refine", [0, 1, 4])
@pytest.mark.parametrize("chunk", [40, 97])
def test_long_equals_short(network, mel, refine, chunk):
    whole = LearnedVocoder(network, refine)(mel, 66_150)
    torch.testing.assert_close(LearnedVocoder(network, refine, chunk)(mel, 66_150), whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize("refine", [0, 2])
def test_the_reach_is_what_is_declared(network, mel, refine):
    """A frame that changes moves no sample further away than the halo, and does move some as far as the network sees."""
    vocoder = LearnedVocoder(network, refine)
    other = mel.clone()
    middle = 130
    other[..., middle] += 3.0
    changed = (vocoder(mel, 66_150) - vocoder(other, 66_150))[0].abs() > 1e-9
    places = changed.nonzero()[:, 0]
    first, last = places.min().item() // HOP, places.max().item() // HOP
    assert middle - vocoder.halo <= first
    assert last <= middle + vocoder.halo
    assert first <= middle - network.reach
    assert last >= middle + network.reach


@pytest.mark.parametrize("block", [1, 50, 1_000])
def test_a_stream_equals_the_call(network, mel, block):
    vocoder = LearnedVocoder(network, 1, chunk_frames=50)
    taken = 0

    def blocks():
        nonlocal taken
        for start in range(0, mel.shape[-1], block):
            taken += 1
            yield mel[0, :, start : start + block].numpy()

    pieces, taken_at_first = [], 0
    for piece in vocoder.stream(blocks(), 66_150):
        taken_at_first = taken_at_first or taken
        pieces.append(piece)
    assert taken_at_first * block < 50 + vocoder.halo + block
    np.testing.assert_allclose(np.concatenate(pieces), vocoder(mel, 66_150)[0].numpy(), atol=1e-6)


def test_a_batch_equals_its_items(network, mel):
    """Whatever lies past an item's end."""
    lengths = [259, 100, 7]
    batch = torch.cat([torch.where(torch.arange(259) < length, mel, 5.0) for length in lengths])
    together = network(batch, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = network(mel[..., :length])
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(all_[row, :, :length], one[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 255, 256, 257, 1023, 1024, 5120, 5375])
def test_length_is_exact(network, num_samples):
    mel = torch.full((2, 80, num_samples // HOP + 1), -4.0)
    wav = LearnedVocoder(network, 1, chunk_frames=8)(mel, num_samples)
    assert wav.shape == (2, num_samples)
    assert wav.isfinite().all()
    with pytest.raises(MelcodecError, match="mel frames hold"):
        LearnedVocoder(network)(mel, num_samples + 256)


def test_the_file_carries_its_recipe(tiny_vocoder, network, tmp_path):
    again = tmp_path / "again.safetensors"
    save_vocoder(again, load_vocoder(tiny_vocoder))
    assert again.read_bytes() == tiny_vocoder.read_bytes()
    assert load_vocoder(again).provenance == {"source": "random"}
    assert {value.dtype for value in read_container(again, "vocoder")[1].values()} == {torch.float16}
    meta, tensors = read_container(tiny_vocoder, "vocoder")
    tensors.pop("head.bias")
    write_container(again, tensors, meta)
    with pytest.raises(MelcodecError, match=r"do not fit its settings.*head.bias"):
        load_vocoder(again)


def test_every_size_changes_the_network(tiny_vocoder):
    made = load_vocoder(tiny_vocoder)

    def built(**change):
        network = type(made)(made.mel, made.network.model_copy(update=change), {}).network
        from melcodec.vocoder.network import VocosNetwork

        return VocosNetwork(network, made.mel)

    assert built(width=8).from_magnitude.out_features == 8
    assert built(hidden=8).blocks[0].expand.out_features == 8
    assert len(built(num_blocks=3).blocks) == 3
    assert built(kernel_size=3).reach == 3
    mel = torch.randn(1, 80, 4)
    assert not torch.equal(built(nmf_iterations=0).prior(mel), built(nmf_iterations=5).prior(mel))
