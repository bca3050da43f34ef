"""corpus info, verify and export, and decode --id, as a user types them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.store import layout, parquet
from tests.stores import make_store, speech_rows


@pytest.fixture(scope="module")
def speech(tiny_checkpoint, examples):
    return speech_rows(tiny_checkpoint, examples)


@pytest.fixture
def codes(speech, tmp_path):
    """A store, codes/ in the working folder."""
    return make_store(tmp_path / "codes", *speech)


@pytest.fixture
def tiny(tiny_checkpoint):
    return ["--checkpoint", tiny_checkpoint, "--device", "cpu"]


def test_info(cli, codes, speech):
    status, out, err = cli("corpus", "info", "codes")
    assert (status, err) == (0, "")
    facts = {line[:12].strip(): line[13:].strip() for line in out.splitlines()}
    assert facts["planned"] == "26 utterances"
    assert facts["with codes"] == "24 utterances, 1.1 minutes"
    assert facts["failed"] == "1 silent, 1 unreadable"
    assert facts["fingerprint"] == speech[1]["fingerprint"]
    assert facts["codebook"].endswith(" used, perplexity " + facts["codebook"].rpartition(" ")[2])
    assert facts["languages"] == "de 6, en 12, nl 6"
    assert facts["speakers"] == "4"


def test_info_as_json(cli, codes):
    facts = json.loads(cli("corpus", "info", "codes", "--json").out)
    assert (facts["utterances"], facts["failures"], facts["parts"]) == (24, {"silent": 1, "unreadable": 1}, 3)
    assert facts["usage"][0]["total"] == facts["codes"]


def test_verify(cli, codes):
    assert cli("corpus", "verify", "codes") == (0, "", "26 planned utterances, 3 parts, 0 problems\n")
    (codes / "parts/.0000-00002.ab.parquet").write_bytes(b"half")
    layout.part_path(codes, 0, 1).unlink()
    layout.marker_path(layout.part_path(codes, 0, 2)).unlink()
    status, out, err = cli("corpus", "verify", "codes")
    assert status == 1
    assert out.splitlines() == [
        "parts/0000-00001.parquet  the part is missing, its marker is there: 10 utterances missing",
        "parts/0000-00002.parquet  has no marker, so it is not committed: 6 utterances missing",
    ]
    assert err.splitlines()[:2] == [
        "not part of the corpus, ignored: parts/.0000-00002.ab.parquet",
        "26 planned utterances, 3 parts, 2 problems",
    ]
    assert err.splitlines()[2:] == ["hint: run melcodec preprocess again as before: it makes again what is missing or damaged"]
    status, out, _ = cli("corpus", "verify", "codes", "--json")
    assert status == 1
    assert json.loads(out)["problems"][1]["where"] == "parts/0000-00002.parquet"
    assert json.loads(out)["leftovers"] == ["parts/.0000-00002.ab.parquet"]


def test_hints_that_help(cli, refused, codes, speech):
    parquet.write_part(layout.part_path(codes, 0, 7), speech[0][:1], speech[1])
    status, _, err = cli("corpus", "verify", "codes")
    assert status == 1
    assert [line for line in err.splitlines() if line.startswith("hint")] == [
        "hint: remove parts that are in no plan, and their markers: they cannot be made again or repaired"
    ]
    with (codes / "segments/0000/plan.jsonl").open("a") as plan:
        plan.write("\n")
    _, _, err = cli("corpus", "verify", "codes")
    assert [line for line in err.splitlines() if line.startswith("hint")] == [
        "hint: a plan cannot be made again: put segments/ back from a copy, or start in a new folder"
    ]
    layout.part_path(codes, 0, 1).write_bytes(b"PAR1")
    for words in (["info"], ["export", "--to", "npy", "-o", "out"]):
        assert "hint: melcodec corpus verify names what is damaged" in refused("corpus", words[0], "codes", *words[1:])
    (codes / "run.json").write_text("{")
    for word in ("info", "verify"):
        assert "run.json: damaged: not JSON\nhint: remove run.json and run melcodec" in refused("corpus", word, "codes")


def test_export(cli, refused, codes, tmp_path):
    assert cli("corpus", "export", "codes", "--to", "npy", "-o", "out") == (
        0,
        "",
        "out: 24 utterances; 2 without codes left out\n",
    )
    assert "error: " in refused("corpus", "export", "codes", "--to", "bin", "-o", "out")
    assert cli("corpus", "export", "codes", "--to", "bin", "-o", "out", "-f").status == 0
    assert (tmp_path / "out/codes.bin").is_file()
    assert cli("corpus", "export", "codes", "--to", "webdataset", "-o", "tars", "--shard-size", "5").status == 0
    assert len(list((tmp_path / "tars").glob("*.tar"))) == 5
    assert "use one of npy, bin" in refused("corpus", "export", "codes", "--to", "zip", "-o", "x")


def test_what_is_no_store(cli, refused, tmp_path):
    for command in (["info"], ["verify"], ["export", "--to", "npy", "-o", "out"]):
        assert "not a folder of codes" in refused("corpus", command[0], tmp_path, *command[1:])
    assert cli("corpus", "export", "codes", "-o", "out").status == 2


def test_an_export_can_be_decoded(cli, codes, tiny, tmp_path):
    cli("corpus", "export", "codes", "--to", "npy", "-o", "out")
    status, _, err = cli("decode", "out", "-o", "mels", *tiny)
    assert status == 0, err
    assert "24 files decoded" in err


def test_decode_one_utterance(cli, codes, speech, tiny, tiny_checkpoint, tmp_path):
    row = next(row for row in speech[0] if row.id == "lj_en/4.a b")
    status, out, err = cli("decode", "codes", "--id", row.id, "-o", "x.npy", *tiny)
    assert (status, out) == (0, ""), err
    mel = np.load(tmp_path / "x.npy")
    assert mel.shape == (80, row.num_samples // 256 + 1)  # cropped to the sound's own length
    expected = Codec.from_pretrained(tiny_checkpoint, "cpu").decode_to_mel(row.codes.astype(np.int64), row.num_samples)
    assert np.allclose(mel, expected[0].numpy(), atol=1e-5)
    assert cli("decode", "codes", "--id", row.id, "-o", "x.wav", *tiny).status == 0
    assert len(load(tmp_path / "x.wav", 22_050)) == row.num_samples


def test_decode_refuses(refused, codes, tiny):
    assert "holds no utterance 'nobody'" in refused("decode", "codes", "--id", "nobody", "-o", "x.wav", *tiny)
    err = refused("decode", "codes", "--id", "lj_en/broken", "-o", "x.wav", *tiny)
    assert "lj_en/broken: has no codes: unreadable: lj_en/broken.wav: unreadable it is" in err
    assert "decode one utterance with --id" in refused("decode", "codes", "-o", "mels", *tiny)
    assert "--id takes one folder" in refused("decode", "codes", "--id", "lj_en/4.a b", *tiny)
    assert "--id takes one folder" in refused("decode", "codes", "codes", "--id", "lj_en/4.a b", "-o", "x.wav", *tiny)
    assert "--id takes one folder" in refused("decode", "codes", "--id", "lj_en/4.a b", "-o", "codes", *tiny)
    assert "cannot be written here" in refused("decode", "codes", "--id", "lj_en/4.a b", "-o", "x.zip", *tiny)
    (codes / "run.json").unlink()
    assert "not a folder of codes" in refused("decode", "codes", "--id", "lj_en/4.a b", "-o", "x.wav", *tiny)


def test_decode_checks_the_fingerprint(cli, refused, speech, tiny, tmp_path):
    rows, spec = speech
    make_store(tmp_path / "foreign", rows, spec | {"fingerprint": "0123"})
    command = ["decode", "foreign", "--id", rows[0].id, "-o", "x.npy", *tiny]
    assert "made by checkpoint 0123" in refused(*command)
    assert cli(*command, "--any-checkpoint").status == 0
    assert "exists already" in refused(*command, "--any-checkpoint")
    assert cli(*command, "--any-checkpoint", "-f").status == 0


def test_export_tokens(cli, refused, codes):
    status, _, err = cli(
        "corpus", "export", "codes", "--to", "tokens", "-o", "out", "--offset", 100, "--runs", "--pattern", "delay"
    )
    assert status == 0, err
    facts = json.loads((codes.parent / "out/melcodec.json").read_text())["tokens"]
    assert (facts["offset"], facts["runs"], facts["pattern"], facts["dtype"]) == (100, True, "delay", "uint16")
    assert "are for --to tokens" in refused("corpus", "export", "codes", "--to", "bin", "-o", "x", "--offset", 100)
    assert "no such pattern" in refused("corpus", "export", "codes", "--to", "tokens", "-o", "x", "--pattern", "other")
