from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.errors import MelcodecError
from melcodec.evaluation.compare import compare, verdict
from melcodec.store.codes import Codes, save_codes
from tests.stores import make_store, speech_rows


@pytest.fixture(scope="module")
def speech(corpus):
    return [corpus / "speech"]


def test_the_same_checkpoint(checkpoints, speech):
    found = compare(checkpoints["same"], checkpoints["same"], speech)
    assert (found.files, found.exact, found.matched) == (6, 1, 1)
    assert found.same_space
    assert not found.retrain
    assert found.moved == []
    assert found.difference.mean == 0
    assert "the codes are unchanged, and a GPT trained on them stays valid" in verdict(found)[0]


def test_another_decoder_keeps_the_codes_and_changes_the_sound(checkpoints, speech):
    found = compare(checkpoints["same"], checkpoints["decoder"], speech)
    assert found.same_space
    assert found.exact == 1
    assert found.difference.mean != 0
    assert found.a.bands != found.b.bands
    assert not found.retrain


def test_renumbered_codes_are_seen_through(checkpoints, speech):
    found = compare(checkpoints["same"], checkpoints["renumbered"], speech)
    order = np.random.default_rng(0).permutation(32)  # new number n holds what was order[n]
    assert found.exact < 0.3
    assert found.matched == 1
    assert found.difference.mean == pytest.approx(0, abs=1e-6)
    assert found.retrain
    for before, after in enumerate(found.books[0].matching):
        assert after == -1 or order[after] == before
    assert "agree once renumbered" in verdict(found)[0]
    assert found.books[0].drift > 0.01


def test_another_encoder(checkpoints, speech, corpus):
    found = compare(checkpoints["same"], checkpoints["encoder"], speech)
    codecs = [Codec.from_pretrained(checkpoints[name], "cpu") for name in ("same", "encoder")]
    wavs = [load(path, 22_050) for path in sorted((corpus / "speech").rglob("*.wav"))]
    a, b = (np.concatenate([codec.encode(wav).numpy().ravel() for wav in wavs]) for codec in codecs)
    assert 0 < found.exact < 1
    assert found.exact == pytest.approx((a == b).mean())
    assert 0 < found.matched < 1
    assert 0.5 < found.covered < 1
    assert found.codes == len(a)
    assert found.a.usage[0].used == len(set(a.tolist()))
    assert found.b.usage[0].used == len(set(b.tolist()))
    move = found.moved[0]
    assert move.before != move.after
    assert move.count == ((a == move.before) & (b == move.after)).sum()
    assert move.share == pytest.approx(move.count / (a == move.before).sum())
    assert "must be trained again" in verdict(found)[0]


def test_languages_and_bands(checkpoints, speech):
    found = compare(checkpoints["same"], checkpoints["encoder"], speech)
    assert {name: item.files for name, item in found.languages.items()} == {"de": 1, "en": 2}
    assert found.languages["en"].before.count == 2
    assert len(found.a.bands) == 80
    assert np.mean(found.a.bands) == pytest.approx(found.a.error.mean, rel=1e-4)


def test_better_and_worse_are_told_from_noise(checkpoints, speech):
    forth = verdict(compare(checkpoints["same"], checkpoints["decoder"], speech))[1]
    back = verdict(compare(checkpoints["decoder"], checkpoints["same"], speech))[1]
    words = {"B is better", "B is worse", "no measurable difference"}
    said = [next(word for word in words if word in line) for line in (forth, back)]
    assert set(said) in ({"B is better", "B is worse"}, {"no measurable difference"})
    assert "no measurable difference" in verdict(compare(checkpoints["same"], checkpoints["same"], speech))[1]


def test_limit_and_seed(checkpoints, speech):
    sizes = {compare(checkpoints["same"], checkpoints["same"], speech, limit=2, seed=seed).codes for seed in range(5)}
    assert len(sizes) > 1
    assert compare(checkpoints["same"], checkpoints["same"], speech, limit=2).files == 2


def test_so_little_speech_cannot_tell(folders, tmp_path):
    """Each code once: whatever the renumbering, the other half knows none of it."""
    save_codes(tmp_path / "c" / "x.npy", Codes(np.arange(20)[None]))
    save_codes(tmp_path / "d" / "x.npy", Codes(np.arange(20)[None, ::-1]))
    found = compare(tmp_path / "c", tmp_path / "d")
    assert (found.matched, found.covered) == (0, 0)
    assert "This is too little speech to tell" in verdict(found)[0]


