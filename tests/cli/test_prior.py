"""prior train, score and sample, and .mlc files, as a user types them."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import soundfile

from melcodec.prior.models import save_prior
from melcodec.store.codes import Codes, load_codes, save_codes
from tests import forked
from tests.prior.conftest import SIZE, codes_folder, make_prior, spoken_codes  # noqa: F401

pytest.importorskip("transformers")
pytest.importorskip("constriction")


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    return ["--checkpoint", tiny_checkpoint]


@pytest.fixture(scope="module")
def fingerprint(tiny_checkpoint):
    from melcodec.codec import Codec

    return Codec.from_pretrained(tiny_checkpoint, "cpu").fingerprint


@pytest.fixture(scope="module")
def priors(tmp_path_factory, fingerprint):
    """Folders of a Llama and of a trigram, for codes of the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("priors")
    for kind in ("llama", "ngram"):
        (folder / kind).mkdir()
        save_prior(folder / kind, make_prior(kind, fingerprint=fingerprint))
    return folder


@pytest.fixture
def codes(tmp_path, fingerprint):
    """c.npz in the working folder: 40 codes."""
    save_codes(tmp_path / "c.npz", Codes(spoken_codes(1, 3)[0][:, :40], 40_959, 16_000, fingerprint, (SIZE,)))
    return tmp_path / "c.npz"


def test_train_and_resume(cli, codes_folder, tiny):  # noqa: F811
    short = ["--set", "model.layers=1", "--set", "model.width=16", "--set", "model.context=32", "--set", "train.samples=0"]
    short += ["--set", "train.valid_every=10", "--set", "data.batch_size=2", "--set", "train.log_every=5"]
    words = ["prior", "train", codes_folder, "-o", "prior", "--preset", "tiny", "--device", "cpu", *tiny, *short]
    status, out, err = cli(*words, "--set", "train.steps=10")
    assert (status, out) == (0, ""), err
    assert "trigram" in err
    assert "step 5/10: " in err
    assert "step 10: " in err
    assert "bits per held-out code" in err
    assert "prior is ready: melcodec prior sample prior -o out.wav" in err
    status, _, err = cli(*words, "--set", "train.steps=20")
    assert status == 0
    assert "resuming the run" in err
    assert "step 20: " in err
    assert "other settings: optimizer.lr" in cli(*words, "--set", "optimizer.lr=1").err


def test_train_takes_held_out_codes_and_a_config(cli, codes_folder, tiny, tmp_path):  # noqa: F811
    (tmp_path / "n.toml").write_text('[model]\nkind = "ngram"\n[ngram]\norder = 2\n')
    words = ["prior", "train", codes_folder, "-o", "prior", "--config", "n.toml", "--valid", codes_folder / "s0", *tiny]
    status, _, err = cli(*words)
    assert status == 0, err
    assert "48 utterances" in err
    assert "; 4, " in err
    assert "bigram" in err
    assert "trigram" not in err
    assert "unknown setting" in cli("prior", "train", codes_folder, "-o", "x", "--set", "ngram.ordr=2").err


def test_score(cli, priors, codes_folder, tiny):  # noqa: F811
    status, out, err = cli("prior", "score", priors / "llama", codes_folder / "s1", *tiny)
    assert status == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines] == ["model", "uniform", "unigram", "bigram", "trigram", "llama"]
    assert float(lines[1][1]) == 5.0
    assert float(lines[4][1]) < float(lines[3][1]) < float(lines[2][1]) - 0.5
    status, out, _ = cli("prior", "score", priors / "ngram", codes_folder / "s1", "--json", *tiny)
    facts = json.loads(out)
    assert [each["name"] for each in facts["scores"]] == ["uniform", "unigram", "bigram", "trigram"]
    trigram = facts["scores"][-1]
    assert trigram["bits_per_code"]["low"] < trigram["bits_per_code"]["mean"] < trigram["bits_per_code"]["high"]
    assert trigram["bits_per_second"]["mean"] == pytest.approx(trigram["bits_per_code"]["mean"] * 22_050 / 1024)
    assert trigram["perplexity"] == pytest.approx(2 ** trigram["bits_per_code"]["mean"])
    assert facts["utterances"] == 4


def test_score_draws_surprise(cli, priors, codes, tiny, tmp_path):
    status, _, err = cli("prior", "score", priors / "ngram", codes, "--plot", "pictures", *tiny)
    assert status == 0, err
    assert (tmp_path / "pictures/c.png").stat().st_size > 10_000


def test_codes_of_another_checkpoint_are_refused(refused, priors, codes):
    save_prior_of_another = make_prior("ngram", fingerprint="f" * 12)
    (codes.parent / "other").mkdir()
    save_prior(codes.parent / "other", save_prior_of_another)
    assert "made by checkpoint" in refused("prior", "score", priors / "ngram", codes)  # melcodec-base is not theirs
    assert "models codes of checkpoint ffffffffffff" in refused("prior", "sample", "other", "-o", "x.wav", "--device", "cpu")
    assert "not a prior" in refused("prior", "score", codes.parent, codes)


