"""The XTTS door: every file of XTTS's world in, the same codes as Coqui's own code, and out again."""

import hashlib
import pickle
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from melcodec.audio.mel import build_frontend
from melcodec.config import ConvConfig, EMAConfig, MelConfig, ModelConfig, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.formats import xtts
from melcodec.formats.checkpoint import for_inference, from_model, load_checkpoint, save_checkpoint
from melcodec.formats.xtts import export_xtts, import_xtts, unused_buffers
from melcodec.vqvae import build_vqvae

EMA_BUFFERS = ("codebook.cluster_size", "codebook.embed_avg")

OTHER_NORMS = torch.linspace(-9, -2, 80)


@pytest.fixture(scope="module")
def full(golden_folder):
    """The 56 tensors of Coqui's class, as a fine-tuning script saves them."""
    return torch.load(golden_folder / "tiny_dvae.pth", weights_only=True)


@pytest.fixture(scope="module")
def flat(full):
    """The 53 tensors of an official file."""
    return {key: value for key, value in full.items() if not key.startswith("discrete_loss.")}


@pytest.fixture(scope="module")
def model(golden_folder):
    return import_xtts(golden_folder / "tiny_dvae.pth", golden_folder / "mel_stats.pth").checkpoint.build().requires_grad_(False)


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def gpt_trainer_file(flat, norms):
    """What a GPT trainer's best_model.pth looks like: nested, the DVAE beside other parts, the optimiser."""
    other = {
        "xtts.gpt.gpt.wte.weight": torch.zeros(3, 2),
        "torch_mel_spectrogram_dvae.mel_stft.spectrogram.window": torch.ones(4),
    }
    dvae = {f"dvae.{key}": value for key, value in {**flat, **unused_buffers(32)}.items()}
    optimizer = [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-5}]}]
    return {
        "config": {"a": 1},
        "model": {**other, **dvae, "xtts.mel_stats": norms},
        "optimizer": optimizer,
        "step": 7,
        "epoch": 1,
    }


def test_a_flat_file_keeps_every_tensor(flat, golden_folder, tmp_path):
    report = import_xtts(saved(tmp_path / "dvae.pth", flat), golden_folder / "mel_stats.pth")
    assert report.checkpoint.tensors.keys() == flat.keys()
    assert all(torch.equal(report.checkpoint.tensors[key], flat[key]) for key in flat)
    assert report.checkpoint.config == ModelConfig(backbone=ConvConfig(hidden=16), quantizer=EMAConfig(codebook_size=32), dim=8)
    assert report.notes == ("mel norms from mel_stats.pth",)
    assert report.sha256 == hashlib.sha256((tmp_path / "dvae.pth").read_bytes()).hexdigest()
    assert report.known is None
    assert report.checkpoint.provenance["source"] == "dvae.pth"
    assert report.checkpoint.provenance["sha256"] == report.sha256
    assert "Coqui Public Model License" in report.checkpoint.provenance["licence"]


