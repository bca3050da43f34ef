"""The facade: long equals short, batch equals alone, exact lengths, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from melcodec.chunking import group_by_length
from melcodec.codec import Codec
from melcodec.config import ConvConfig, EMAConfig, ModelConfig, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import from_model
from melcodec.store.codes import Codes
from melcodec.vqvae import build_vqvae


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def wide(golden):
    """A model whose latents are all different and whose codebook is fine: any mistake at a seam changes codes."""
    torch.manual_seed(1)
    config = ModelConfig(backbone=ConvConfig(hidden=32), dim=32, quantizer=EMAConfig(codebook_size=512))
    model = build_vqvae(config)
    for module in model.modules():  # the default initialisation shrinks the signal: make far context count
        if isinstance(module, torch.nn.Conv1d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            torch.nn.init.normal_(module.bias, std=0.3)
    codec = Codec.from_checkpoint(from_model(model, config, xtts_mel_norms(), {}), "cpu")
    wav = np.concatenate([golden[f"{i}.wav"] for i in range(3)])
    latents = codec.model.encode_latents(codec.frontend.normalize(codec.mel(wav)))[0].detach()
    picks = torch.randperm(latents.shape[1])[: min(150, latents.shape[1])]
    embed = latents[:, torch.arange(512) % len(picks)] + 0.3 * latents.std() * torch.randn(32, 512)
    codec.model.codebook.embed.copy_(embed)
    return codec


@pytest.fixture(scope="module")
def speech(golden) -> np.ndarray:
    return np.concatenate([golden[f"{i}.wav"] for i in range(3)])


@pytest.mark.parametrize("item", [0, 1, 2])
def test_codes_are_the_references(tiny, golden, item):
    codes = tiny.encode(golden[f"{item}.wav"])
    assert codes.shape == (1, 1, len(golden[f"{item}.codes"]))
    assert np.array_equal(codes[0, 0], golden[f"{item}.codes"])


def test_facts_of_xtts(tiny):
    assert (tiny.sample_rate, tiny.samples_per_code, tiny.num_codebooks, tiny.codebook_size) == (22_050, 1024, 1, 32)
    assert tiny.code_rate == pytest.approx(21.533, abs=1e-3)
    assert tiny.bitrate == pytest.approx(21.533 * 5, abs=1e-2)


@pytest.mark.parametrize("samples", [1, 255, 256, 512, 513, 1023, 1024, 1025, 2047, 2048, 30_000])
def test_lengths(tiny, golden, samples):
    wav = golden["0.wav"][:samples]
    codes = tiny.encode(wav)
    assert codes.shape[-1] == samples // 1024 + 1 == tiny.num_codes(samples)
    assert tiny.decode_to_mel(codes).shape == (1, 80, 4 * codes.shape[-1])
    assert tiny.decode_to_mel(codes, samples).shape == (1, 80, samples // 256 + 1)
    assert tiny.decode(codes, samples).shape == (1, samples)
    streamed, counted = tiny.encode_stream([wav])
    assert counted == samples
    assert np.array_equal(streamed, codes[0])


@pytest.mark.parametrize("chunk_codes", [1, 7, 64])
@pytest.mark.parametrize("block", [997, 10**6])
def test_long_equals_short(wide, speech, chunk_codes, block):
    whole = wide.encode(speech)[0].numpy()
    assert len(np.unique(whole)) > 80  # or equality would prove little
    wide.chunk_codes = chunk_codes
    try:
        streamed, _ = wide.encode_stream(speech[i : i + block] for i in range(0, len(speech), block))
        chunked = wide.encode(speech)[0].numpy()
        mel = wide.decode_to_mel(whole)
    finally:
        wide.chunk_codes = 1024
    assert np.array_equal(streamed, whole)
    assert np.array_equal(chunked, whole)
    single = wide.decode_to_mel(whole)
    assert (mel - single).abs().max() < 1e-5 * single.abs().max()


def test_a_halo_too_small_would_show(wide, speech):
    """The test above can fail: with a smaller halo some codes change."""
    whole, reach = wide.encode(speech), wide.model.reach
    wide.chunk_codes, wide.model.reach = 3, type(reach)(4, 4, 1)
    try:
        assert not torch.equal(wide.encode(speech), whole)
    finally:
        wide.chunk_codes, wide.model.reach = 1024, reach


def test_unbounded_backbones_run_whole(wide, speech):
    whole, mel, reach = wide.encode(speech), wide.decode_to_mel(wide.encode(speech)), wide.model.reach
    wide.chunk_codes, wide.model.reach = 3, type(reach)(4, None, None)
    try:
        assert torch.equal(wide.encode(speech), whole)
        assert np.array_equal(wide.encode_stream(np.array_split(speech, 9))[0], whole[0])
        assert torch.equal(wide.decode_to_mel(whole), mel)
    finally:
        wide.chunk_codes, wide.model.reach = 1024, reach


def test_batch_equals_alone(wide, golden):
    waves = [golden["0.wav"], golden["1.wav"][:40_000], golden["2.wav"][:38_000], golden["1.wav"][:700]]
    together = wide.encode_many(waves)
    for wav, codes in zip(waves, together, strict=True):
        assert np.array_equal(codes, wide.encode(wav)[0])


def test_mels_of_several_utterances(wide, golden):
    waves = [golden["0.wav"], golden["1.wav"][:30_000], golden["2.wav"][:700]]
    mel, lengths = wide.mel_many(waves)
    assert mel.shape == (3, 80, int(lengths.max()))
    assert lengths.tolist() == [len(wav) // 256 + 1 for wav in waves]
    codes = wide.encode_mel(mel, lengths)
    for row, wav in enumerate(waves):
        assert torch.equal(mel[row, :, : lengths[row]], wide.mel(wav)[0])
        assert not mel[row, :, lengths[row] :].any()
        assert torch.equal(codes[row, :, : wide.num_codes(len(wav))], wide.encode(wav)[0])


@pytest.mark.parametrize("chunk_codes", [5, 1024])
def test_decoding_a_padded_batch_equals_alone(wide, golden, chunk_codes):
    mel, frames = wide.mel_many([golden["0.wav"], golden["1.wav"][:30_000], golden["2.wav"][:700]])
    codes, lengths = wide.encode_mel(mel, frames), (frames + 3) // 4
    wide.chunk_codes = chunk_codes
    try:
        together = wide.decode_to_mel(codes, lengths=lengths)
        unmasked = wide.decode_to_mel(codes)
    finally:
        wide.chunk_codes = 1024
    for row, length in enumerate(lengths.tolist()):
        alone = wide.decode_to_mel(codes[row, :, :length])[0]
        assert (together[row, :, : 4 * length] - alone).abs().max() < 1e-5 * alone.abs().max()
        assert not together[row, :, 4 * length :].any()
    last = 4 * int(lengths[1])
    assert (unmasked - together)[1, :, last - 4 : last].abs().max() > 1e-2  # or the lengths would prove nothing


@pytest.fixture(params=["medium", "autocast"])
def careless_caller(request):
    """What people leave switched on around a call."""
    if request.param == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            yield
        return
    torch.set_float32_matmul_precision("medium")
    yield
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="module")
def exact(wide, speech, examples):
    codes = wide.encode(speech)[0]
    return codes, wide.decode_to_mel(codes), wide.encode_file(examples["kathleen_en_48k_stereo"]).codes


def test_float32_whatever_the_caller_computes_in(wide, speech, examples, exact, careless_caller):
    codes, mel, from_file = exact
    assert torch.equal(wide.encode(speech)[0], codes)
    assert np.array_equal(wide.encode_stream(np.array_split(speech, 5))[0], codes)
    assert np.array_equal(wide.encode_file(examples["kathleen_en_48k_stereo"]).codes, from_file)
    assert torch.equal(wide.decode_to_mel(codes), mel)


def test_the_callers_settings_hold_between_blocks(wide, speech, exact):
    with torch.autocast("cpu", torch.bfloat16):
        for _ in wide.decode_stream(exact[0], len(speech)):
            assert torch.is_autocast_enabled("cpu")


def test_padding_without_lengths_would_show(wide, golden):
    mel = wide.mel(golden["0.wav"])
    padded = torch.nn.functional.pad(mel, (0, 40))
    lengths = torch.tensor([mel.shape[-1]])
    codes = wide.encode_mel(mel)
    assert torch.equal(wide.encode_mel(padded, lengths)[..., : codes.shape[-1]], codes)
    assert not torch.equal(wide.encode_mel(padded)[..., : codes.shape[-1]], codes)


def test_padded_batches_may_be_chunked_too(wide, golden):
    mels = [wide.mel(golden[f"{i}.wav"]) for i in range(2)]
    lengths = torch.tensor([mel.shape[-1] for mel in mels])
    batch = torch.cat([torch.nn.functional.pad(mel, (0, int(lengths.max()) - mel.shape[-1])) for mel in mels])
    wide.chunk_codes = 5
    try:
        codes = wide.encode_mel(batch, lengths)
    finally:
        wide.chunk_codes = 1024
    for row, mel in enumerate(mels):
        alone = wide.encode_mel(mel)[0]
        assert torch.equal(codes[row, :, : alone.shape[-1]], alone)


def test_pad_to_is_the_batch_of_xtts(tiny, golden):
    """XTTS pads waves with zeros before the mel: the last codes may change, their number may not."""
    wav = golden["1.wav"]
    padded = tiny.encode(np.pad(wav, (0, 9_000)))[0, :, : tiny.num_codes(len(wav))]
    codes, samples = tiny.encode_stream([wav], pad_to=len(wav) + 9_000)
    assert samples == len(wav)
    assert np.array_equal(codes, padded)
    assert not np.array_equal(codes, tiny.encode(wav)[0])
    assert np.array_equal(tiny.encode_stream([wav], pad_to=len(wav))[0], tiny.encode(wav)[0])


def test_padding_comes_in_blocks(tiny, golden, monkeypatch):
    """Zeros for hours of sound would be gigabytes at once. Encoding them takes long, so they are only counted."""
    sizes: list[int] = []
    monkeypatch.setattr(tiny.frontend, "stream", lambda blocks: sizes.extend(map(len, blocks)) or iter(()))
    with pytest.raises(MelcodecError, match="no samples"):
        tiny.encode_stream([golden["1.wav"]], pad_to=10**8)
    assert sum(sizes) == 10**8
    assert max(sizes) <= 1 << 20


def test_equal_lengths_share_a_batch(tiny, golden):
    pair = np.stack([golden["0.wav"][:20_000], golden["1.wav"][:20_000]])
    codes = tiny.encode(pair)
    assert codes.shape[0] == 2
    assert torch.equal(codes[1:], tiny.encode(pair[1]))


def test_group_by_length():
    groups = group_by_length([10, 100, 95, 30, 90], budget=200)
    assert groups == [[1, 2], [4], [3], [0]]
    assert group_by_length([500], budget=200) == [[0]]
    assert group_by_length([], budget=200) == []


def test_decode_gives_the_reference_mel(tiny, golden):
    mel = tiny.decode_to_mel(golden["1.codes"][None], normalized=True)[0]
    assert np.abs(mel.numpy() - golden["1.decoded"]).max() < 1e-5
    natural = tiny.decode_to_mel(golden["1.codes"][None])[0]
    assert torch.allclose(natural, tiny.frontend.denormalize(mel))


def test_decode_is_deterministic_sound(tiny, golden):
    codes = tiny.encode(golden["0.wav"])
    first, second = tiny.decode(codes, 39_325), tiny.decode(codes, 39_325)
    assert torch.equal(first, second)
    assert first.abs().max() > 1e-3


def test_decode_stream_is_decode_in_blocks(wide, speech):
    """In one window the same bits; in several the same mel, from which Griffin-Lim's phases may wander off by rounding."""
    codes = wide.encode(speech)[0]
    whole = wide.decode(codes, len(speech))[0].numpy()
    assert np.array_equal(np.concatenate(list(wide.decode_stream(codes, len(speech)))), whole)
    wide.chunk_codes = 7
    try:
        streamed = np.concatenate(list(wide.decode_stream(codes, len(speech))))
    finally:
        wide.chunk_codes = 1024
    assert streamed.shape == whole.shape
    assert np.abs(streamed).max() <= 1
    assert (wide.mel(streamed) - wide.mel(whole)).abs().mean() < 0.5


