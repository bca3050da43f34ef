"""Streams: the codes and the sound of one pass, whatever the blocks, at once in a batch, and across a saved state."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.streaming.decoder import StreamingDecoder
from melcodec.streaming.encoder import StreamingEncoder

PAGE = Path(__file__).resolve().parents[2] / "docs" / "streaming.md"
LOOKAHEAD = 27 * 256 + 512


@pytest.fixture(scope="module")
def base():
    """The shipped model: with its 1,024 codes a mistake at a seam shows."""
    return Codec.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def speech(examples):
    return load(examples["lj_en"], 22_050)[:50_000]


@pytest.fixture(scope="module")
def codes(base, speech):
    return base.encode(speech)[0]


def encoded(encoder, wav, sizes) -> torch.Tensor:
    """(B, Q, N) of ``wav`` pushed in blocks of ``sizes``, and then the rest at once."""
    parts, at = [], 0
    for size in sizes:
        parts.append(encoder.push(wav[..., at : at + size]))
        at += size
    return torch.cat([*parts, encoder.push(wav[..., at:]), encoder.finish()], dim=-1)


def decoded(decoder, codes, sizes, num_samples=None) -> torch.Tensor:
    """(B, S) likewise."""
    parts, at = [], 0
    for size in sizes:
        parts.append(decoder.push(codes[..., at : at + size]))
        at += size
    return torch.cat([*parts, decoder.push(codes[..., at:]), decoder.finish(num_samples)], dim=-1)


SIZES = {
    "one block": [],
    "single samples": [1] * 3000,
    "one frame": [256] * 190,
    "odd": [997] * 50,
    "uneven, some empty": [*np.random.default_rng(0).integers(0, 3000, 40).tolist(), 0, 0],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_blocks_of_any_size_give_the_codes_of_one_pass(base, speech, codes, sizes):
    assert torch.equal(encoded(StreamingEncoder(base), speech, sizes)[0], codes)


def test_a_reach_too_small_would_show(base, speech, codes):
    encoder = StreamingEncoder(base)
    encoder._mel.left = encoder._mel.right = 8
    assert not torch.equal(encoded(encoder, speech, [997] * 50)[0], codes)


@pytest.mark.parametrize("samples", [1, 255, 256, 512, 513, 768, 1023, 1024, 1025, 7424, 7425, 20_000])
@pytest.mark.parametrize("block", [100, 10**6])
def test_streams_of_any_length(tiny, speech, samples, block):
    wav = speech[:samples]
    made = encoded(StreamingEncoder(tiny), wav, [block] * (samples // block))
    assert torch.equal(made, tiny.encode(wav))


def test_each_code_comes_with_its_last_sample(base, speech):
    """Code t comes with sample 1,024 t + 7,424 and not before; nothing is held back."""
    encoder, given = StreamingEncoder(base), 0
    assert encoder.lookahead == LOOKAHEAD
    for at in range(0, 12_000, 64):
        given += encoder.push(speech[at : at + 64]).shape[-1]
        assert given == max(0, (at + 64 - LOOKAHEAD) // 1024 + 1), at


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 44_056])
def test_other_rates_are_resampled_as_files_are(base, examples, rate):
    wav = load(examples["kathleen_en_48k_stereo"], 48_000)[:60_000]
    made = encoded(StreamingEncoder(base, sample_rate=rate), wav, [1000, 1, 0, 7] + [480] * 100)
    assert torch.equal(made, base.encode(wav, rate))


def test_streams_in_a_batch_are_streams_alone(base, speech):
    pair = np.stack([speech[:20_000], speech[20_000:40_000]])
    made = encoded(StreamingEncoder(base, batch=2), pair, [1] * 20 + [700] * 20)
    for row in range(2):
        assert torch.equal(made[row : row + 1], base.encode(pair[row]))
    many = StreamingEncoder(base, batch=16)  # more streams than samples
    assert many.push(np.zeros((16, 1), np.float32)).shape == (16, 1, 0)


@pytest.mark.parametrize("rate", [None, 16_000])
def test_a_state_goes_on_elsewhere(base, speech, rate):
    whole = encoded(StreamingEncoder(base, sample_rate=rate), speech, [900] * 30)
    for at in (0, 100, 13_000):
        one, other = StreamingEncoder(base, sample_rate=rate), StreamingEncoder(base, sample_rate=rate)
        begun = one.push(speech[:at])
        stored = save_tensors(one.state_dict())
        one.push(speech[at:])  # what happens to the first one changes nothing
        other.load_state_dict(load_tensors(stored))
        assert torch.equal(torch.cat([begun, encoded(other, speech[at:], [333] * 40)], dim=-1), whole)


def test_an_encoder_can_be_used_again(tiny, speech):
    encoder = StreamingEncoder(tiny)
    first = encoded(encoder, speech[:9_000], [100])
    assert torch.equal(encoded(encoder, speech[:9_000], [4_000]), first)


def test_the_page_about_streams_is_true(speech):
    """The Python of docs/streaming.md, run on 16 kHz blocks as it stands."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names = {"blocks": np.array_split(speech, 20)}
    exec(block, names)
    assert names["num_samples"] == -(-len(speech) * 22_050 // 16_000)
    assert names["last"].shape[0] == 1
    assert names["decoder"].num_codes == 0  # finished


def test_results_are_plain_tensors(tiny, speech):
    made = encoded(StreamingEncoder(tiny), speech, [1000])
    assert not made.is_inference()
    assert not decoded(StreamingDecoder(tiny), made, [10]).is_inference()


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (np.zeros(9, np.int16), "not of floats"),
        (np.array([0.1, np.nan]), "NaN"),
        (np.zeros((2, 9)), "block of shape"),
        (np.zeros((9, 2)), "block of shape"),
        (np.full(9, 300.0), "reaches 300"),
    ],
)
def test_bad_blocks_are_refused(tiny, block, words):
    with pytest.raises(MelcodecError, match=words):
        StreamingEncoder(tiny).push(block)


