"""Tar archives: real ones, and damaged ones."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from melcodec.manifests.build import find_utterances


@pytest.fixture
def pack(here):
    """pack("a.tar", {"x.wav": b"..."}) writes an archive and returns its path."""

    def write(name, members, mode="w"):
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, mode) as archive:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return write


def test_members_are_utterances(pack, examples):
    sound = examples["lj_en"].read_bytes()
    note = json.dumps({"speaker": "linda", "text": "other", "lang": "en", "split": "dev", "path": "ignored.wav", "id": 3})
    pack(
        "s-0.tar",
        {"lj/1.flac": sound, "lj/1.txt": b" hello\n", "lj/1.json": note.encode(), "lj/1.cls": b"3", "lj/._1.flac": b"mac"}
        | {"./2.mic1.wav": b"RIFF", "./2.mic2.wav": b"RIFF", "./2.txt": b"both"},
    )
    found = find_utterances(["s-0.tar"])
    assert [(each.id, each.member, each.text, each.speaker, each.language, each.split) for each in found] == [
        ("2.mic1", "./2.mic1.wav", "both", "", "", ""),
        ("2.mic2", "./2.mic2.wav", "both", "", "", ""),
        ("lj/1", "lj/1.flac", "hello", "linda", "en", "valid"),
    ]
    with tarfile.open(found[2].path) as archive:
        assert archive.extractfile(found[2].member).read() == sound


def test_archives_of_real_tar_programs(here, examples, facts):
    """With folders, long names and links, in the formats that python writes."""
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(here / "x.tar", "w", format=format) as archive:
            archive.add(examples["lj_en"].parent, "ex", recursive=False)
            archive.add(examples["lj_en"], "ex/" + "long" * 22 + "/ü.flac")
        assert list(facts("x.tar")) == ["ex/" + "long" * 22 + "/ü"]


def test_shards_by_braces_and_patterns_and_one_by_one(pack, facts):
    for number in range(3):
        pack(f"s/shard-{number:03}.tar", {f"u{number}.wav": b"x"})
    expected = {f"u{number}": f"s/shard-{number:03}.tar" for number in range(3)}
    assert facts("s/shard-{000..002}.tar") == facts("s/*.tar") == facts(*expected.values()) == expected
    assert facts("s/*.tar", "s/shard-001.tar") == expected
    assert list(facts("s/shard-{000..001}.tar")) == ["u0", "u1"]


def test_a_name_in_several_archives_gets_theirs(pack, facts):
    for name in ("train/0", "train/1", "dev/0"):
        pack(f"{name}.tar", {"u.wav": b"x", f"{name}.wav": b"y"})
    assert list(facts("train/{0..1}.tar", "dev/0.tar")) == ["dev/0", "dev/0/u", "train/0", "train/0/u", "train/1", "train/1/u"]
    assert list(facts("train/{0..1}.tar")) == ["0/u", "1/u", "train/0", "train/1"]


def test_suffixes_tell_members_apart(pack, facts):
    pack("x.tar", {"u.wav": b"x", "u.flac": b"y"})
    assert list(facts("x.tar")) == ["u.flac", "u.wav"]


def test_refusals(pack, here, refusal):
    assert refusal(pack("no.tar", {"a.txt": b"x"})).message.endswith("no.tar: holds no audio files")
    assert "the id '../a' cannot name a file" in refusal(pack("up.tar", {"../a.wav": b"x"})).message
    assert "a.json is not JSON" in refusal(pack("json.tar", {"a.wav": b"x", "a.json": b"{"})).message
    assert "a.txt is not UTF-8 text" in refusal(pack("utf.tar", {"a.wav": b"x", "a.txt": b"\xff"})).message
    assert "a.txt is 1048577 bytes long" in refusal(pack("big.tar", {"a.wav": b"x", "a.txt": bytes((1 << 20) + 1)})).message
    twice = pack("twice.tar", {"a.wav": b"x"})
    with tarfile.open(twice, "a") as archive:
        archive.addfile(tarfile.TarInfo("a.wav"))
    assert refusal(twice).message == f"'a.wav' is listed twice: {twice} (a.wav)"
    (here / "text.tar").write_text("no archive" * 100)
    assert "text.tar: not readable as a tar archive" in refusal("text.tar").message
    (here / "empty.tar").touch()
    assert "empty.tar: not readable as a tar archive" in refusal("empty.tar").message
    packed = pack("packed.tar", {"a.wav": b"x"}, "w:gz")
    assert "not readable as a tar archive" in refusal(packed).message


def test_an_archive_that_was_cut_short_is_never_taken_for_a_whole_one(pack, here, refusal, facts):
    whole = pack("whole.tar", {f"{number}.wav": bytes(700) for number in range(4)}).read_bytes()
    step = 512 + 1024  # a header, and 700 bytes in blocks of 512
    for length in (100, 512, step - 100, step + 100, 2 * step + 600, 4 * step - 400):
        (here / "cut.tar").write_bytes(whole[:length])
        error = refusal("cut.tar").message
        assert "cut.tar: not readable as a tar archive" in error or "cut.tar: is damaged" in error, length
    (here / "cut.tar").write_bytes(whole[: 4 * step])  # without the zeros at the end, which some programs leave out
    assert len(facts("cut.tar")) == 4


def test_an_archive_damaged_in_the_middle_or_glued_to_another(pack, here, refusal):
    whole = pack("whole.tar", {f"{number}.wav": bytes(700) for number in range(4)}).read_bytes()
    (here / "two.tar").write_bytes(whole + whole)
    assert "two.tar: is damaged, or two archives in one, at byte 6144" in refusal("two.tar").message
    damaged = bytearray(whole)
    damaged[1536 + 3] ^= 0xFF
    (here / "bad.tar").write_bytes(damaged)
    assert "bad.tar: is damaged, or two archives in one, at byte 1536" in refusal("bad.tar").message
