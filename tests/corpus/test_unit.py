"""The unit function: the codes of every utterance whatever shares its batch, and a name for every kind of failure."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.corpus import unit
from melcodec.corpus.files import SHORT_SECONDS
from melcodec.corpus.reading import Rules
from melcodec.corpus.spec import run_spec
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import load_checkpoint
from melcodec.manifests.base import Utterance
from melcodec.store import commit, plan
from melcodec.store.layout import marker_path, part_path
from melcodec.store.parquet import Row, read_rows

DROP, KEEP = Rules(), Rules(on_truncated="keep")


@pytest.fixture(scope="module")
def codec(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def spec(codec, tiny_checkpoint):
    return run_spec(codec, load_checkpoint(tiny_checkpoint).config.mel, "tiny", Rules())


def unit_of(utterances) -> plan.Unit:
    return plan.Unit(0, 0, "hash", 0.0, tuple(utterances))


@pytest.fixture
def one(codec):
    """one(utterance or path) -> its row."""

    def encode(source, rules=DROP, **options):
        utterance = source if isinstance(source, Utterance) else Utterance("x", str(source))
        (row,) = unit.encode_unit(unit_of([utterance]), codec, rules, **options)
        return row

    return encode


BATCHINGS = [unit.BatchSettings(), unit.BatchSettings(5, 700, 700), unit.GENTLE]  # the second: several pools in so few files


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_codes_are_those_of_encode(codec, corpus, examples, utterances, batching):
    listed = [*utterances(corpus), *(Utterance(name, str(path), text=name) for name, path in examples.items())]
    rows = unit.encode_unit(unit_of(listed), codec, Rules(), batching=batching)
    assert [row.id for row in rows] == [utterance.id for utterance in listed]
    for row, utterance in zip(rows, listed, strict=True):
        alone = codec.encode_file(utterance.path)
        assert np.array_equal(row.codes, alone.codes), utterance.id
        assert row.codes.dtype == np.uint16
        assert (row.num_samples, row.source_rate) == (alone.num_samples, alone.source_rate)
        assert row.duration == row.num_samples / codec.sample_rate
        assert (row.source, row.text, row.status, row.error) == (utterance.path, utterance.text, "ok", "")


def test_every_broken_file_has_its_reason_and_takes_no_other_with_it(codec, corpus, tmp_path, utterances, add_broken):
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    expected = add_broken(tmp_path)
    listed = utterances(tmp_path)
    rows = unit.encode_unit(unit_of(listed), codec, Rules())
    assert {row.id: row.status for row in rows if row.status != "ok"} == expected
    assert len(rows) == 24 + len(expected) == len(listed)
    for row in rows:
        assert (row.codes is None) == (row.status != "ok")
        assert (str(tmp_path) in row.error) == (row.status != "ok")  # names the file
        assert "\n" not in row.error


@pytest.mark.parametrize(("samples", "rules", "status"), [
    (512, Rules(), "too-short"),
    (513, Rules(), "ok"),
    (22_049, Rules(min_seconds=1.0), "too-short"),
    (22_050, Rules(min_seconds=1.0), "ok"),
])  # fmt: skip
def test_too_short(one, golden, tmp_path, samples, rules, status):
    soundfile.write(tmp_path / "x.wav", golden["0.wav"][:samples], 22_050, subtype="FLOAT")
    assert one(tmp_path / "x.wav", rules).status == status


@pytest.mark.parametrize(("peak", "status"), [(0.9 / 32768, "silent"), (1 / 32768, "ok")])
def test_silent_is_less_than_one_step_of_16_bits(one, tmp_path, peak, status):
    wave = np.zeros(5000, np.float32)
    wave[2500] = -peak
    soundfile.write(tmp_path / "x.wav", wave, 22_050, subtype="FLOAT")
    assert one(tmp_path / "x.wav").status == status


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("rate", [22_050, 16_000])
def test_truncated_files_are_kept_up_to_the_damage(one, codec, golden, tmp_path, suffix, rate):
    speech = golden["2.wav"]
    path = tmp_path / f"x{suffix}"
    soundfile.write(path, speech, rate, subtype="PCM_16")
    whole = one(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    dropped, kept = one(path), one(path, KEEP)
    assert dropped.codes is None
    assert (dropped.status, kept.status) == ("truncated", "truncated")
    assert dropped.error == kept.error
    seconds = len(speech) / rate
    assert 0.5 * seconds < kept.duration < 0.75 * seconds
    inside = kept.codes.shape[1] - 8  # what does not see the end
    assert inside > 10
    assert np.array_equal(kept.codes[:, :inside], whole.codes[:, :inside])


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.opus", "x.ogg", "x.mp3"])
def test_of_every_source_what_is_there_is_kept(one, golden, tmp_path, name):
    path, options = tmp_path / name, {"format": "OGG", "subtype": "OPUS"} if name == "x.opus" else {}
    soundfile.write(path, np.tile(golden["2.wav"], 3), 24_000, **options)
    whole = one(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(path, f"in/{name}")
    kept = one(path, KEEP)
    assert 0.3 < kept.duration / whole.duration < 0.7
    inside = kept.codes.shape[1] - 9
    assert np.array_equal(kept.codes[:, :inside], whole.codes[:, :inside])
    for source in (Utterance("x", str(tmp_path / "x.tar"), member=f"in/{name}"), Utterance("x", path.as_uri())):
        dropped, there = one(source), one(source, KEEP)
        assert (dropped.status, dropped.codes) == ("truncated", None)
        assert (there.status, there.error) == ("truncated", dropped.error)
        assert np.array_equal(there.codes, kept.codes)


def test_a_stretch_behind_the_damage_is_truncated(one, golden, tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, np.tile(golden["2.wav"], 3), 22_050)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert one(Utterance("x", str(path), start=0.1, duration=0.5)).status == "ok"
    late = one(Utterance("x", str(path), start=len(golden["2.wav"]) * 2.5 / 22_050, duration=0.2))
    assert (late.status, late.codes) == ("truncated", None)


def test_a_name_that_is_not_utf8_becomes_a_row(codec, golden, tmp_path, spec):
    path = tmp_path / "sound" / os.fsdecode(b"b\xe4d\xff.flac")
    path.parent.mkdir()
    soundfile.write(tmp_path / "plain.flac", golden["0.wav"], 22_050)
    try:
        shutil.copy(tmp_path / "plain.flac", path)
    except OSError:
        pytest.skip("this file system has no such names")
    (row,) = unit.encode_unit(unit_of([Utterance("x", str(path))]), codec, DROP)
    assert row.status == "ok", row.error
    assert np.array_equal(row.codes, codec.encode_file(tmp_path / "plain.flac").codes)


def test_a_manifest_may_promise_more_than_there_is(one, examples):
    path = examples["kerstin_de"]
    seconds = soundfile.info(path).duration
    assert one(Utterance("x", str(path), duration=seconds)).status == "ok"
    promised = Utterance("x", str(path), duration=seconds + 1)
    assert one(promised).status == "truncated"
    kept = one(promised, KEEP)
    assert kept.status == "truncated"
    assert kept.duration == pytest.approx(seconds, abs=1e-4)
    assert np.array_equal(kept.codes, one(path).codes)


def test_stretches_and_archives(one, codec, golden, tmp_path):
    soundfile.write(tmp_path / "x.wav", golden["1.wav"], 22_050, subtype="FLOAT")
    part = codec.encode(golden["1.wav"][4410 : 4410 + 22_050])[0].numpy()
    stretch = one(Utterance("x", str(tmp_path / "x.wav"), start=0.2, duration=1.0))
    assert np.array_equal(stretch.codes, part)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "x.wav", "in/x.wav")
    member = one(Utterance("x", str(tmp_path / "x.tar"), member="in/x.wav"))
    assert np.array_equal(member.codes, codec.encode(golden["1.wav"])[0].numpy())
    assert member.source == f"{tmp_path}/x.tar#in/x.wav"
    assert one(Utterance("x", str(tmp_path / "x.tar"), member="gone.wav")).status == "unreadable"


@pytest.fixture(scope="module")
def long_file(golden, tmp_path_factory):
    """65 s of speech."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    speech = np.concatenate([golden[f"{index}.wav"] for index in range(3)])
    soundfile.write(path, np.resize(speech, 65 * 22_050), 22_050, subtype="PCM_16")
    return path