def test_what_cannot_stream_is_refused(tiny, speech):
    with pytest.raises(MelcodecError, match="no samples"):
        StreamingEncoder(tiny).finish()
    with pytest.raises(MelcodecError, match="no codes"):
        StreamingDecoder(tiny).finish()
    with pytest.raises(MelcodecError, match="sample rate of 100 Hz"):
        StreamingEncoder(tiny, sample_rate=100)
    with pytest.raises(MelcodecError, match=r"'mel.buffer' does not fit"):
        StreamingEncoder(tiny).load_state_dict(
            StreamingEncoder(tiny, batch=2).state_dict() | {"frontend.buffer": torch.zeros(1, 0)}
        )
    with pytest.raises(MelcodecError, match="does not fit"):
        StreamingEncoder(tiny).load_state_dict(StreamingDecoder(tiny).state_dict())
    reach = tiny.model.reach
    tiny.model.reach = replace(reach, encoder_halo=None, decoder_halo=None, look_ahead=None)
    try:
        for kind in (StreamingEncoder, StreamingDecoder):
            with pytest.raises(MelcodecError, match="whole utterances"):
                kind(tiny)
    finally:
        tiny.model.reach = reach


# decoding


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_mel_of_a_stream_is_that_of_one_pass(base, codes, size):
    decoder = StreamingDecoder(base)
    parts = [decoder._mel(codes[None, :, at : at + size], final=False) for at in range(0, codes.shape[-1], size)]
    mel = torch.cat([*parts, decoder._mel(codes[None, :, :0], final=True)], dim=-1)
    whole = base.decode_to_mel(codes)
    assert mel.shape == whole.shape
    assert (mel - whole).abs().max() < 1e-5 * whole.abs().max()


