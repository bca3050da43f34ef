"""A checkpoint written into a GPT trainer's file: that DVAE, and not a byte of anything else."""

import pickle
import shutil
import sys

import pytest
import torch

from melcodec.cli.main import main
from melcodec.config import ConvConfig, EMAConfig, MelConfig, ModelConfig, xtts_mel_norms
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import from_model, save_checkpoint
from melcodec.formats.xtts import import_xtts, unused_buffers
from melcodec.formats.xtts_trainer import export_into
from melcodec.vqvae import build_vqvae

NORMS = torch.tensor(xtts_mel_norms())
OTHER_NORMS = torch.linspace(-9, -2, 80)


@pytest.fixture(scope="module")
def flat(golden_folder):
    """The 53 tensors of the DVAE that the trainer had."""
    full = torch.load(golden_folder / "tiny_dvae.pth", weights_only=True)
    return {key: value for key, value in full.items() if not key.startswith("discrete_loss.")}


@pytest.fixture(scope="module")
def tuned(golden_folder):
    """The same model with another decoder bias, as a checkpoint."""
    checkpoint = import_xtts(golden_folder / "tiny_dvae.pth").checkpoint
    checkpoint.tensors["decoder.6.bias"].add_(1)
    return checkpoint


def trainer_file(path, flat, norms=NORMS, prefix="dvae.", **changes):
    """What Coqui's trainer saves: nested, the DVAE beside other parts, the optimizer, and weights that share their storage."""
    tied = torch.arange(6.0).reshape(3, 2)
    dvae = {f"{prefix}{key}": value for key, value in {**flat, **unused_buffers(32)}.items()}
    state = {"xtts.gpt.gpt.wte.weight": tied, "xtts.gpt.head.weight": tied, **dvae, "xtts.mel_stats": norms, **changes}
    optimizer = [{"state": {0: {"exp_avg": torch.full((2,), 0.5)}}, "param_groups": [{"lr": 1e-5}]}]
    content = {"config": {"a": [1, None]}, "model": state, "optimizer": optimizer, "scaler": None, "step": 7, "date": "today"}
    torch.save(content, path)
    return path