WRAPPINGS = {
    "56 keys": lambda flat: {**unused_buffers(32), **flat},
    "model": lambda flat: {"model": flat, "step": 3},
    "state_dict": lambda flat: {"state_dict": flat},
    "model_state_dict": lambda flat: {"model_state_dict": flat, "loss": 0.5},
    "twice nested": lambda flat: {"model": {"state_dict": flat}},
    "dvae.": lambda flat: {f"dvae.{key}": value for key, value in flat.items()},
    "module.": lambda flat: {f"module.{key}": value for key, value in flat.items()},
    "module.dvae.": lambda flat: {f"module.dvae.{key}": value for key, value in flat.items()},
    "_orig_mod.": lambda flat: {f"_orig_mod.{key}": value for key, value in flat.items()},
    "compiled parts": lambda flat: {re.sub(r"^(\w+)\.", r"\1._orig_mod.", key): value for key, value in flat.items()},
    "compiled layers": lambda flat: {re.sub(r"^(\w+\.\d+)\.", r"\1._orig_mod.", key): value for key, value in flat.items()},
    "compiled part of a part": lambda flat: {f"dvae._orig_mod.{key}": value for key, value in flat.items()},
    "distributed parts": lambda flat: {re.sub(r"^(\w+)\.", r"\1.module.", key): value for key, value in flat.items()},
    "both": lambda flat: {f"module._orig_mod.{re.sub('^encoder', 'encoder.module._orig_mod', key)}": flat[key] for key in flat},
    "twice": lambda flat: {**flat, **{f"encoder._orig_mod.{key[8:]}": flat[key] for key in flat if key.startswith("encoder.")}},
    "sharded": lambda flat: {re.sub(r"^encoder\.", "encoder._fsdp_wrapped_module.", key): value for key, value in flat.items()},
    "GPT trainer": lambda flat: gpt_trainer_file(flat, torch.ones(80)),
    "parameters": lambda flat: {key: torch.nn.Parameter(value) for key, value in flat.items()},
    "views": lambda flat: {key: torch.stack([value, value + 1])[0] for key, value in flat.items()},
    "transposed": lambda flat: {key: value.transpose(0, -1).contiguous().transpose(0, -1) for key, value in flat.items()},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_wrapping_holds_the_same_model(wrap, zipped, flat, tmp_path):
    path = saved(tmp_path / "file.pth", wrap(flat), _use_new_zipfile_serialization=zipped)
    checkpoint = import_xtts(path).checkpoint
    assert checkpoint.tensors.keys() == flat.keys()
    assert all(torch.equal(checkpoint.tensors[key], flat[key]) for key in flat)
    assert all(value.is_contiguous() and not value.requires_grad for value in checkpoint.tensors.values())
    save_checkpoint(tmp_path / "own.safetensors", checkpoint)
    assert load_checkpoint(tmp_path / "own.safetensors").fingerprint == checkpoint.fingerprint
    # nothing drags the storage of the file along
    assert all(value.untyped_storage().nbytes() == 4 * value.numel() for value in checkpoint.tensors.values())


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (ModelConfig(backbone=ConvConfig(hidden=4), dim=6, quantizer=EMAConfig(codebook_size=8192)), "Tortoise's K"),
        (ModelConfig(backbone=ConvConfig(hidden=6, num_blocks=1), dim=4, quantizer=EMAConfig(codebook_size=16)), "1 block"),
        (ModelConfig(backbone=ConvConfig(hidden=6, num_blocks=5), dim=4, quantizer=EMAConfig(codebook_size=16)), "5 blocks"),
        (ModelConfig(backbone=ConvConfig(hidden=6, num_blocks=0), dim=4, quantizer=EMAConfig(codebook_size=16)), "no blocks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sizes_come_from_shapes(config, name, tmp_path):
    path = saved(tmp_path / "dvae.pth", build_vqvae(config).state_dict())
    assert import_xtts(path).checkpoint.config == config


def test_missing_averages_are_rebuilt_and_reported(flat, tmp_path):
    report = import_xtts(saved(tmp_path / "dvae.pth", {key: flat[key] for key in flat if key not in EMA_BUFFERS}))
    tensors = report.checkpoint.tensors
    assert torch.equal(tensors["codebook.embed"], flat["codebook.embed"])
    assert (tensors["codebook.cluster_size"] > 0).all()
    assert torch.equal(tensors["codebook.embed_avg"], tensors["codebook.cluster_size"] * flat["codebook.embed"])
    assert any("moving averages were missing" in note for note in report.notes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, flat, tmp_path):
    report = import_xtts(saved(tmp_path / "dvae.pth", {key: value.to(dtype) for key, value in flat.items()}))
    assert all(torch.equal(report.checkpoint.tensors[key], flat[key].to(dtype).float()) for key in flat)
    assert f"{dtype} tensors became float32".removeprefix("torch.") in report.notes


def test_known_files_are_named(flat, tmp_path, monkeypatch):
    """The real files cannot be here; their hashes are those that public projects pin."""
    path = saved(tmp_path / "dvae.pth", flat)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(xtts.KNOWN_FILES, digest, xtts.KnownFile("a known file", "its licence"))
    report = import_xtts(path)
    assert report.known == "a known file"
    assert report.checkpoint.provenance["licence"] == "its licence"
    assert all(len(key) == 64 for key in xtts.KNOWN_FILES)


# mel norms


def test_given_norms_win(flat, golden_folder, tmp_path):
    path = saved(tmp_path / "best_model.pth", gpt_trainer_file(flat, OTHER_NORMS))
    assert import_xtts(path, golden_folder / "mel_stats.pth").checkpoint.mel_norms == xtts_mel_norms()


@pytest.mark.parametrize("key", ["mel_stats", "xtts.mel_stats", "torch_mel_spectrogram_dvae.mel_norms", "module.xtts.mel_stats"])
def test_norms_inside_a_file_are_found(key, flat, tmp_path):
    state = {f"dvae.{name}": value for name, value in flat.items()}
    report = import_xtts(saved(tmp_path / "best_model.pth", {**state, key: OTHER_NORMS.half()}))
    assert torch.equal(torch.tensor(report.checkpoint.mel_norms), OTHER_NORMS.half().float())
    assert report.notes[0] == f"mel norms from its key '{key}'"


def test_norms_beside_unprefixed_tensors_are_found(flat, tmp_path):
    report = import_xtts(saved(tmp_path / "dvae.pth", {**flat, "mel_stats": OTHER_NORMS}))
    assert torch.equal(torch.tensor(report.checkpoint.mel_norms), OTHER_NORMS)


def test_the_norms_that_fed_the_dvae_come_first(flat, tmp_path):
    state = {f"dvae.{name}": value for name, value in flat.items()}
    state |= {"xtts.mel_stats": OTHER_NORMS, "torch_mel_spectrogram_dvae.mel_norms": 2 * OTHER_NORMS}
    report = import_xtts(saved(tmp_path / "best_model.pth", state))
    assert torch.equal(torch.tensor(report.checkpoint.mel_norms), 2 * OTHER_NORMS)


def test_placeholder_norms_are_not_norms(flat, tmp_path):
    """Xtts starts with ones and saves them when its trainer was given no norms."""
    report = import_xtts(saved(tmp_path / "best_model.pth", gpt_trainer_file(flat, torch.ones(80))))
    assert report.checkpoint.mel_norms == xtts_mel_norms()
    assert report.notes[0] == "mel norms of XTTS: none were given and the file has none"


def test_the_default_norms_are_those_of_the_real_file(flat, golden_folder, tmp_path):
    path = saved(tmp_path / "dvae.pth", flat)
    with_file = import_xtts(path, golden_folder / "mel_stats.pth").checkpoint
    assert with_file.fingerprint == import_xtts(path).checkpoint.fingerprint
    norms = saved(tmp_path / "other.pth", OTHER_NORMS)
    assert with_file.fingerprint != import_xtts(path, norms).checkpoint.fingerprint


@pytest.mark.parametrize(
    "norms", [torch.ones(79), torch.ones(1, 80), torch.zeros(80), OTHER_NORMS * torch.nan, {"a": OTHER_NORMS}]
)
def test_bad_norms_are_refused(norms, flat, tmp_path):
    path = saved(tmp_path / "dvae.pth", flat)
    with pytest.raises(MelcodecError, match=r"mel_stats\.pth: .*mel norms"):
        import_xtts(path, saved(tmp_path / "mel_stats.pth", norms))


def test_bad_norms_inside_a_file_are_refused(flat, tmp_path):
    with pytest.raises(MelcodecError, match=r"'xtts\.mel_stats': mel norms of shape \(3,\)"):
        import_xtts(saved(tmp_path / "best.pth", gpt_trainer_file(flat, torch.zeros(3))))


# refusals


class XttsConfig:
    """Stands for the configuration class that the official model.pth pickles."""


def changed(flat, key, change):
    return {**flat, key: change(flat[key])}


REFUSED = {
    "whole module": (
        lambda flat: torch.nn.Linear(2, 2),
        r"pickled Python object \(torch\.nn\.modules\.linear\.Linear\)",
        "state_dict",
    ),
    "official model.pth": (
        lambda flat: {"config": XttsConfig(), "model": flat},
        r"configuration as pickled .*XttsConfig",
        r"dvae\.pth",
    ),
    "XTTS without DVAE": (
        lambda flat: {"model": {"gpt.wte": torch.ones(2), "mel_stats": OTHER_NORMS}},
        "without its DVAE",
        "best_model",
    ),
    "another model": (lambda flat: {"layer.weight": torch.ones(2)}, "without a DVAE in it", "codebook.embed"),
    "two models": (lambda flat: {f"{p}.{k}": v for k, v in flat.items() for p in "ab"}, r"several DVAEs, under 'a\.', 'b\.'", ""),
    "compiled and not": (
        lambda flat: {**flat, "encoder._orig_mod.5.bias": flat["encoder.5.bias"] + 1},
        r"two different tensors 'encoder\.5\.bias', one of them as 'encoder\._orig_mod\.5\.bias'",
        "",
    ),
    "tensor": (lambda flat: OTHER_NORMS, "holds a Tensor, not a state dict", ""),
    "list": (lambda flat: [OTHER_NORMS], "holds a list, not a state dict", ""),
    "extra": (lambda flat: {**flat, "encoder.5.scale": torch.ones(1)}, r"unknown tensor 'encoder\.5\.scale'", ""),
    "extra value": (lambda flat: {**flat, "epoch": 3}, "unknown tensor 'epoch'", ""),
    "wrong shape": (
        lambda flat: changed(flat, "decoder.4.0.conv.weight", lambda w: w[:, :, :2]),
        r"'decoder\.4\.0\.conv\.weight' is \(32, 32, 2\), not \(32, 32, 3\)",
        "",
    ),
    "transposed codebook": (lambda flat: changed(flat, "codebook.embed", lambda e: e.T), r"'codebook\.embed' is \(32, 8\)", ""),
    "scalar": (lambda flat: changed(flat, "codebook.embed", lambda e: e.sum()), r"'codebook\.embed' has the shape \(\)", ""),
    "wrong bands": (
        lambda flat: changed(flat, "encoder.0.0.weight", lambda w: w[:, :64]),
        r"\(16, 64, 3\), not \(16, 80, 3\)",
        "",
    ),
    "one code": (
        lambda flat: {
            **flat,
            **{f"codebook.{k}": flat[f"codebook.{k}"][..., :1] for k in ("embed", "embed_avg", "cluster_size")},
        },
        r"quantizer\.codebook_size",
        "",
    ),
    "integers": (lambda flat: changed(flat, "encoder.5.bias", lambda b: b.long()), r"'encoder\.5\.bias' is torch\.int64", ""),
    "no tensor": (lambda flat: {**flat, "encoder.5.bias": [0.0]}, r"'encoder\.5\.bias' is list", ""),
    "NaN": (
        lambda flat: changed(flat, "encoder.1.0.bias", lambda b: b * torch.nan),
        r"'encoder\.1\.0\.bias' holds NaN",
        "diverged",
    ),
    "infinity": (
        lambda flat: changed(flat, "codebook.embed_avg", lambda a: a / 0),
        r"'codebook\.embed_avg' holds NaN or inf",
        "",
    ),
}


@pytest.mark.parametrize(("make", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_refusals_name_the_reason(make, message, hint, flat, tmp_path):
    path = saved(tmp_path / "file.pth", make(flat))
    with pytest.raises(MelcodecError, match=message) as refusal:
        import_xtts(path)
    assert refusal.value.message.startswith(f"{path}: ")
    assert "\n" not in refusal.value.message
    assert re.search(hint, refusal.value.hint or "")


def test_every_required_tensor_is_named_when_it_is_missing(flat, tmp_path):
    required = [key for key in flat if key not in EMA_BUFFERS]
    assert len(required) == 51
    for missing in required:
        path = saved(tmp_path / "dvae.pth", {key: value for key, value in flat.items() if key != missing})
        with pytest.raises(MelcodecError) as refusal:
            import_xtts(path)
        assert refusal.value.message == f"{path}: tensor '{missing}' is missing"


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is text\n" * 9, b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04"]
)
def test_what_is_no_torch_file_is_refused(content, tmp_path):
    path = tmp_path / "dvae.pth"
    path.write_bytes(content)
    with pytest.raises(MelcodecError, match="not a torch file, or a damaged one"):
        import_xtts(path)


def test_torch_s_own_remarks_are_not_shown(tmp_path):
    path = tmp_path / "dvae.pth"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        with pytest.raises(MelcodecError):
            import_xtts(path)
    assert remarks == []


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(zipped, flat, tmp_path):
    path = saved(tmp_path / "dvae.pth", flat, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(MelcodecError, match="damaged"):
        import_xtts(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(MelcodecError, match="no such file"):
        import_xtts(tmp_path / "none.pth")
    with pytest.raises(MelcodecError, match="is a folder"):
        import_xtts(tmp_path)


# export


def test_export_gives_back_what_import_took(full, golden_folder, tmp_path):
    checkpoint = import_xtts(golden_folder / "tiny_dvae.pth").checkpoint
    notes = export_xtts(checkpoint, tmp_path / "out")
    exported = torch.load(tmp_path / "out" / "dvae.pth", weights_only=True)
    assert list(exported) == list(full)  # 56 keys in the reference's own order
    assert all(exported[key].dtype == full[key].dtype and torch.equal(exported[key], full[key]) for key in full)
    norms = torch.load(tmp_path / "out" / "mel_stats.pth", weights_only=True)
    assert norms.dtype == torch.float32
    assert torch.equal(norms, torch.load(golden_folder / "mel_stats.pth", weights_only=True))
    assert "hidden_dim=16, codebook_dim=8, num_tokens=32, num_resnet_blocks=3" in notes[0]
    again = import_xtts(tmp_path / "out" / "dvae.pth", tmp_path / "out" / "mel_stats.pth").checkpoint
    assert again.fingerprint == checkpoint.fingerprint


def test_the_same_checkpoint_exports_the_same_bytes(golden_folder, tmp_path):
    checkpoint = import_xtts(golden_folder / "tiny_dvae.pth").checkpoint
    save_checkpoint(tmp_path / "own.safetensors", checkpoint)
    export_xtts(checkpoint, tmp_path / "a")
    export_xtts(load_checkpoint(tmp_path / "own.safetensors"), tmp_path / "b")
    for name in ("dvae.pth", "mel_stats.pth"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_checkpoint_without_averages_exports_rebuilt_ones(golden_folder, tmp_path):
    checkpoint = for_inference(import_xtts(golden_folder / "tiny_dvae.pth").checkpoint, torch.float16)
    notes = export_xtts(checkpoint, tmp_path)
    exported = torch.load(tmp_path / "dvae.pth", weights_only=True)
    assert len(exported) == 56
    assert torch.equal(exported["codebook.embed_avg"], exported["codebook.embed"])
    assert any("no moving averages" in note for note in notes)


def test_the_xtts_size_exports_without_a_note(monkeypatch, tmp_path):
    """Shrunk: what counts is that the sizes equal the preset's."""
    config = ModelConfig(backbone=ConvConfig(hidden=4), dim=4, quantizer=EMAConfig(codebook_size=8, decay=0.9))
    checkpoint = from_model(build_vqvae(config), config, xtts_mel_norms(), {})
    assert len(export_xtts(checkpoint, tmp_path / "a")) == 1
    like = config.model_copy(update={"quantizer": EMAConfig(codebook_size=8)})
    monkeypatch.setattr(xtts, "load_preset", lambda name: type("Run", (), {"model": like}))
    assert export_xtts(checkpoint, tmp_path / "b") == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(mel=MelConfig(hop_length=128), backbone=ConvConfig(hidden=4)), "mel settings are not those of XTTS"),
        (ModelConfig(backbone=ConvConfig(hidden=4, num_blocks=0)), "no counterpart"),
    ],
)
def test_what_coqui_cannot_build_is_not_exported(config, message, tmp_path):
    checkpoint = from_model(build_vqvae(config), config, xtts_mel_norms(), {})
    with pytest.raises(MelcodecError, match=message):
        export_xtts(checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["dvae.pth", "mel_stats.pth"])
def test_export_replaces_nothing_unasked(existing, golden_folder, tmp_path):
    checkpoint = import_xtts(golden_folder / "tiny_dvae.pth").checkpoint
    (tmp_path / existing).write_text("precious")
    with pytest.raises(MelcodecError, match="exists already"):
        export_xtts(checkpoint, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]
    export_xtts(checkpoint, tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dvae.pth", "mel_stats.pth"]
    assert (tmp_path / existing).stat().st_size > 100


# parity with the reference


def close(ours, theirs):
    """Within 1e-5 of the largest magnitude; convolutions round differently from one processor to another."""
    tolerance = 1e-5 * float(np.abs(theirs).max())
    torch.testing.assert_close(ours.detach(), torch.from_numpy(theirs), rtol=0, atol=tolerance)


@pytest.mark.parametrize("item", "012")
def test_golden_mel_latents_codes_and_decoding(item, model, golden):
    frontend = build_frontend(MelConfig(), xtts_mel_norms())
    wav, mel = torch.from_numpy(golden[f"{item}.wav"])[None], torch.from_numpy(golden[f"{item}.mel"])[None]
    assert wav.shape[-1] // 256 + 1 == mel.shape[-1]
    own_mel = frontend.normalize(frontend(wav))
    # the golden files come from another processor, whose FFT rounds differently: Coqui's own class differs by 1.4e-5 here,
    # and is bit-equal to ours (benchmarks/parity.py)
    torch.testing.assert_close(own_mel, mel, rtol=0, atol=5e-5)
    assert (own_mel - mel).abs().mean() < 1e-6
    close(model.encode_latents(mel)[0], golden[f"{item}.latents"])
    codes = torch.from_numpy(golden[f"{item}.codes"])
    assert len(codes.unique()) > 10
    assert torch.equal(model.encode(mel)[0, 0], codes)
    assert torch.equal(model.encode(own_mel)[0, 0], codes)
    close(model.decode(codes[None, None])[0], golden[f"{item}.decoded"])


@pytest.mark.parametrize("frames", [*range(1, 18), 100, 101, 102, 103, 833])
def test_lengths(frames, model, golden):
    mel = np.concatenate([golden[f"{item}.mel"] for item in "01212"], axis=-1)[:, :frames]
    assert mel.shape == (80, frames)
    codes = model.encode(torch.from_numpy(mel)[None])
    assert codes.shape == (1, 1, -(-frames // 4))
    assert model.decode(codes).shape == (1, 80, 4 * codes.shape[-1])


def test_one_training_step(golden, golden_folder):
    model = import_xtts(golden_folder / "tiny_dvae.pth").checkpoint.build().train()
    mel = torch.from_numpy(golden["train.input"])
    output = model(mel)
    reconstruction = mse_loss(output.reconstruction, mel)
    commitment = output.quantized.losses["commitment"]
    (reconstruction + commitment).backward()
    model.quantizer.update([output.quantized.moments], 0, torch.Generator())

    assert reconstruction.item() == pytest.approx(golden["train.recon_loss"].item(), rel=1e-5)
    assert commitment.item() == pytest.approx(golden["train.commit_loss"].item(), rel=1e-5)

    close(output.reconstruction, golden["train.output"])
    parameters = dict(model.named_parameters())
    assert {f"train.grad.{key}" for key in parameters} == {name for name in golden if name.startswith("train.grad.")}
    for key, parameter in parameters.items():
        close(parameter.grad, golden[f"train.grad.{key}"])
    for name in ("embed", "cluster_size", "embed_avg"):
        close(getattr(model.codebook, name), golden[f"train.after.{name}"])


# the commands


@pytest.fixture
def melcodec(monkeypatch):
    """Run the command line in this process; returns its exit status."""
    from melcodec.cli.main import main

    def run(*args):
        monkeypatch.setattr("sys.argv", ["melcodec", *map(str, args)])
        with pytest.raises(SystemExit) as leaving:
            main()
        return leaving.value.code

    return run


def test_the_commands_convert_there_and_back(melcodec, flat, capsys, tmp_path):
    source = saved(tmp_path / "source.pth", {**flat, "mel_stats": 2 * OTHER_NORMS})
    norms = saved(tmp_path / "mel_stats.pth", OTHER_NORMS)
    own, out = tmp_path / "new" / "own.safetensors", tmp_path / "out"
    assert melcodec("import-xtts", source, "--mel-stats", norms, "-o", own) == 0
    assert torch.equal(torch.tensor(load_checkpoint(own).mel_norms), OTHER_NORMS)
    assert melcodec("export-xtts", own, "-o", out) == 0
    assert torch.equal(torch.load(out / "mel_stats.pth", weights_only=True), OTHER_NORMS)
    exported = torch.load(out / "dvae.pth", weights_only=True)
    assert all(torch.equal(exported[key], flat[key]) for key in flat)

    before = own.read_bytes()
    assert melcodec("import-xtts", source, "-o", own) == 1
    assert capsys.readouterr().out == ""
    assert melcodec("import-xtts", tmp_path / "none.pth", "-o", own) == 1
    assert "exists already" in capsys.readouterr().err  # said before the reading, which may be long
    assert melcodec("export-xtts", own, "-o", out) == 1
    assert own.read_bytes() == before
    assert melcodec("import-xtts", source, "-o", own, "-f") == 0
    assert own.read_bytes() != before
    assert melcodec("export-xtts", own, "-o", out, "-f") == 0
    assert torch.equal(torch.load(out / "mel_stats.pth", weights_only=True), 2 * OTHER_NORMS)
    assert melcodec("export-xtts", own) == 2  # no default: it writes two files somewhere
    assert capsys.readouterr().out == ""


def test_a_refused_file_is_one_line_and_a_hint(melcodec, capsys, tmp_path):
    path = saved(tmp_path / "module.pth", torch.nn.Linear(2, 2))
    assert melcodec("import-xtts", path, "-o", tmp_path / "own.safetensors") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {path}: a pickled Python object")
    assert second.startswith("hint: ")
    assert "torch.save(model.state_dict()" in second
    assert not (tmp_path / "own.safetensors").exists()


def test_import_says_what_it_found_and_has_a_place_for_it(golden_folder, monkeypatch, capsys, tmp_path):
    from melcodec.cli.convert import import_xtts as command

    monkeypatch.chdir(tmp_path)
    shutil.copy(golden_folder / "tiny_dvae.pth", "dvae.pth")
    command(tmp_path / "dvae.pth")
    told = capsys.readouterr()
    assert told.out == ""
    digest = hashlib.sha256((tmp_path / "dvae.pth").read_bytes()).hexdigest()
    fingerprint = load_checkpoint(tmp_path / "checkpoints" / "xtts.safetensors").fingerprint
    for fact in (
        digest,
        "not one of the official files",
        "K 32, D 8, hidden 16, 3 residual",
        "note: mel norms of XTTS",
        fingerprint,
    ):
        assert fact in told.err