@pytest.mark.parametrize("num_samples", [0, 1023, 3 * 1024])
def test_impossible_lengths_are_refused(tiny, num_samples):
    for decode in (tiny.decode, tiny.decode_to_mel):
        with pytest.raises(MelcodecError, match="2 codes"):
            decode(np.array([[1, 2]]), num_samples)


@pytest.mark.parametrize("lengths", [[3, 0], [4, 5], [4], [[4, 4]]])
def test_impossible_lengths_of_a_batch_are_refused(tiny, lengths):
    with pytest.raises(MelcodecError, match="not 2 numbers in 1"):
        tiny.decode_to_mel(np.zeros((2, 1, 4), np.int64), lengths=torch.tensor(lengths))


def test_loud_waves_are_clipped_as_in_files(tiny, golden):
    wav = 4 * golden["0.wav"] / np.abs(golden["0.wav"]).max()
    assert torch.equal(tiny.mel(wav), tiny.mel(wav.clip(-1, 1)))


def test_fractions_are_no_codes(tiny):
    with pytest.raises(MelcodecError, match="codes of float32"):
        tiny.decode(np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("wav", [np.zeros(0, np.float32), np.zeros((1, 2, 3), np.float32), np.array([0.1, np.nan] * 600)])
def test_bad_waves_are_refused(tiny, wav):
    with pytest.raises(MelcodecError):
        tiny.encode(wav)


def test_no_sample_in_a_stream_is_refused(tiny):
    with pytest.raises(MelcodecError, match="no samples"):
        tiny.encode_stream([])


@pytest.mark.parametrize("codes", [np.full((1, 4), 32), np.full((1, 4), -1), np.zeros((2, 4)), np.zeros((1, 0)), np.zeros(4)])
def test_bad_codes_are_refused(tiny, codes):
    with pytest.raises(MelcodecError, match="codes"):
        tiny.decode_to_mel(codes.astype(np.int64))


def test_fingerprints(tiny, golden):
    tiny.check_fingerprint(Codes(golden["0.codes"][None]), "x.npy")  # a .npy knows nothing: accepted
    tiny.check_fingerprint(Codes(golden["0.codes"][None], fingerprint=tiny.fingerprint), "x.npz")
    with pytest.raises(MelcodecError, match=f"x.npz: made by checkpoint 0123456789ab, but this one is {tiny.fingerprint}"):
        tiny.check_fingerprint(Codes(golden["0.codes"][None], fingerprint="0123456789ab"), "x.npz")


def test_encode_file(tiny, examples):
    codes = tiny.encode_file(examples["kathleen_en_48k_stereo"])
    assert codes.source_rate == 48_000
    assert codes.codes.shape == (1, tiny.num_codes(codes.num_samples))
    assert (codes.fingerprint, codes.sizes) == (tiny.fingerprint, (32,))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_cpus_codes(tiny_checkpoint, tiny, speech):
    codes = Codec.from_pretrained(tiny_checkpoint, "cuda").encode(speech).cpu()
    assert (codes == tiny.encode(speech)).float().mean() > 0.999


def test_the_top_level_names(tiny_checkpoint):
    import melcodec

    codec = melcodec.load(tiny_checkpoint, device="cpu")
    assert isinstance(codec, melcodec.Codec)
    assert "train" in dir(melcodec)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = melcodec.nothing_here
