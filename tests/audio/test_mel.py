"""The front end against torchaudio and the reference, and the stream against one pass."""

import numpy as np
import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from melcodec.audio.mel import MelFrontend, build_frontend
from melcodec.config import MelConfig, xtts_mel_norms

LENGTHS = [513, 514, 767, 768, 1023, 1024, 1025, 2047, 2048, 22_050, 30_001]


@pytest.fixture(scope="module")
def frontend():
    return build_frontend(MelConfig(), xtts_mel_norms())


@pytest.fixture(scope="module")
def wav(golden):
    return np.ascontiguousarray(golden["0.wav"].reshape(-1), dtype=np.float32)


def reference(wav, **changes):
    """Natural log-mel (M, T) by torchaudio, as TorchMelSpectrogram of Tortoise calls it."""
    settings = {
        "sample_rate": 22_050,
        "n_fft": 1024,
        "win_length": 1024,
        "hop_length": 256,
        "f_min": 0,
        "f_max": 8000,
        "n_mels": 80,
        "power": 2,
        "normalized": False,
        "norm": "slaney",
        "mel_scale": "htk",
    }
    mel = MelSpectrogram(**{**settings, **changes})(torch.from_numpy(wav))
    return torch.log(torch.clamp(mel, min=1e-5)).numpy()


def one_pass(frontend, wav):
    with torch.inference_mode():
        return frontend(torch.from_numpy(wav)[None])[0].numpy()


def streamed(frontend, wav, size, frames=4096):
    blocks = (wav[start : start + size] for start in range(0, len(wav), size))
    return np.concatenate(list(frontend.stream(blocks, frames)), axis=1)


@pytest.mark.parametrize("length", LENGTHS)
def test_bit_equal_to_torchaudio(frontend, wav, length):
    mel = one_pass(frontend, wav[:length])
    assert mel.shape == (80, length // 256 + 1)
    np.testing.assert_array_equal(mel, reference(wav[:length]))


@pytest.mark.parametrize("item", [0, 1, 2])
def test_golden_mel_is_in_the_model_s_domain(frontend, golden, item):
    wav = np.ascontiguousarray(golden[f"{item}.wav"].reshape(1, -1), dtype=np.float32)
    natural = frontend(torch.from_numpy(wav))
    normalized = frontend.normalize(natural).numpy()
    expected = golden[f"{item}.mel"].reshape(normalized.shape)
    np.testing.assert_array_equal(natural[0].numpy(), reference(wav[0]))
    # FFTs differ between processors: the golden values, like ours, lie up to 1e-5 from those of float64
    np.testing.assert_allclose(normalized, expected, atol=5e-5, rtol=0)
    assert np.abs(normalized - expected).mean() < 1e-6
    np.testing.assert_allclose(frontend.denormalize(torch.from_numpy(expected)).numpy(), natural.numpy(), atol=5e-4)
    # what would slip through with other settings
    assert np.abs(natural.numpy() - expected).max() > 1, "the norms do something"
    for change in ({"mel_scale": "slaney"}, {"norm": None}, {"power": 1}, {"f_max": 11_025}):
        other = reference(wav[0], **change) / np.array(xtts_mel_norms())[:, None]
        assert np.abs(other - expected).mean() > 0.01, change


def test_batch_equals_alone(frontend, wav):
    batch = torch.from_numpy(np.stack([wav[:8_000], wav[8_000:16_000]]))
    together = frontend(batch)
    for row, alone in zip(together, batch, strict=True):
        np.testing.assert_array_equal(row.numpy(), frontend(alone[None])[0].numpy())


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("size", [100, 1_000, 1 << 20])
def test_stream_equals_one_pass(frontend, wav, length, size):
    for frames in (1, 4, 4096):
        mel = streamed(frontend, wav[:length], size, frames)
        np.testing.assert_allclose(mel, one_pass(frontend, wav[:length]), atol=1e-5, rtol=0, err_msg=f"{frames} frames")


@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 511, 512])
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_clips_shorter_than_half_a_window_are_padded_with_zeros(frontend, wav, length, size):
    mel = streamed(frontend, wav[:length], size)
    assert mel.shape == (80, length // 256 + 1)
    padded = np.pad(wav[:length], (0, 513 - length))
    np.testing.assert_allclose(mel, one_pass(frontend, padded)[:, : mel.shape[1]], atol=1e-5, rtol=0)


def test_stream_is_a_stream(frontend, wav):
    """Pieces come out while blocks still go in, and a piece has at least as many frames as asked for."""
    blocks = iter(np.split(np.tile(wav, 4)[: 100 * 1_000], 100))
    stream = frontend.stream(blocks, frames=20)
    first = next(stream)
    assert 20 <= first.shape[1] < 40
    assert len(list(blocks)) > 80
    assert list(frontend.stream([])) == []
    assert list(frontend.stream([np.empty(0, np.float32)])) == []


def test_stream_takes_empty_blocks(frontend, wav):
    pieces = [wav[:0], wav[:700], wav[:0], wav[700:5_000], wav[:0]]
    mel = np.concatenate(list(frontend.stream(iter(pieces), frames=1)), axis=1)
    np.testing.assert_allclose(mel, one_pass(frontend, wav[:5_000]), atol=1e-5, rtol=0)


def test_lengths(frontend):
    assert frontend.min_samples == 513
    for length in (1, 255, 256, 1023, 1024, 1025):
        assert frontend.num_frames(length) == length // 256 + 1


def test_silence_is_the_floor_and_no_level_is_changed(frontend, wav):
    assert one_pass(frontend, np.zeros(2_000, np.float32)) == pytest.approx(np.log(1e-5))
    loud, quiet = one_pass(frontend, wav), one_pass(frontend, wav * np.float32(0.5))
    above = quiet > np.log(1e-5) + 0.1
    np.testing.assert_allclose((loud - quiet)[above], np.log(4), atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [{"sample_rate": 24_000}, {"n_fft": 2048}, {"hop_length": 128}, {"n_mels": 40}, {"f_min": 100.0}, {"f_max": 7_600.0}],
)
def test_every_setting_reaches_torchaudio_s_result(wav, change):
    frontend = build_frontend(MelConfig(**change), (1.0,) * change.get("n_mels", 80))
    expected = reference(wav, **change, **({"win_length": 2048} if "n_fft" in change else {}))
    np.testing.assert_array_equal(one_pass(frontend, wav), expected)
    for name, value in change.items():
        assert getattr(frontend, name) == value


def test_the_floor_setting(wav):
    frontend = MelFrontend(xtts_mel_norms(), floor=1e-2)
    np.testing.assert_array_equal(one_pass(frontend, wav), np.maximum(reference(wav), np.log(np.float32(1e-2))))


def test_norms_are_per_band(frontend):
    norms = torch.arange(1.0, 81.0)
    scaled = MelFrontend(norms.tolist())
    mel = torch.randn(2, 80, 3)
    torch.testing.assert_close(scaled.normalize(mel), mel / norms[:, None])
    torch.testing.assert_close(scaled.denormalize(scaled.normalize(mel)), mel)