def test_the_answer_is_json(checkpoints, speech):
    found = json.loads(json.dumps(compare(checkpoints["same"], checkpoints["encoder"], speech).to_json(), allow_nan=False))
    assert (found["kind"], found["retrain"], found["same_space"]) == ("comparison", True, False)
    assert found["verdict"]
    assert found["books"][0]["exact"] == found["exact"]


def test_a_bad_file_is_left_out_and_named(checkpoints, speech, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"nonsense")
    found = compare(checkpoints["same"], checkpoints["same"], [*speech, tmp_path])
    assert found.files == 6
    assert "not readable" in found.left_out["bad"]


@pytest.fixture
def folders(tmp_path, golden):
    """Two folders of codes files; b has one code changed, lacks a/1, and has one of its own of another length."""
    for name in ("a", "b"):
        for index in range(3):
            codes = golden[f"{index}.codes"].reshape(1, -1).astype(np.int64)
            if name == "b" and index == 0:
                codes[0, 5] = (codes[0, 5] + 1) % 32
            if name == "b" and index == 2:
                codes = codes[:, 1:]
            if (name, index) != ("b", 1):
                save_codes(tmp_path / name / "sub" / f"{index}.npz", Codes(codes, None, None, f"print-{name}", (32,)))
    return tmp_path / "a", tmp_path / "b"


def test_folders_of_codes(folders, golden):
    found = compare(*folders)
    length = len(golden["0.codes"].ravel())
    assert (found.files, found.codes) == (1, length)
    assert found.exact == pytest.approx(1 - 1 / length)
    assert (found.a.fingerprint, found.b.fingerprint) == ("print-a", "print-b")
    assert found.difference is None
    assert len(found.moved) == 1
    assert found.left_out["sub/1"] == f"only in {folders[0]}"
    assert "do not cover the same segments" in found.left_out["sub/2"]


def test_two_stores(tmp_path, tiny_checkpoint, examples):
    rows, spec = speech_rows(tiny_checkpoint, examples)
    make_store(tmp_path / "a", rows, spec)
    changed = [replace(row, codes=None if row.codes is None else (row.codes + 1) % 32) for row in rows]
    make_store(tmp_path / "b", changed, spec | {"fingerprint": "other"})
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.files == sum(row.codes is not None for row in rows)
    assert found.codes == sum(row.codes.size for row in rows if row.codes is not None)
    assert (found.exact, found.matched, found.left_out) == (0, 1, {})
    assert (found.a.fingerprint, found.b.fingerprint) == (spec["fingerprint"], "other")
    again = compare(tmp_path / "a", tmp_path / "a")
    assert again.same_space
    assert again.exact == 1


def test_refusals(checkpoints, speech, folders, tmp_path):
    same = checkpoints["same"]
    with pytest.raises(MelcodecError, match="two checkpoints are compared on speech"):
        compare(same, same)
    with pytest.raises(MelcodecError, match="one is a folder of codes, the other is not"):
        compare(same, folders[0], speech)
    with pytest.raises(MelcodecError, match="--limit is for speech"):
        compare(*folders, limit=1)
    with pytest.raises(MelcodecError, match="single codes files"):
        compare("a.npy", "b.npz")
    with pytest.raises(MelcodecError, match="folders of codes are compared as they are"):
        compare(*folders, speech)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MelcodecError, match="no codes in this folder"):
        compare(folders[0], tmp_path / "empty")
    save_codes(tmp_path / "far" / "x.npy", Codes(np.zeros((1, 3), np.int64)))
    with pytest.raises(MelcodecError, match="no utterance can be compared; the first: only in"):
        compare(folders[0], tmp_path / "far")
    save_codes(tmp_path / "huge" / "x.npy", Codes(np.array([[9000]])))
    with pytest.raises(MelcodecError, match="a codebook of 9001 codes is too large"):
        compare(tmp_path / "huge", tmp_path / "huge")
    save_codes(folders[0] / "sub" / "odd.npz", Codes(np.zeros((1, 3), np.int64), fingerprint="another"))
    with pytest.raises(MelcodecError, match=r"made by checkpoint .*, files before it by"):
        compare(*folders)
