import math

import numpy as np
import pytest
import torch

from melcodec.audio.io import load
from melcodec.audio.mel import MelFrontend, build_frontend
from melcodec.config import GriffinLimConfig, MelConfig, parse, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.metrics.spectral import log_mel_l1
from melcodec.vocoder.build import build_vocoder
from melcodec.vocoder.framing import Framing
from melcodec.vocoder.griffin_lim import GriffinLim, fast_griffin_lim, istft, stft

HOP = 256


@pytest.fixture(scope="module")
def frontend():
    return MelFrontend(xtts_mel_norms())


@pytest.fixture(scope="module")
def wav(examples):
    """(1, S) three seconds of speech."""
    return torch.from_numpy(load(examples["lj_en"], 22_050)[: 3 * 22_050])[None]


@pytest.fixture(scope="module")
def mel(frontend, wav):
    return frontend(wav)


@pytest.fixture(scope="module")
def output(frontend, wav, mel):
    return GriffinLim(frontend)(mel, wav.shape[-1])


def error(frontend, output, mel):
    return log_mel_l1(mel.numpy(), frontend(output).numpy())


def level_db(wav):
    return 10 * math.log10(wav.square().mean().item())


def test_sounds_like_the_original(frontend, wav, mel, output):
    assert output.shape == wav.shape
    assert output.dtype == torch.float32
    assert error(frontend, output, mel) < 0.2


def test_keeps_the_level(frontend, wav, mel, output):
    assert level_db(output) == pytest.approx(level_db(wav), abs=0.3)
    softer = 0.1 * wav
    assert level_db(GriffinLim(frontend)(frontend(softer), wav.shape[-1])) == pytest.approx(level_db(wav) - 20, abs=0.3)


def test_scores_in_pesq(wav, output):
    pytest.importorskip("pesq")
    from melcodec.metrics.speech import pesq_wb

    assert pesq_wb(wav[0].numpy(), output[0].numpy(), 22_050) > 3.0


def test_nmf_beats_the_pseudo_inverse(frontend, wav, mel, output):
    class PseudoInverse(GriffinLim):
        def magnitude(self, mel):
            return (torch.linalg.pinv(self.frontend.filters.T) @ mel.exp()).clamp(min=0).sqrt()

    assert error(frontend, output, mel) < 0.6 * error(frontend, PseudoInverse(frontend)(mel, wav.shape[-1]), mel)


def test_the_same_seed_gives_the_same_sound(frontend, wav, mel, output):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(GriffinLim(frontend)(mel, wav.shape[-1]), output)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("change", [{"iterations": 4}, {"momentum": 0.0}, {"nmf_iterations": 1}])
def test_less_work_is_further_from_the_mel(frontend, wav, mel, output, change):
    vocoder = build_vocoder(GriffinLimConfig(**change), frontend)
    assert error(frontend, vocoder(mel, wav.shape[-1]), mel) > 1.1 * error(frontend, output, mel)


def test_the_configuration_reaches_the_member(frontend, wav, mel, output):
    assert torch.equal(build_vocoder(GriffinLimConfig(), frontend)(mel, wav.shape[-1]), output)
    other = build_vocoder(GriffinLimConfig(seed=1), frontend)(mel, wav.shape[-1])
    assert (other - output).abs().max() > 0.01
    assert error(frontend, other, mel) == pytest.approx(error(frontend, output, mel), rel=0.1)
    with pytest.raises(MelcodecError, match="momentum"):
        parse(GriffinLimConfig, {"momentum": 1.5}, "here")


