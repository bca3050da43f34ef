import math

import pytest
import torch

from melcodec.audio.mel import MelFrontend
from melcodec.config import VocosConfig, xtts_mel_norms
from melcodec.training.vocoder.discriminator import Discriminators, adversarial_loss, discriminator_loss, feature_loss
from melcodec.training.vocoder.losses import magnitude_loss, multi_resolution_loss, phase_loss, spectral_terms, stft_distance
from melcodec.training.vocoder.settings import VocoderObjectiveConfig
from melcodec.vocoder.griffin_lim import istft, stft
from melcodec.vocoder.network import VocosNetwork


@pytest.fixture(scope="module")
def frontend():
    return MelFrontend(xtts_mel_norms())


@pytest.fixture(scope="module")
def wav(golden):
    return torch.from_numpy(golden["0.wav"])[None, :8_191]


def test_the_original_has_no_loss(frontend, wav):
    target = stft(wav, frontend)
    output = target.abs().clamp(min=1e-9).log(), torch.sgn(target)
    terms = spectral_terms(output, wav, wav, frontend, VocoderObjectiveConfig())
    assert list(terms) == ["magnitude", "phase", "stft", "mel"]
    assert all(float(term) < 1e-3 for term in terms.values()), terms
    assert stft_distance(wav, wav) == 0


def test_magnitudes_count_in_natural_log_and_relative_to_the_whole():
    target = torch.rand(1, 8, 8) + 1
    # ln 2 apart everywhere, and a difference as large as the target itself
    assert float(magnitude_loss((2 * target).log(), target)) == pytest.approx(math.log(2) + 1, rel=1e-5)
    assert torch.isfinite(magnitude_loss(torch.full((1, 4, 4), -30.0), torch.zeros(1, 4, 4)))


def test_phases_count_absolutely_and_as_differences(frontend, wav):
    target = stft(wav, frontend)
    phases = torch.sgn(target)
    assert float(phase_loss(-phases, target)) == pytest.approx(2 / 3, abs=1e-3)  # differences are all right
    turned = phases * torch.polar(torch.ones(1), torch.tensor([math.pi / 2]))
    assert float(phase_loss(turned, target)) == pytest.approx(1 / 3, abs=1e-3)
    random = torch.polar(torch.ones(phases.shape), 6.28 * torch.rand(phases.shape, generator=torch.Generator().manual_seed(0)))
    assert float(phase_loss(random, target)) == pytest.approx(1, abs=0.05)


def test_resolutions_see_what_is_in_the_wave(wav):
    louder = multi_resolution_loss(2 * wav, wav)
    assert float(louder) == pytest.approx(math.log(2) + 1, abs=0.25)  # less where both are under the quietest magnitude
    assert float(multi_resolution_loss(wav.roll(2_000, -1), wav)) > 0.5
    assert stft_distance(2 * wav, wav) == pytest.approx(math.log(2), abs=0.2)


def test_gradients_reach_every_weight_and_stay_finite(frontend, wav):
    """Also of silence, where magnitudes have no derivative."""
    torch.manual_seed(0)
    network = VocosNetwork(VocosConfig(width=8, hidden=16, num_blocks=2), frontend.config)
    discriminators = Discriminators(2)
    batch = torch.cat([wav, torch.zeros_like(wav)])
    output = network(frontend(batch))
    made = istft(output[0].exp() * output[1], frontend, batch.shape[-1])
    terms = spectral_terms(output, made, batch, frontend, VocoderObjectiveConfig())
    judged = discriminators(made)
    terms |= {"adversarial": adversarial_loss(judged), "features": feature_loss(discriminators(batch), judged)}
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_discriminators_learn_to_tell_noise_from_speech(wav):
    torch.manual_seed(0)
    discriminators = Discriminators(4)
    wav = wav[:, :4_096]
    noise = wav.std() * torch.randn(wav.shape)
    optimizer = torch.optim.AdamW(discriminators.parameters(), 5e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss = discriminator_loss(discriminators(wav), discriminators(noise))
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1.0  # 2 when nothing is told apart
    with torch.no_grad():
        of_speech, of_noise = discriminators(wav), discriminators(noise)
    assert float(adversarial_loss(of_noise)) > float(adversarial_loss(of_speech))
    assert float(feature_loss(of_speech, of_speech)) == 0
    assert float(feature_loss(of_speech, of_noise)) > 0.1