def test_sound_does_not_depend_on_the_blocks(base, codes, speech):
    sounds = [decoded(StreamingDecoder(base), codes, sizes, len(speech)) for sizes in ([], [1] * 49, [3, 0, 11, 20])]
    for sound in sounds:
        assert sound.shape == (1, len(speech))
        assert sound.abs().max() <= 1
        torch.testing.assert_close(sound, sounds[0], atol=2e-2, rtol=0)  # phases wander off by rounding
    assert torch.equal(decoded(StreamingDecoder(base), codes, [1] * 49, len(speech)), sounds[1])


def test_short_chunks_sound_as_long_ones(base, codes, speech):
    mel = base.decode_to_mel(codes, len(speech))
    whole, streamed = base.decode(codes, len(speech)), decoded(StreamingDecoder(base), codes, [1] * 49, len(speech))
    errors = [(base.mel(sound) - mel).abs().mean() for sound in (whole, streamed)]
    assert errors[1] < 1.05 * errors[0]


@pytest.mark.parametrize("num_codes", [1, 2, 7, 8, 9, 15, 16, 17, 30, 41])
def test_sounds_of_every_length(base, codes, num_codes):
    some = codes[:, :num_codes]
    for length in (None, (num_codes - 1) * 1024 + 1, num_codes * 1024 - 1):
        if length is not None and base.num_codes(length) != num_codes:
            continue
        sound = decoded(StreamingDecoder(base), some, [1] * num_codes, length)
        assert sound.shape[-1] == (length or num_codes * 1024 - 256)
        assert torch.isfinite(sound).all()


def test_sound_comes_within_the_stated_lookahead(base, codes):
    decoder, given = StreamingDecoder(base), 0
    for at in range(codes.shape[-1]):
        given += decoder.push(codes[:, at : at + 1]).shape[-1]
        assert given >= (at + 1) * 1024 - decoder.lookahead
    assert given > 0


def test_decoders_in_a_batch_and_across_a_state(base, codes):
    pair = torch.stack([codes[:, :20], codes[:, 20:40]])
    whole = decoded(StreamingDecoder(base, batch=2), pair, [1] * 20)
    one, other = StreamingDecoder(base, batch=2), StreamingDecoder(base, batch=2)
    begun = [one.push(pair[..., at : at + 1]) for at in range(15)]
    other.load_state_dict(load_tensors(save_tensors(one.state_dict())))
    rest = [other.push(pair[..., at : at + 1]) for at in range(15, 20)]
    assert torch.equal(torch.cat([*begun, *rest, other.finish()], dim=-1), whole)
    alone = decoded(StreamingDecoder(base), pair[1], [1] * 20)
    torch.testing.assert_close(alone, whole[1:], atol=2e-2, rtol=0)


def test_a_learned_vocoder_streams_as_one_pass(tiny_checkpoint, tiny_vocoder, speech):
    codec = Codec.from_pretrained(tiny_checkpoint, "cpu", tiny_vocoder)
    codes, length = codec.encode(speech)[0], len(speech)
    whole = codec.decode(codes, length)
    for sizes in ([1] * 48, [5] * 9):
        torch.testing.assert_close(decoded(StreamingDecoder(codec), codes, sizes, length), whole, atol=1e-4, rtol=0)
    assert StreamingDecoder(codec).lookahead == (7 * 4 + codec.vocoder.halo) * 256


def test_wrong_lengths_and_codes_are_refused(tiny):
    decoder = StreamingDecoder(tiny)
    decoder.push(np.zeros((1, 3), np.int64))
    with pytest.raises(MelcodecError, match="3 codes do not fit 9999 samples"):
        decoder.finish(9_999)
    assert decoder.num_codes == 0  # it is ready for another stream
    for codes, words in (
        (np.full((1, 3), 32), "reach"),
        (np.zeros((2, 1, 3), np.int64), "2 streams"),
        (np.zeros((1, 3)), "integers"),
    ):
        with pytest.raises(MelcodecError, match=words):
            decoder.push(codes)