@pytest.mark.parametrize("num_samples", [1, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 5120, 5375])
def test_length_is_exact(frontend, num_samples):
    mel = torch.full((1, 80, num_samples // HOP + 1), -4.0)
    wav = GriffinLim(frontend, iterations=2)(mel, num_samples)
    assert wav.shape == (1, num_samples)
    assert wav.isfinite().all()


@pytest.mark.parametrize("num_samples", [0, 9 * HOP - 1, 10 * HOP, -1])
def test_a_length_that_the_frames_cannot_hold_is_refused(frontend, num_samples):
    mel = np.full((80, 10), -4.0, np.float32)
    with pytest.raises(MelcodecError, match="10 mel frames hold 2304 to 2559 samples"):
        GriffinLim(frontend)(torch.from_numpy(mel)[None], num_samples)
    with pytest.raises(MelcodecError, match="10 mel frames hold"):
        list(GriffinLim(frontend).stream([mel], num_samples))


def test_silence_stays_silence(frontend):
    silence = frontend(torch.zeros(1, 8_000))
    assert (GriffinLim(frontend)(silence, 8_000) == 0).all()


def test_a_batch_equals_its_items(frontend, wav):
    items = torch.stack([wav[0, :20_000], wav[0, 40_000:60_000]])
    vocoder = GriffinLim(frontend, iterations=8)
    alone = torch.cat([vocoder(frontend(item[None]), 20_000) for item in items])
    torch.testing.assert_close(vocoder(frontend(items), 20_000), alone, atol=1e-4, rtol=0)


def test_chunks_score_as_the_whole(frontend, wav, mel, output):
    """Not the same samples, but as near to the mel, at the seams too, and as loud there."""
    chunk = 64
    chunked = GriffinLim(frontend, chunk_frames=chunk)(mel, wav.shape[-1])
    assert not torch.equal(chunked, output)
    whole, parts = (frontend(x) - mel for x in (output, chunked))
    seams = torch.cat([torch.arange(b - 6, b + 6) for b in range(chunk, mel.shape[-1] - 6, chunk)])
    assert parts.abs().mean() < 1.15 * whole.abs().mean()
    assert parts[..., seams].abs().mean() < 1.3 * whole[..., seams].abs().mean()
    assert parts[..., seams].mean().item() == pytest.approx(whole[..., seams].mean().item(), abs=0.05)
    assert torch.equal(GriffinLim(frontend, chunk_frames=mel.shape[-1])(mel, wav.shape[-1]), output)


@pytest.mark.parametrize("num_frames", [32, 63, 64, 65, 79, 80, 81, 95, 96, 97, 128, 129, 144, 200])
def test_chunks_have_exact_lengths(frontend, num_frames):
    for num_samples in ((num_frames - 1) * HOP, num_frames * HOP - 1):
        mel = torch.full((2, 80, num_frames), -4.0)
        assert GriffinLim(frontend, iterations=1, chunk_frames=64)(mel, num_samples).shape == (2, num_samples)


@pytest.mark.parametrize("block", [1, 50, 64, 1_000])
def test_a_stream_equals_the_call(frontend, wav, mel, block):
    """Whatever the sizes of its blocks; memory stays bounded because pieces come out before all frames are in."""
    vocoder = GriffinLim(frontend, iterations=2, chunk_frames=64)
    taken = 0

    def blocks():
        nonlocal taken
        for start in range(0, mel.shape[-1], block):
            taken += 1
            yield mel[0, :, start : start + block].numpy()

    pieces, taken_at_first = [], 0
    for piece in vocoder.stream(blocks(), wav.shape[-1]):
        taken_at_first = taken_at_first or taken
        pieces.append(piece)
    assert taken_at_first * block < 64 + 16 + block
    np.testing.assert_allclose(np.concatenate(pieces), vocoder(mel, wav.shape[-1])[0].numpy(), atol=1e-5)


def reference(magnitude, phases, frontend, num_samples, iterations, momentum, held):
    """The algorithm as the paper has it, with torch's own transforms."""
    previous = torch.zeros_like(phases)
    for _ in range(iterations):
        consistent = stft(istft(magnitude * phases, frontend, num_samples), frontend)
        phases = torch.sgn(consistent + momentum * (consistent - previous))
        phases[..., : held.shape[-1]] = held
        previous = consistent
    return istft(magnitude * phases, frontend, num_samples)


@pytest.mark.parametrize("momentum", [0.0, 0.99, 1.3])
@pytest.mark.parametrize("num_samples", [600, 4 * HOP - 1, 4 * HOP, 30_001])
def test_it_is_the_algorithm_of_the_paper(frontend, wav, momentum, num_samples):
    magnitude = stft(torch.cat([wav[:, :num_samples], 0.3 * wav[:, -num_samples:]]), frontend).abs()
    phases = torch.polar(
        torch.ones_like(magnitude), 6.28 * torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(1))
    )
    for iterations, close in ((0, 110), (1, 100), (8, 50)):  # dB; a phase near zero goes either way, and others follow it
        args = magnitude, phases, frontend, num_samples, iterations, momentum, phases[..., :2]
        expected, got = reference(*args), fast_griffin_lim(*args)
        assert got.shape == expected.shape == (2, num_samples)
        assert 10 * math.log10(expected.square().sum() / (got - expected).square().sum()) > close


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (1024, 300), (800, 160), (510, 100)])
def test_framing_is_that_of_torch(wav, n_fft, hop):
    frontend = build_frontend(MelConfig(n_fft=n_fft, hop_length=hop), xtts_mel_norms())
    wav = wav[:, :20_011].double()
    expected = stft(wav, frontend.double())
    framing = Framing(frontend, wav.shape[-1])
    padded = torch.nn.functional.pad(wav, (n_fft // 2, 2 * n_fft))
    real, imag = framing.spectrum(padded)
    assert torch.allclose(torch.complex(real, imag).mT, expected)
    changed = real * torch.linspace(0, 2, real.shape[-1])  # no wave has it
    again = framing.wave(changed, imag)
    assert torch.allclose(again[:, framing.inside], istft(torch.complex(changed, imag).mT, frontend, wav.shape[-1]))
    assert not again[:, : framing.inside.start].any()
    assert not again[:, framing.inside.stop :].any()