def test_a_shipped_prior_has_a_name_in_every_command(cli, refused, tmp_path, examples):
    status, _, err = cli("prior", "sample", "melcodec-base-ngram", "-o", "x.npz", "--seconds", 1, "--device", "cpu")
    assert status == 0, err
    status, _, err = cli("prior", "score", "melcodec-base-ngram", "x.npz", "--json")
    assert status == 0, err
    for words in (["sample", "melcodec-base", "-o", "y.wav"], ["score", "melcodec-base", "x.npz"]):
        assert "melcodec-base-ngram, melcodec-base-prior" in refused("prior", *words)
    assert "melcodec-base-ngram, melcodec-base-prior" in refused(
        "encode", examples["lj_en"], "-o", "x.mlc", "--prior", "melcodec-base"
    )


def test_sample_sound_and_codes(cli, priors, tiny, tmp_path):
    words = ["prior", "sample", priors / "ngram", *tiny, "--device", "cpu", "--seconds", 1.5]
    status, _, err = cli(*words, "-o", "x.wav")
    assert status == 0, err
    assert "x.wav: 32 codes, 1.49 s" in err
    assert "times real time" in err
    assert soundfile.info(tmp_path / "x.wav").frames == 32 * 1024 - 256
    drawn = {}
    for name, more in {
        "a": [],
        "again": [],
        "seed": ["--seed", 1],
        "cold": ["--temperature", 0],
        "few": ["--top-p", 0.01],
        "hot": ["--temperature", 1.5],
    }.items():
        assert cli(*words, "-o", f"{name}.npz", *more).status == 0
        drawn[name] = load_codes(tmp_path / f"{name}.npz").codes.tolist()
    assert drawn["a"] == drawn["again"]
    assert drawn["a"] not in (drawn["seed"], drawn["hot"])
    assert drawn["cold"] == drawn["few"]
    status, _, err = cli(*words, "-o", "several", "--count", 2)
    assert status == 0, err
    assert {path.name for path in (tmp_path / "several").iterdir()} == {"0.wav", "1.wav"}


