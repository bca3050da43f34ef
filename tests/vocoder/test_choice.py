import pytest
import torch

from melcodec.codec import Codec
from melcodec.config import GriffinLimConfig, LearnedVocoderConfig, RunConfig, parse
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import load_checkpoint
from melcodec.vocoder.choice import choose_vocoder, find_vocoder
from melcodec.vocoder.file import load_vocoder, save_vocoder
from melcodec.vocoder.griffin_lim import GriffinLim
from melcodec.vocoder.learned import LearnedVocoder


def test_a_name_a_file_a_folder_or_settings(tiny_vocoder, tmp_path):
    assert choose_vocoder("griffin-lim") == GriffinLimConfig()
    assert choose_vocoder(tiny_vocoder) == LearnedVocoderConfig(weights=str(tiny_vocoder))
    (tmp_path / "best.safetensors").write_bytes(tiny_vocoder.read_bytes())
    assert find_vocoder(tmp_path) == tmp_path / "best.safetensors"
    settings = tmp_path / "mine.toml"
    settings.write_text('kind = "griffin-lim"\niterations = 4\n')
    assert choose_vocoder(settings) == GriffinLimConfig(iterations=4)
    settings.write_text(f'kind = "learned"\nweights = "{tiny_vocoder}"\nrefine = 3\n')
    assert choose_vocoder(settings) == LearnedVocoderConfig(weights=str(tiny_vocoder), refine=3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('kind = "hifigan"\n', "kind 'hifigan' is no vocoder"),
        ("iterations = 4\n", "kind None"),
        ('kind = "griffin-lim"\nx = 1\n', "x"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, text, complaint):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(MelcodecError, match=complaint):
        choose_vocoder(tmp_path / "x.toml")


def test_what_is_no_vocoder_is_refused(tmp_path, tiny_checkpoint):
    with pytest.raises(MelcodecError, match="no such vocoder") as caught:
        choose_vocoder("nothing")
    assert "griffin-lim" in caught.value.hint
    with pytest.raises(MelcodecError, match="holds checkpoint, not vocoder"):
        Codec.from_pretrained(tiny_checkpoint, "cpu", tiny_checkpoint)


def test_a_run_knows_its_vocoder():
    assert RunConfig().vocoder == GriffinLimConfig()
    config = parse(RunConfig, {"vocoder": {"kind": "learned", "weights": "x"}}, "here")
    assert config.vocoder == LearnedVocoderConfig(weights="x")


def test_the_codec_takes_the_vocoder_that_is_named(tiny_checkpoint, tiny_vocoder):
    codes = torch.zeros(1, 12, dtype=torch.int64)
    outputs = []
    for name, kind in (("griffin-lim", GriffinLim), (GriffinLimConfig(iterations=1), GriffinLim), (tiny_vocoder, LearnedVocoder)):
        codec = Codec.from_pretrained(tiny_checkpoint, "cpu", name)
        assert isinstance(codec.vocoder, kind)
        outputs.append(codec.decode(codes))
    assert outputs[0].shape == outputs[2].shape
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_a_vocoder_for_another_mel_is_refused(tiny_checkpoint, tiny_vocoder, tmp_path):
    made = load_vocoder(tiny_vocoder)
    other = made.mel.model_copy(update={"f_max": 7_600.0})
    path = tmp_path / "other.safetensors"
    save_vocoder(path, type(made)(other, made.network, made.tensors))
    with pytest.raises(MelcodecError, match=r"other.safetensors: made for another mel: f_max 7600.0, not 8000.0"):
        Codec.from_pretrained(tiny_checkpoint, "cpu", path)
    checkpoint = load_checkpoint(tiny_checkpoint)
    codec = Codec.from_checkpoint(checkpoint, "cpu")
    with pytest.raises(MelcodecError, match="the vocoder: made for another mel: f_max"):
        Codec(codec.frontend, codec.model, LearnedVocoder(load_vocoder(path).build()), codec.fingerprint, codec.device)
