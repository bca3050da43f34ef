"""What a store holds, and that nothing wrong with one passes unseen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil

import numpy as np
import pytest

from melcodec.corpus.driver import Callbacks, PreprocessSettings, preprocess
from melcodec.errors import MelcodecError
from melcodec.manifests.build import find_utterances
from melcodec.store import layout, parquet
from melcodec.store.info import corpus_info
from melcodec.store.parquet import Row
from melcodec.store.verify import AGAIN, NEW_PLAN, REMOVE, STRAY, verify
from tests.stores import make_store, speech_rows, write_plan, write_unit


@pytest.fixture(scope="module")
def speech(tiny_checkpoint, examples):
    return speech_rows(tiny_checkpoint, examples)


@pytest.fixture(scope="module")
def pristine(speech, tmp_path_factory):
    """A store of three parts that must not be changed."""
    return make_store(tmp_path_factory.mktemp("store") / "codes", *speech)


@pytest.fixture
def folder(pristine, tmp_path):
    """A store of three parts: 10, 10 and 6 rows."""
    shutil.copytree(pristine, tmp_path / "codes")
    return tmp_path / "codes"


def found(folder):
    """Problems as ``where: what``."""
    return [f"{problem.where}: {problem.what}" for problem in verify(folder).problems]


def test_info(pristine, speech):
    rows = [row for row in speech[0] if row.codes is not None]
    info = corpus_info(pristine)
    whole = np.concatenate([row.codes[0] for row in rows])
    samples = sum(row.num_samples for row in rows)
    assert (info.planned, info.pending, info.utterances, info.parts) == (26, 0, 24, 3)
    assert info.failures == {"silent": 1, "unreadable": 1}
    assert info.codes == len(whole)
    assert info.hours == pytest.approx(samples / 22_050 / 3600)
    assert info.languages == {"de": 6, "en": 12, "nl": 6}
    assert info.speakers == 4
    assert (info.checkpoint, info.fingerprint) == ("tiny", speech[1]["fingerprint"])
    (usage,) = info.usage
    assert (usage.used, usage.total) == (len(set(whole.tolist())), len(whole))
    assert 1 < usage.perplexity < 32
    # 5 bits a code, and a little over 21.53 codes a second, since the last one of each utterance is not full
    assert 5 * 22_050 / 1024 < info.bits_per_second < 1.05 * 5 * 22_050 / 1024
    assert info.entropy_bits_per_second == pytest.approx(info.bits_per_second / 5 * usage.entropy_bits)
    assert info.stored_bytes == sum(path.stat().st_size for path in pristine.glob("parts/*.parquet"))


def test_what_was_kept_of_a_truncated_file(tmp_path, speech):
    rows, spec = list(speech[0]), speech[1]
    rows[0] = dataclasses.replace(rows[0], status="truncated", error="cut")
    rows[-1] = dataclasses.replace(rows[-1], status="truncated", error="cut")
    assert rows[-1].codes is None
    info = corpus_info(make_store(tmp_path / "codes", rows, spec))
    assert (info.utterances, info.truncated, info.failures) == (24, 1, {"truncated": 1, "unreadable": 1})
    assert info.codes == sum(row.codes.shape[1] for row in rows if row.codes is not None)
    assert verify(tmp_path / "codes").problems == []


def test_info_of_several_codebooks(tmp_path, speech):
    codes = np.array([[0, 1, 2, 3], [5, 5, 5, 5]])
    spec = speech[1] | {"sizes": [4, 8]}
    info = corpus_info(make_store(tmp_path / "codes", [Row("a", codes, 3_500), Row("b", codes, 3_500)], spec))
    assert [(book.used, book.total, book.perplexity) for book in info.usage] == [(4, 8, pytest.approx(4)), (1, 8, 1.0)]
    assert info.codes == 8
    assert info.bits_per_second == pytest.approx(8 * (2 + 3) / (7_000 / 22_050))
    assert info.entropy_bits_per_second == pytest.approx(8 * (2 + 0) / (7_000 / 22_050))


def test_info_of_a_job_that_is_not_done(folder):
    layout.marker_path(layout.part_path(folder, 0, 1)).unlink()
    info = corpus_info(folder)
    assert (info.planned, info.pending, info.parts) == (26, 10, 2)


def test_info_before_the_first_part(folder):
    shutil.rmtree(folder / "parts")
    info = corpus_info(folder)
    assert (info.pending, info.utterances, info.hours, info.bits_per_second, info.codes) == (26, 0, 0.0, 0.0, 0)


def test_info_refuses_codes_of_another_codebook(folder, speech):
    (folder / "run.json").write_text(json.dumps(speech[1] | {"sizes": [16]}))
    with pytest.raises(MelcodecError, match="codes of another codebook"):
        corpus_info(folder)


def test_a_sound_store(pristine):
    verdict = verify(pristine)
    assert (verdict.parts, verdict.planned, verdict.problems, verdict.leftovers) == (3, 26, [], [])


def test_a_second_segment(folder, speech):
    new = [dataclasses.replace(row, id=f"later/{row.id}") for row in speech[0][:5]]
    make_store(folder, new, speech[1], unit_size=2, segment=1)
    verdict = verify(folder)
    assert (verdict.parts, verdict.planned, verdict.problems) == (6, 31, [])
    make_store(folder, speech[0][:1], speech[1], segment=2)
    assert found(folder) == [f"segments: '{speech[0][0].id}' is planned more than once"]


@pytest.mark.parametrize("position", [0.0, 0.02, 0.3, 0.5, 0.7, 0.9, 0.98, 0.9999])
def test_a_turned_bit(folder, position):
    part = layout.part_path(folder, 0, 1)
    content = bytearray(part.read_bytes())
    content[int(position * len(content))] ^= 8
    part.write_bytes(content)
    assert found(folder) == ["parts/0000-00001.parquet: its SHA-256 is not its marker's: damaged or replaced"]


def test_a_hundred_turned_bits(folder):
    chance, parts = random.Random(0), layout.parts(folder)
    for _ in range(100):
        part = chance.choice(parts)
        content = part.read_bytes()
        bit = chance.randrange(8 * len(content))
        turned = bytearray(content)
        turned[bit // 8] ^= 1 << bit % 8
        part.write_bytes(turned)
        assert found(folder) == [f"parts/{part.name}: its SHA-256 is not its marker's: damaged or replaced"], bit
        part.write_bytes(content)
    assert found(folder) == []


def test_what_is_gone(folder):
    layout.part_path(folder, 0, 0).unlink()
    layout.marker_path(layout.part_path(folder, 0, 1)).unlink()
    part = layout.part_path(folder, 0, 2)
    part.write_bytes(part.read_bytes()[:-100])
    assert found(folder) == [
        "parts/0000-00000.parquet: the part is missing, its marker is there: 10 utterances missing",
        "parts/0000-00001.parquet: has no marker, so it is not committed: 10 utterances missing",
        "parts/0000-00002.parquet: its SHA-256 is not its marker's: damaged or replaced",
    ]
    layout.marker_path(layout.part_path(folder, 0, 0)).unlink()
    assert found(folder)[0] == "parts/0000-00000.parquet: not done yet: 10 utterances missing"


def test_ids_that_are_missing_repeated_or_strange(folder, speech):
    rows, spec = speech
    stranger = dataclasses.replace(rows[20], id="stranger")
    write_unit(folder, 2, [rows[0], rows[21], rows[21], *rows[22:25], stranger], spec)
    assert sorted(found(folder)) == sorted(
        [
            f"parts/0000-00002.parquet: '{rows[21].id}' stands in it 2 times",
            f"parts/0000-00002.parquet: '{rows[0].id}' is not planned here",
            "parts/0000-00002.parquet: 'stranger' is not planned here",
            f"parts/0000-00002.parquet: '{rows[20].id}' is missing",
            f"parts/0000-00002.parquet: '{rows[25].id}' is missing",
        ]
    )


def test_a_part_without_a_plan(folder, speech):
    parquet.write_part(layout.part_path(folder, 0, 7), speech[0][:1], speech[1])
    assert found(folder) == ["parts/0000-00007.parquet: in no plan"]


def test_cures(folder, speech):
    assert verify(folder).cures == []
    (folder / "segments/0001").mkdir()
    (folder / "segments/0001/plan.jsonl").write_text("")  # as a run leaves it that was killed there
    assert verify(folder).cures == [AGAIN]
    shutil.rmtree(folder / "segments/0001")
    layout.part_path(folder, 0, 0).unlink()
    assert verify(folder).cures == [AGAIN]
    write_unit(folder, 1, speech[0][10:20], speech[1] | {"fingerprint": "0123"})  # the marker agrees
    assert verify(folder).cures == [REMOVE, AGAIN]
    parquet.write_part(layout.part_path(folder, 0, 7), speech[0][:1], speech[1])
    assert verify(folder).cures == [STRAY, REMOVE, AGAIN]
    with (folder / "segments/0000/plan.jsonl").open("a") as plan:
        plan.write("no json")
    assert verify(folder).cures == [NEW_PLAN]
    for name in ("plan.json", "plan.jsonl"):
        make_store(folder, speech[0][:2], speech[1], segment=1)
        (folder / "segments/0000" / name).unlink()
        assert verify(folder).cures == [NEW_PLAN]


@pytest.mark.slow
def test_what_is_to_be_removed_is_made_anew(tiny_checkpoint, speech_folder, tmp_path):
    """That is, the cures cure."""
    job = PreprocessSettings(str(tiny_checkpoint), device="cpu", workers=1, unit_size=3)
    sources = find_utterances([speech_folder])
    preprocess(sources, tmp_path / "codes", job, Callbacks(print))
    part = layout.part_path(tmp_path / "codes", 0, 1)
    content = part.read_bytes()
    rows = [dataclasses.replace(row, num_samples=1) for row in parquet.read_rows(part)]
    marker = layout.read_marker(part) | {"sha256": parquet.write_part(part, rows, parquet.part_spec(part))}
    layout.marker_path(part).write_text(json.dumps(marker))
    assert verify(tmp_path / "codes").cures == [REMOVE]
    part.unlink()
    assert verify(tmp_path / "codes").cures == [AGAIN]
    preprocess(sources, tmp_path / "codes", job, Callbacks(print))
    assert verify(tmp_path / "codes").problems == []
    assert part.read_bytes() == content


def edited(codes, value):
    codes = codes.copy()
    codes[0, 2] = value
    return codes


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda row: {"codes": edited(row.codes, 32)}, "has code 32; K is 32"),
        (lambda row: {"codes": row.codes[:, :-1]}, "codes, which is not what"),
        (lambda row: {"num_samples": row.num_samples + 1024}, "codes, which is not what"),
        (lambda row: {"num_samples": None}, "codes, which is not what None samples make"),
        (lambda row: {"codes": np.tile(row.codes, (2, 1))}, "has codes (2, "),
        (lambda row: {"codes": None}, "has no codes, and its status is 'ok'"),
        (lambda row: {"status": "silent"}, "has codes, and its status is 'silent'"),
        (lambda row: {"codes": None, "status": "tired"}, "has no codes, and its status is 'tired'"),
    ],
)
def test_rows_that_do_not_fit(folder, speech, change, what):
    rows, spec = list(speech[0]), speech[1]
    assert rows[22].codes is not None
    rows[22] = dataclasses.replace(rows[22], **change(rows[22]))
    part = write_unit(folder, 2, rows[20:], spec)
    marker = layout.read_marker(part)
    ok = sum(row.codes is not None for row in rows[20:])
    layout.marker_path(part).write_text(json.dumps(marker | {"ok": ok, "errors": 6 - ok}))
    (problem,) = found(folder)
    assert problem.startswith(f"parts/0000-00002.parquet: '{rows[22].id}' ")
    assert what in problem


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"unit": 4}, "its marker is of another plan or unit"),
        ({"plan_hash": "0"}, "its marker is of another plan or unit"),
        ({"rows": 9}, "its marker counts 9 rows, the part has 10"),
        ({"ok": 0}, "its marker counts 0 ok, the part has 10"),
        ({"errors": None}, "its marker counts None errors, the part has 0"),
        ({"codes": 1}, "its marker counts 1 codes, the part has"),
        ({"seconds": 1.5}, "its marker counts 1.5 seconds, the part has"),
        ({"sha256": "ab"}, "its SHA-256 is not its marker's"),
        (None, "its marker is damaged (not JSON)"),
    ],
)
def test_markers_that_do_not_fit(folder, change, what):
    part = layout.part_path(folder, 0, 0)
    marker = layout.read_marker(part)
    layout.marker_path(part).write_text("{" if change is None else json.dumps(marker | change))
    (problem,) = found(folder)
    assert problem.startswith(f"parts/0000-00000.parquet: {what}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fingerprint", "0123"),
        ("sizes", [1024]),
        ("samples_per_code", 512),
        ("sample_rate", 24_000),
        ("mel", {}),
        ("settings", {"on_truncated": "keep"}),
    ],
)
def test_parts_of_another_run(folder, speech, key, value):
    write_unit(folder, 1, speech[0][10:20], speech[1] | {key: value})
    assert found(folder) == [f"parts/0000-00001.parquet: {key} {value} is not the run's {speech[1][key]}"]


def test_a_plan_that_was_changed(folder, speech):
    plan = folder / "segments/0000/plan.jsonl"
    lines = plan.read_text().splitlines(keepends=True)
    plan.write_text("".join(lines[:-1]))
    problems = found(folder)
    assert problems[:2] == [
        "segments/0000: plan.jsonl: its SHA-256 is not that of plan.json: damaged or changed",
        "segments/0000: plan.jsonl: not the utterances or units that plan.json counts",
    ]
    assert problems[2:5] == [f"parts/0000-0000{unit}.parquet: its marker is of another plan or unit" for unit in range(3)]
    assert problems[5] == f"parts/0000-00002.parquet: '{speech[0][25].id}' is not planned here"
    plan.write_text("no json\n")
    assert "segments/0000: plan.jsonl: damaged: a line is no planned utterance" in found(folder)
    plan.unlink()
    assert "segments/0000: plan.jsonl: No such file or directory" in found(folder)
    shutil.rmtree(folder / "segments")
    assert found(folder)[0] == "segments: there is no plan"


def test_an_id_planned_twice_in_two_units(folder, speech):
    write_plan(folder, [(row.id, index // 10) for index, row in enumerate(speech[0])] + [(speech[0][0].id, 2)])
    assert f"segments: '{speech[0][0].id}' is planned more than once" in found(folder)


def test_what_a_killed_run_leaves(folder):
    (folder / "parts/.0000-00003.x1.parquet").write_bytes(b"half")
    (folder / "parts/notes.txt").write_text("mine")
    (folder / "segments/0000/.plan.y2.jsonl").write_text("")
    (folder / "cache").mkdir()
    (folder / "cache/codes-1.arrow").write_bytes(b"")  # CodesDataset's own
    verdict = verify(folder)
    assert verdict.problems == []
    assert verdict.leftovers == ["parts/.0000-00003.x1.parquet", "parts/notes.txt", "segments/0000/.plan.y2.jsonl"]


def test_a_copy_of_a_plan_is_left_over_and_nothing_else(folder):
    shutil.copytree(folder / "segments/0000", folder / "segments/0000.bak")
    verdict = verify(folder)
    assert (verdict.problems, verdict.planned, verdict.leftovers) == ([], 26, ["segments/0000.bak"])
    assert (corpus_info(folder).planned, corpus_info(folder).pending) == (26, 0)
    plan = folder / "segments/0000/plan.jsonl"
    plan.write_text(plan.read_text() + plan.read_text().splitlines(keepends=True)[0])
    assert len([line for line in found(folder) if "planned more than once" in line]) == 1  # the copy is not searched


def test_names_that_are_no_utf8(tmp_path, speech):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    codes = np.zeros((1, 2), np.uint16)
    folder = make_store(tmp_path / "codes", [Row(name, codes, 1100), Row("b", codes, 1100)], speech[1])
    assert found(folder) == []


def test_a_folder_that_is_no_store(tmp_path):
    for look in (verify, corpus_info):
        with pytest.raises(MelcodecError, match="not a folder of codes") as caught:
            look(tmp_path)
        assert caught.value.hint == "melcodec preprocess makes one"


def test_a_store_without_a_sound_specification(folder, speech):
    for look in (verify, corpus_info):
        for damaged in ("{", "[]", json.dumps(speech[1] | {"mel": {}}), json.dumps(speech[1] | {"fingerprint": None})):
            (folder / "run.json").write_text(damaged)
            with pytest.raises(MelcodecError, match="damaged") as caught:
                look(folder)
            assert caught.value.hint.startswith("remove run.json and run melcodec preprocess again as before")
        (folder / "run.json").unlink()
        with pytest.raises(MelcodecError, match=r"it has no run\.json") as caught:
            look(folder)
        assert caught.value.hint == "run melcodec preprocess again as before: it restores the file"


def test_damage_that_was_there_when_the_marker_was_written(folder):
    part = layout.part_path(folder, 0, 1)
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    marker = layout.read_marker(part) | {"sha256": hashlib.sha256(content).hexdigest()}
    layout.marker_path(part).write_text(json.dumps(marker))
    (problem,) = found(folder)
    assert problem.startswith("parts/0000-00001.parquet: damaged (")
    assert "CRC" in problem