def test_long_files_stream(one, codec, long_file, monkeypatch):
    batches = []
    whole = codec.encode_file(long_file)
    monkeypatch.setattr(codec, "encode_mel", lambda *_: batches.append(1))
    row = one(long_file)
    assert row.duration == 65 > SHORT_SECONDS
    assert not batches
    assert np.array_equal(row.codes, whole.codes)
    assert np.array_equal(one(Utterance("x", str(long_file), duration=64.0)).codes[:, :1370], whole.codes[:, :1370])


def test_what_does_not_tell_its_length_streams_too(one, codec, long_file, tmp_path):
    pytest.importorskip("av")
    import av

    with av.open(str(tmp_path / "x.mka"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=22_050, layout="mono")
        wave = (load(long_file, 22_050) * 32768).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        frame.rate = 22_050
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    assert np.array_equal(one(tmp_path / "x.mka").codes, codec.encode_file(long_file).codes)


def test_long_files_fail_as_short_ones(one, long_file, tmp_path):
    content = long_file.read_bytes()
    (tmp_path / "x.flac").write_bytes(content[: len(content) * 97 // 100])
    assert one(tmp_path / "x.flac").status == "truncated"
    kept = one(tmp_path / "x.flac", KEEP)
    assert (kept.status, kept.codes is None) == ("truncated", False)
    assert 60 < kept.duration < 65
    assert np.array_equal(kept.codes[:, :1290], one(long_file).codes[:, :1290])
    soundfile.write(tmp_path / "silent.wav", np.zeros(61 * 22_050, np.float32), 22_050)
    assert one(tmp_path / "silent.wav").status == "silent"


def test_known_bad_ones_are_not_touched(codec, corpus, utterances, tmp_path):
    os.mkfifo(tmp_path / "hangs.wav")  # opening it would wait for ever
    bad = Utterance("bad", str(tmp_path / "hangs.wav"), speaker="s")
    listed = [*utterances(corpus)[:2], bad, *utterances(corpus)[2:3]]
    rows = unit.encode_unit(unit_of(listed), codec, Rules(), bad={"bad": ("timeout", "took too long")})
    assert [row.status for row in rows] == ["ok", "ok", "timeout", "ok"]
    assert (rows[2].error, rows[2].speaker, rows[2].codes) == ("took too long", "s", None)


def test_rows_that_are_known_stay_as_they_are(codec, corpus, utterances):
    there = Utterance("there", "/out/of/reach.wav")
    row = Row("there", np.zeros((1, 3), np.uint16), 2500, 16_000, 0.1, there.path)
    told = []
    rows = unit.encode_unit(
        unit_of([*utterances(corpus)[:1], there, Utterance("gone", "/gone.wav")]),
        codec,
        Rules(),
        known={"there": row},
        report=lambda *values: told.append(values),
    )
    assert rows[1] is row
    assert [row.status for row in rows] == ["ok", "ok", "unreadable"]
    assert told[-1] == (3, rows[0].duration, 1)


def test_progress_is_told(codec, corpus, utterances, tmp_path):
    listed = [*utterances(corpus), Utterance("gone", "/gone.wav")]
    told = []
    rows = unit.encode_unit(unit_of(listed), codec, Rules(), report=lambda *values: told.append(values))
    assert told[-1] == (25, pytest.approx(sum(row.duration or 0 for row in rows)), 1)
    assert [count for count, _, _ in told] == list(range(1, 26))


@pytest.fixture
def committed(codec, corpus, utterances, tmp_path, spec):
    """A store of one unit, its segment and its receipt."""
    (segment,) = plan.extend_plan(tmp_path, [*utterances(corpus)[:5], Utterance("gone", "/gone.wav")])
    return tmp_path, segment, unit.process_unit(segment.unit(0), codec, tmp_path, spec)


def test_a_unit_is_committed(committed, codec):
    folder, segment, receipt = committed
    path = part_path(folder, 0, 0)
    assert path.name == "0000-00000.parquet"
    assert asdict(receipt) == json.loads(marker_path(path).read_text())
    assert receipt.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (receipt.unit, receipt.plan_hash, receipt.rows, receipt.ok, receipt.errors) == (0, segment.hash, 6, 5, 1)
    rows = list(read_rows(path))
    assert [row.id for row in rows] == [utterance.id for utterance in segment.unit(0).utterances]
    assert receipt.codes == sum(row.codes.shape[1] for row in rows if row.codes is not None)
    assert receipt.seconds == pytest.approx(sum(row.duration for row in rows if row.codes is not None), abs=1e-3)
    assert commit.committed(folder, segment, 0) == receipt


def test_again_gives_the_same_bytes(committed, codec, spec, tmp_path_factory):
    folder, segment, receipt = committed
    other = tmp_path_factory.mktemp("other")
    assert unit.process_unit(segment.unit(0), codec, other, spec, batching=unit.GENTLE) == receipt
    assert part_path(other, 0, 0).read_bytes() == part_path(folder, 0, 0).read_bytes()


def test_without_a_marker_nothing_is_done(committed):
    folder, segment, _ = committed
    marker_path(part_path(folder, 0, 0)).unlink()
    assert commit.committed(folder, segment, 0) is None


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "words"), [
    (lambda part: part.unlink(), "is gone"),
    (flip, "is not what its marker says"),
    (lambda part: part.write_bytes(part.read_bytes()[:-1]), "is not what its marker says"),
    (lambda part: marker_path(part).write_text("{}"), "not a marker"),
    (lambda part: marker_path(part).write_text("{"), "not JSON"),
    (lambda part: marker_path(part).write_text(marker_path(part).read_text().replace('"rows": 6', '"rows": 5')), "another plan"),
])  # fmt: skip
def test_a_marker_that_does_not_match_is_said(committed, damage, words):
    folder, segment, _ = committed
    damage(part_path(folder, 0, 0))
    with pytest.raises(MelcodecError, match=words):
        commit.committed(folder, segment, 0)


def test_a_marker_of_another_plan_is_said(committed):
    folder, segment, _ = committed
    with pytest.raises(MelcodecError, match="another plan"):
        commit.committed(folder, replace(segment, hash="other"), 0)


def test_sweeping_removes_only_what_was_left_half_written(committed):
    folder, _, _ = committed
    (folder / "parts/.0000-00003.k2j3h4.parquet").write_text("half")
    commit.sweep(folder)
    assert sorted(path.name for path in (folder / "parts").iterdir()) == ["0000-00000.done.json", "0000-00000.parquet"]


def test_what_written_aside_leaves_is_what_is_swept(tmp_path):
    from melcodec.files import written_aside

    with written_aside(part_path(tmp_path, 0, 0)) as aside:
        commit.sweep(tmp_path)
        assert not aside.exists()
        aside.touch()