@pytest.mark.parametrize("kind", ["ngram", "llama"])
def test_sample_streams_sound(cli, priors, tiny, tiny_checkpoint, codes, tmp_path, kind):
    """-o - gives the sound of the codes that -o FILE gives, behind a header without a length; messages go to stderr."""
    from melcodec.codec import Codec
    from melcodec.streaming.decoder import StreamingDecoder

    words = ["prior", "sample", priors / kind, *tiny, "--device", "cpu", "--seconds", 3, "--prompt", codes, "--seed", 3]
    command = [sys.executable, "-m", "melcodec", *map(str, words), "-o", "-"]
    done = forked.run(command, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert b"standard output: " in done.stderr
    assert b"times real time" in done.stderr
    assert cli(*words, "-o", "x.npz").status == 0
    decoder = StreamingDecoder(Codec.from_pretrained(tiny_checkpoint, "cpu"))
    sound = [decoder.push(load_codes(tmp_path / "x.npz").codes.astype(np.int64))[0], decoder.finish()[0]]
    wanted = (np.concatenate([part.numpy() for part in sound]) * 32_767).round()
    streamed = np.frombuffer(done.stdout[44:], "<i2")
    assert (done.stdout[:4], len(streamed)) == (b"RIFF", len(wanted))
    assert np.abs(streamed - wanted).max() <= 1


def test_only_one_sample_is_a_stream(refused, priors, tiny):
    assert "a folder is written" in refused("prior", "sample", priors / "ngram", *tiny, "-o", "-", "--count", 2)


def test_sample_continues_a_prompt(cli, refused, priors, tiny, codes, examples, tmp_path):
    words = ["prior", "sample", priors / "llama", *tiny, "--device", "cpu", "-o", "x.npz"]
    assert cli(*words, "--prompt", codes, "--prompt-seconds", 0.5, "--seconds", 1).status == 0
    drawn, given = load_codes(tmp_path / "x.npz").codes, load_codes(codes).codes
    assert np.array_equal(drawn[:, :11], given[:, :11])
    assert not np.array_equal(drawn[:, :16], given[:, :16])
    assert "exists already" in refused(*words)
    assert "the prompt has 40 codes" in refused(*words, "--prompt", codes, "--seconds", 1, "-f")
    assert cli(*words, "-f", "--prompt", examples["lj_en"], "--prompt-seconds", 1, "--seconds", 1.5).status == 0
    assert "cannot be written" in refused("prior", "sample", priors / "ngram", *tiny, "-o", "x.txt")


def test_repetitions_are_reported(cli, priors, tiny):
    status, _, err = cli(
        "prior", "sample", priors / "ngram", *tiny, "-o", "x.npz", "--temperature", 0, "--seconds", 9, "--device", "cpu"
    )
    assert status == 0, err
    assert "codes repeat" in err or "one code is held" in err


def test_silence_is_reported(cli, tmp_path):
    """A prior that has only ever seen the codes of digital silence draws them, and that is what the command calls it."""
    from melcodec.codec import Codec
    from melcodec.metrics import ngram
    from melcodec.prior.models import Prior
    from melcodec.prior.reading import CodeSpace

    codec = Codec.from_pretrained("melcodec-base", "cpu")
    silence = codec.encode(np.zeros(60_000, np.float32))[0].numpy()
    space = CodeSpace.of(codec)
    save_prior(tmp_path, Prior(space, "flat", ngram.fit([silence], [], space.sizes, 1)))
    status, _, err = cli("prior", "sample", ".", "--device", "cpu", "--temperature", 0, "--seconds", 3, "-o", "x.npz")
    assert status == 0, err
    assert "silence from 0.0 to 3.0 s" in err


@pytest.mark.parametrize("kind", ["llama", "ngram"])
def test_mlc_there_and_back(cli, priors, tiny, examples, tmp_path, kind):
    words = [*tiny, "--device", "cpu", "--prior", priors / kind]
    status, _, err = cli("encode", examples["nathalie_nl"], "-o", "x.mlc", *words)
    assert status == 0, err
    assert "bit/s" in err
    assert cli("encode", examples["nathalie_nl"], "-o", "x.npz", *tiny, "--device", "cpu").status == 0
    for name in ("x.mlc", "x.npz"):
        more = words if name == "x.mlc" else words[:-2]
        assert cli("decode", name, "-o", f"{name}.npy", *more).status == 0
    assert (tmp_path / "x.mlc.npy").read_bytes() == (tmp_path / "x.npz.npy").read_bytes()  # the length is kept as well


def test_mlc_folders(cli, priors, tiny, speech_folder, tmp_path):
    words = [*tiny, "--device", "cpu", "--prior", priors / "ngram"]
    status, _, err = cli("encode", speech_folder, "-o", "codes", "--to", "mlc", *words)
    assert status == 0, err
    assert len(list((tmp_path / "codes").rglob("*.mlc"))) == 6
    status, _, err = cli("decode", "codes", "-o", "mels", *words)
    assert status == 0, err
    assert len(list((tmp_path / "mels").rglob("*.npy"))) == 6


def test_mlc_without_its_prior(cli, refused, priors, tiny, examples, tmp_path):
    words = [*tiny, "--device", "cpu"]
    assert "no prior for checkpoint" in refused("encode", examples["nathalie_nl"], "-o", "x.mlc", *words)
    assert "--prior is for .mlc files" in refused(
        "encode", examples["nathalie_nl"], "-o", "x.npz", "--prior", priors / "llama", *words
    )
    assert cli("encode", examples["nathalie_nl"], "-o", "x.mlc", "--prior", priors / "ngram", *words).status == 0
    assert "no prior for checkpoint" in refused("decode", "x.mlc", "-o", "x.npy", *words)
    assert "made with prior" in refused("decode", "x.mlc", "-o", "x.npy", "--prior", priors / "llama", *words)
    content = bytearray((tmp_path / "x.mlc").read_bytes())
    content[-3] ^= 1
    (tmp_path / "x.mlc").write_bytes(bytes(content))
    assert "damaged" in refused("decode", "x.mlc", "-o", "x.npy", "--prior", priors / "ngram", *words)


def test_a_shipped_prior_is_found(cli, refused, priors, tiny, examples, tmp_path, monkeypatch):
    """By its codec, a network before n-grams; and for decoding the one that made each file."""
    monkeypatch.setattr("melcodec.prior.facts.FOLDERS", (priors,))
    words = [*tiny, "--device", "cpu"]
    (priors / "unused").mkdir()
    for name, more in {"n.mlc": ["--prior", "ngram"], "l.mlc": ["--prior", "llama"], "x.mlc": []}.items():
        assert cli("encode", examples["nathalie_nl"], "-o", f"codes/{name}", *more, *words).status == 0
    assert (tmp_path / "codes/x.mlc").read_bytes() == (tmp_path / "codes/l.mlc").read_bytes()
    status, _, err = cli("decode", "codes", "-o", "mels", *words)
    assert status == 0, err
    mels = [path.read_bytes() for path in (tmp_path / "mels").glob("*.npy")]
    assert len(mels) == 3
    assert len(set(mels)) == 1
    assert "made with prior" in refused("decode", "codes/l.mlc", "-o", "x.npy", "--prior", "ngram", *words)


def test_the_shipped_priors_compress(cli, examples, tmp_path):
    """melcodec-base's codes of speech that no prior was trained on, below 9 bits each, by name and by default."""
    sizes = {}
    for name, more in {"x.mlc": [], "ngram.mlc": ["--prior", "melcodec-base-ngram"], "x.npy": []}.items():
        status, _, err = cli("encode", examples["lj_en"], "-o", name, "--device", "cpu", *more)
        assert status == 0, err
        sizes[name] = (tmp_path / name).stat().st_size
    codes = np.load(tmp_path / "x.npy").size
    bits = {name: 8 * (size - 19) / codes for name, size in sizes.items()}
    assert bits["x.mlc"] < bits["ngram.mlc"] - 0.3
    assert bits["x.mlc"] < 9
    assert cli("decode", "x.mlc", "-o", "y.npy", "--device", "cpu").status == 0