def plain(value):
    """``value`` with its tensors as comparable words."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        return [(key, plain(each)) for key, each in value.items()]
    return [plain(each) for each in value] if isinstance(value, list) else value


def test_the_dvae_is_replaced_and_everything_else_is_untouched(flat, tuned, tmp_path):
    source = trainer_file(tmp_path / "best_model.pth", flat)
    before = source.read_bytes()
    told = export_into(tuned, source, tmp_path / "new.pth")
    assert told == ("1 of 53 'dvae.*' tensors changed",)
    assert source.read_bytes() == before
    old = torch.load(source, weights_only=True)
    new = torch.load(tmp_path / "new.pth", weights_only=True)
    assert torch.equal(new["model"]["dvae.decoder.6.bias"], flat["decoder.6.bias"] + 1)
    shared = [new["model"][f"xtts.gpt.{name}.weight"].untyped_storage().data_ptr() for name in ("gpt.wte", "head")]
    assert shared[0] == shared[1]  # tied weights stay tied
    new["model"]["dvae.decoder.6.bias"] = flat["decoder.6.bias"]
    assert plain(new) == plain(old)  # order of keys included
    again = import_xtts(tmp_path / "new.pth").checkpoint
    assert all(torch.equal(again.tensors[key], tuned.tensors[key]) for key in tuned.tensors)


@pytest.mark.parametrize("name", ["encoder.0.0.weight", "codebook.embed", "codebook.cluster_size"])
def test_a_changed_code_space_is_reported(name, flat, tuned, tmp_path):
    source = trainer_file(tmp_path / "best_model.pth", {**flat, name: flat[name] + 1})
    told = export_into(tuned, source, tmp_path / "new.pth")
    assert told[0] == "2 of 53 'dvae.*' tensors changed"
    assert any("train it again" in note for note in told) == (name != "codebook.cluster_size")


def test_the_same_inputs_give_the_same_bytes(flat, tuned, tmp_path):
    source = trainer_file(tmp_path / "best_model.pth", flat)
    for name in ("a.pth", "another-name.pth"):
        export_into(tuned, source, tmp_path / name)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "another-name.pth").read_bytes()


@pytest.mark.parametrize("prefix", ["dvae.", "module.dvae.", "dvae._orig_mod."])
def test_wrapped_modules_keep_their_names(prefix, flat, tuned, tmp_path):
    source = trainer_file(tmp_path / "best_model.pth", flat, prefix=prefix)
    export_into(tuned, source, tmp_path / "new.pth")
    state = torch.load(tmp_path / "new.pth", weights_only=True)["model"]
    assert state.keys() == torch.load(source, weights_only=True)["model"].keys()
    assert torch.equal(state[f"{prefix}decoder.6.bias"], tuned.tensors["decoder.6.bias"])


@pytest.mark.parametrize("norms", [OTHER_NORMS, torch.ones(80)], ids=["others", "the placeholder"])
def test_other_mel_norms_are_replaced_and_reported(norms, flat, tuned, tmp_path):
    told = export_into(tuned, trainer_file(tmp_path / "best_model.pth", flat, norms), tmp_path / "new.pth")
    state = torch.load(tmp_path / "new.pth", weights_only=True)["model"]
    assert torch.equal(state["xtts.mel_stats"], NORMS)
    assert "'xtts.mel_stats' differed and were replaced" in told[-1]
    assert "mel_norm_file" in told[-1]


def test_a_file_of_the_model_alone_and_one_of_old_pytorch_are_taken(flat, tuned, tmp_path):
    state = torch.load(trainer_file(tmp_path / "best_model.pth", flat), weights_only=True)["model"]
    torch.save(state, tmp_path / "plain.pth", _use_new_zipfile_serialization=False)
    export_into(tuned, tmp_path / "plain.pth", tmp_path / "new.pth")
    assert torch.equal(
        torch.load(tmp_path / "new.pth", weights_only=True)["dvae.decoder.6.bias"], tuned.tensors["decoder.6.bias"]
    )


# refusals


def without(flat, name):
    return {key: value for key, value in flat.items() if key != name}


REFUSED = {
    "another K": (lambda path, flat: trainer_file(path, {**flat, "codebook.embed": torch.zeros(8, 64)}), r"\(8, 64\), in the"),
    "a missing key": (
        lambda path, flat: trainer_file(path, without(flat, "encoder.5.bias")),
        r"'dvae\.encoder\.5\.bias' is missing",
    ),
    "missing averages": (lambda path, flat: trainer_file(path, without(flat, "codebook.embed_avg")), r"embed_avg' is missing"),
    "an unknown key": (
        lambda path, flat: trainer_file(path, flat, **{"dvae.encoder.9.bias": torch.zeros(1)}),
        r"no tensor for 'dvae\.encoder\.9\.bias'",
    ),
    "integers": (lambda path, flat: trainer_file(path, {**flat, "encoder.5.bias": torch.zeros(8).long()}), r"is torch\.int64"),
    "norms of another shape": (
        lambda path, flat: trainer_file(path, flat, torch.ones(3)),
        r"'xtts\.mel_stats' is not a tensor of 80",
    ),
    "a DVAE alone": (lambda path, flat: torch.save(flat, path), r"not a file of XTTS's GPT trainer"),
    "a GPT alone": (lambda path, flat: torch.save({"model": {"gpt.wte": torch.ones(2)}}, path), "without its DVAE"),
    "pickled code": (lambda path, flat: path.write_bytes(pickle.dumps(shutil.rmtree)), "not a torch file|pickled Python object"),
    "text": (lambda path, flat: path.write_text("hello"), "not a torch file"),
    "nothing": (lambda path, flat: None, "no such file"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals_name_the_reason_and_write_nothing(make, message, flat, tuned, tmp_path):
    source = tmp_path / "best_model.pth"
    make(source, flat)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MelcodecError, match=message) as refusal:
        export_into(tuned, source, tmp_path / "new.pth")
    assert refusal.value.message.startswith(f"{source}: ")
    assert sorted(tmp_path.iterdir()) == before


def test_a_module_that_is_pickled_whole_is_not_run(tuned, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "best_model.pth")
    with pytest.raises(MelcodecError, match=r"pickled Python object \(torch\.nn\.modules\.linear\.Linear\)"):
        export_into(tuned, tmp_path / "best_model.pth", tmp_path / "new.pth")


def test_what_coqui_cannot_build_is_not_written(flat, tmp_path):
    config = ModelConfig(
        mel=MelConfig(hop_length=128), backbone=ConvConfig(hidden=4), quantizer=EMAConfig(codebook_size=8), dim=4
    )
    checkpoint = from_model(build_vqvae(config), config, xtts_mel_norms(), {})
    source = trainer_file(tmp_path / "best_model.pth", flat)
    with pytest.raises(MelcodecError, match="mel settings"):
        export_into(checkpoint, source, tmp_path / "new.pth")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_the_source_is_never_written_to(link, flat, tuned, tmp_path):
    source = trainer_file(tmp_path / "best_model.pth", flat)
    target = tmp_path / "link.pth" if link else source
    if link:
        getattr(target, link)(source)
    before = source.read_bytes()
    with pytest.raises(MelcodecError, match="is the file that is read"):
        export_into(tuned, source, target, overwrite=True)
    assert source.read_bytes() == before


# the command


def test_the_command_writes_a_new_file(monkeypatch, capsys, flat, tuned, tmp_path):
    def melcodec(*args):
        monkeypatch.setattr(sys, "argv", ["melcodec", "export-xtts", *map(str, args)])
        with pytest.raises(SystemExit) as leaving:
            main()
        return leaving.value.code, capsys.readouterr()

    save_checkpoint(tmp_path / "own.safetensors", tuned)
    source, target = trainer_file(tmp_path / "best_model.pth", flat, OTHER_NORMS), tmp_path / "new.pth"
    status, told = melcodec(tmp_path / "own.safetensors", "--into", source, "-o", target)
    assert status == 0
    assert told.out == ""
    assert "note: 1 of 53 'dvae.*' tensors changed" in told.err
    assert "mel norms 'xtts.mel_stats' differed" in told.err
    assert told.err.endswith(f"{target}\n")
    assert torch.equal(torch.load(target, weights_only=True)["model"]["dvae.decoder.6.bias"], tuned.tensors["decoder.6.bias"])
    target.write_text("precious")
    assert melcodec(tmp_path / "own.safetensors", "--into", source, "-o", target)[0] == 1
    assert target.read_text() == "precious"
    assert melcodec(tmp_path / "own.safetensors", "--into", source, "-o", source, "-f")[0] == 1
    assert melcodec(tmp_path / "own.safetensors", "--into", source, "-o", target, "-f")[0] == 0
    assert target.stat().st_size > 10_000
