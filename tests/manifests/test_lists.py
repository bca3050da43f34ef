"""JSONL, CSV, Kaldi and lhotse: every field, and every row that is refused."""

from __future__ import annotations

import gzip
import json

import pytest

from melcodec.audio.io import load
from melcodec.manifests.base import Utterance
from melcodec.manifests.build import find_utterances

# what lhotse 1.33 writes: Recording.from_file(...).to_cut(), a part of one, and ones it will change when it reads them
RECORDING = (
    '"recording": {"id": "lj", "sources": [{"type": "file", "channels": [0], "source": "lj.flac"}], '
    '"sampling_rate": 22050, "num_samples": 114660, "duration": 5.2, "channel_ids": [0]'
)
SUPERVISION = (
    '"supervisions": [{"id": "lj", "recording_id": "lj", "start": 0, "duration": 5.2, "channel": 0, '
    '"text": "hello there", "language": "en", "speaker": "linda"}]'
)
WHOLE = f'{{"id": "lj", "start": 0.0, "duration": 5.2, "channel": 0, {SUPERVISION}, {RECORDING}}}, "type": "MonoCut"}}'
PART = (
    '{"id": "part", "start": 0.25002267573696146, "duration": 0.5, "channel": 0, "supervisions": [], '
    f'{RECORDING}}}, "type": "MonoCut"}}'
)
RESAMPLED = WHOLE.replace(
    '"channel_ids": [0]}',
    '"channel_ids": [0], "transforms": [{"name": "Resample", "kwargs": '
    '{"source_sampling_rate": 22050, "target_sampling_rate": 16000}}]}',
)
SPED_UP = WHOLE.replace(
    '"channel_ids": [0]}', '"channel_ids": [0], "transforms": [{"name": "Speed", "kwargs": {"factor": 1.1}}]}'
)
MIXED = f'{{"id": "8a54b2b9", "tracks": [{{"cut": {WHOLE}, "type": "MonoCut", "offset": 0.0}}], "type": "MixedCut"}}'


def test_jsonl_with_everything(make):
    row = {"id": "x/1", "audio_filepath": "wavs/ü 1.flac", "offset": 1.5, "duration": 2, "text": " hi ", "speaker": 7}
    make("d/list.jsonl", text="\ufeff" + json.dumps(row | {"lang": "nl", "split": "dev-clean", "snr": [1]}) + "\n\n")
    assert find_utterances(["d/list.jsonl"]) == [
        Utterance("x/1", "d/wavs/ü 1.flac", "", 1.5, 2.0, "7", "nl", "hi", "valid"),
    ]


@pytest.mark.parametrize("name", ["audio_filepath", "path", "wav", "audio", "file", "file_name"])
def test_names_of_the_path(make, facts, name):
    make("x.jsonl", text=json.dumps({name: "a.wav", "text": None}))
    make("x.csv", text=f"text,{name.upper()}\n,a.wav\n")
    assert facts("x.jsonl") == facts("x.csv") == {"a": "a.wav"}


def test_a_nemo_manifest_of_segments_is_named_by_path_and_offset(make, facts, here):
    inside, outside = here / "d/a.wav", "/elsewhere/b.c/x.wav"
    rows = [("a.wav", 0), (str(inside), 2.25), ("../e/f.wav", 0), (outside, 0), ("./g//h.wav", 0)]
    lines = [json.dumps({"audio_filepath": path, "offset": offset, "duration": 2.0}) for path, offset in rows]
    make("d/manifest.json", text="\n".join(lines))
    assert facts("d/manifest.json", fields=("path", "start", "duration")) == {
        "a": ("d/a.wav", 0.0, 2.0),
        "a@2.250": (str(inside), 2.25, 2.0),
        "e/f": ("d/../e/f.wav", 0.0, 2.0),
        "elsewhere/b.c/x": (outside, 0.0, 2.0),
        "g/h": ("d/./g//h.wav", 0.0, 2.0),
    }


def test_packed_and_as_one_array(make, facts, here):
    rows = [{"path": "a.wav"}, {"path": "b.wav", "start": "1", "end": 3.5}]
    make("x.json", text="\n" + json.dumps(rows, indent=1))
    (here / "x.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    (here / "x.csv.gz").write_bytes(gzip.compress(b"path,start,end\na.wav,,\nb.wav,1,3.5\n"))
    expected = {"a": (0.0, None), "b@1.000": (1.0, 2.5)}
    for name in ("x.json", "x.jsonl.gz", "x.csv.gz"):
        assert facts(name, fields=("start", "duration")) == expected


def test_damaged_lists(make, refusal, here):
    packed = gzip.compress(b'{"path": "a.wav"}\n' * 1000)
    (here / "short.jsonl.gz").write_bytes(packed[:-20])
    (here / "plain.jsonl.gz").write_bytes(b'{"path": "a.wav"}')
    for name in ("short", "plain"):
        assert refusal(f"{name}.jsonl.gz").message.startswith(f"{name}.jsonl.gz: is damaged")
    make("x.json", text='[{"path": "a.wav"},\n]')
    assert refusal("x.json").message.startswith("x.json, line 2: is not JSON")
    make("y.json", text='[{"path": "a.wav"}, 3]')
    assert refusal("y.json").message == "y.json, entry 2: is JSON, but not an object"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is JSON, but not an object"),
        ('{"text": "a"}', "names no audio file"),
        ('{"path": ""}', "names no audio file"),
        ('{"path": null}', "names no audio file"),
        ('{"path": 3}', "names no audio file"),
        ('{"path": "a.wav", "offset": -1}', "start is -1: a time in seconds is 0 or more"),
        ('{"path": "a.wav", "offset": "soon"}', "start is 'soon', not a number of seconds"),
        ('{"path": "a.wav", "offset": NaN}', "start is nan: a time"),
        ('{"path": "a.wav", "offset": [1]}', "start is [1], not a number"),
        ('{"path": "a.wav", "duration": 0}', "a duration of 0 s holds no speech"),
        ('{"path": "a.wav", "duration": -1}', "duration is -1: a time"),
        ('{"path": "a.wav", "start": 2, "end": 1}', "a duration of -1 s holds no speech"),
        ('{"path": "a.wav", "text": ["a"]}', "text is ['a'], not a text"),
        ('{"path": "a.wav", "split": "rest"}', "split 'rest' is none of train, training, valid"),
        ('{"path": "a.wav", "id": "../a"}', "the id '../a' cannot name a file"),
        ('{"path": "a.wav", "id": "/a"}', "the id '/a' cannot name a file"),
        ('{"path": "a.wav", "id": "a//b"}', "the id 'a//b' cannot name a file"),
        ('{"path": "a.wav", "id": "a\\nb"}', "the id 'a\\nb' cannot name a file"),
        ('{"path": "a.wav", "id": "\\ud800"}', "the id '\\ud800' cannot name a file"),
        ('{"id": "r", "sources": [], "sampling_rate": 16000}', "names no audio file"),
    ],
)
def test_bad_rows_are_named(make, refusal, row, message):
    make("x.jsonl", text=f'{{"path": "fine.wav"}}\n\n{row}\n')
    assert refusal("x.jsonl").message.startswith(f"x.jsonl, line 3: {message}")


def test_urls(make, facts):
    pytest.importorskip("fsspec")
    make("x.csv", text="path\nmemory://bucket/a/1.wav\nsimplecache::memory://host/a/2.flac?key=3\n")
    assert facts("x.csv") == {"bucket/a/1": "memory://bucket/a/1.wav", "host/a/2": "simplecache::memory://host/a/2.flac?key=3"}


@pytest.mark.parametrize(
    ("absent", "url", "reason"),
    [
        ("fsspec", "memory://a.wav", "reading it needs an optional package ("),
        ("s3fs", "s3://bucket/a.wav", "reading it needs an optional package (Install s3fs to access S3)"),
        ("s3fs", "simplecache::s3://bucket/a.wav", "reading it needs an optional package (Install s3fs to access S3)"),
        (
            "aiohttp",
            "https://host/a.wav",
            "reading it needs an optional package (HTTPFileSystem requires ",
        ),
        ("-", "gopher://host/a.wav", "nothing reads gopher:// here"),
    ],
)
def test_urls_that_nothing_here_can_read(make, here, run_python, absent, url, reason):
    """A corpus of nothing but error rows would be no help."""
    pytest.importorskip("fsspec")
    make("x.csv", text=f"path\na.wav\n{url}\n")
    script = """
import os, sys
os.chdir(sys.argv[1])
sys.modules[sys.argv[2]] = None  # what a missing package looks like
from melcodec.errors import MelcodecError
from melcodec.manifests.build import find_utterances
try:
    find_utterances(["x.csv"])
except MelcodecError as error:
    print(error.message, error.hint, sep="\\n")
"""
    message, hint = run_python(script, here, absent).splitlines()
    assert message.startswith(f"x.csv, line 3: {url}: {reason}")
    assert hint == ("None" if absent == "-" else "pip install 'melcodec[remote]'")


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("csv", ";"), ("tsv", "\t"), ("txt", "|"), ("csv", "|")])
def test_tables(make, facts, suffix, mark):
    header = ["Path", " speaker_id", "seconds", "transcript", "locale", "split", "offset", "duration"]
    row = ["a b.wav", "ann", "9.9", "hi", "en", "Train", "0.5", "2"]
    make(f"d/x.{suffix}", text=f"{mark.join(header)}\r\n{mark.join(row)}\r\n\r\n")
    fields = ("path", "speaker", "text", "language", "split", "start", "duration")
    assert facts(f"d/x.{suffix}", fields=fields) == {"a b@0.500": ("d/a b.wav", "ann", "hi", "en", "train", 0.5, 2.0)}


def test_quotes_are_quotes_but_between_commas(make, facts):
    make("x.csv", text='path,text\n"a,1.wav","she said ""no"",\nand left"\nb.wav,x\n')
    assert facts("x.csv", fields=("text",)) == {"a,1": 'she said "no",\nand left', "b": "x"}
    make("x.tsv", text='path\ttext\na.wav\t"oh\nb.wav\tx"\n')
    assert facts("x.tsv", fields=("text",)) == {"a": '"oh', "b": 'x"'}


def test_seconds_are_not_a_duration(make, facts):
    """As in the list of a corpus whose files are whole: the length there is rounded."""
    make(
        "manifest.csv", text="path,dataset,speaker,language,seconds,sample_rate,split\ntest/a/b/1.flac,a,b,zh,3.347,22050,test\n"
    )
    expected = {"test/a/b/1": ("test/a/b/1.flac", None, "b", "zh", "test")}
    assert facts("manifest.csv", fields=("path", "duration", "speaker", "language", "split")) == expected


def test_common_voice(make, facts):
    make("cv/nl/clips/common_voice_nl_1.mp3")
    make("cv/nl/validated.tsv", text="client_id\tpath\tsentence\tlocale\nabc\tcommon_voice_nl_1.mp3\tHoi\tnl\n")
    expected = {"common_voice_nl_1": ("cv/nl/clips/common_voice_nl_1.mp3", "abc", "Hoi", "nl")}
    assert facts("cv/nl/validated.tsv", fields=("path", "speaker", "text", "language")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,text\na.wav,x\nb.wav\n", "x.csv, line 3: has 1 cells where the header has 2"),
        ("path,text\na.wav,x,y\n", "x.csv, line 2: has 3 cells where the header has 2"),
        ("path,text\n,x\n", "x.csv, line 2: names no audio file"),
        ("path,offset\na.wav,-1\n", "x.csv, line 2: start is -1: a time in seconds is 0 or more"),
        ("colour,size\nred,3\n", "x.csv: its first line names no column of audio files"),
        ("id|text|speaker\na|b|c\n", "x.csv: its first line names no column of audio files"),
        ("a|b\nonly\n", "x.csv, line 2: has 1 columns where the first line has 2"),
        ("path,text\na.wav,x\nb.wav," + "y" * 200_000 + "\n", "x.csv, line 3: is not a row of a table"),
    ],
)
def test_bad_tables(make, refusal, text, message):
    make("x.csv", text=text)
    assert refusal("x.csv").message.startswith(message)


KALDI = ("path", "start", "duration", "speaker", "language", "text")


def test_kaldi(make, facts):
    make("k/wav.scp", text="u1 /data/my files/u 1.wav\nu2\twavs/u2.flac\r\n\n")
    assert facts("k/wav.scp") == facts("k") == {"u1": "/data/my files/u 1.wav", "u2": "k/wavs/u2.flac"}
    make("k/utt2spk", text="u1 ann\nu2 bob\nu3 cid\n")
    make("k/utt2lang", text="u1 en\n")
    make("k/text", text="u1 good day\nu2\n")
    assert facts("k", fields=KALDI) == {
        "u1": ("/data/my files/u 1.wav", 0.0, None, "ann", "en", "good day"),
        "u2": ("k/wavs/u2.flac", 0.0, None, "bob", "", ""),
    }


def test_kaldi_segments(make, facts, refusal):
    make("k/wav.scp", text="r1 r1.wav\n")
    make("k/segments", text="u1 r1 0 1.5\nu2 r1 1.5 -1\n")
    make("k/utt2spk", text="u1 ann\nu2 bob\n")
    expected = {"u1": ("k/r1.wav", 0.0, 1.5, "ann", "", ""), "u2": ("k/r1.wav", 1.5, None, "bob", "", "")}
    assert facts("k", fields=KALDI) == expected
    make("k/segments", text="u1 r1 0 1.5\nu2 r2 0 1\n")
    assert refusal("k").message == "k/segments, line 2: 'u2' is a part of 'r2', which wav.scp does not name"
    make("k/segments", text="u1 r1 2 1.5\n")
    assert refusal("k").message == "k/segments, line 1: a duration of -0.5 s holds no speech"
    make("k/segments", text="u1 r1 2\n")
    assert refusal("k").message == "k/segments, line 1: is not of the form: segment recording start end"


def test_paths_of_kaldi_and_lhotse_start_beside_the_list_or_where_one_stands(make, facts):
    make("data/lj.flac", "data/k/lj.flac", "data/k/own.flac")
    make("k/wav.scp", text="u data/lj.flac\n")
    make("data/k/wav.scp", text="u lj.flac\nv gone.flac\n")
    assert facts("k") == {"u": "data/lj.flac"}
    assert facts("data/k") == {"u": "data/k/lj.flac", "v": "data/k/gone.flac"}
    make("c/cuts.jsonl", text=WHOLE.replace("lj.flac", "data/lj.flac"))
    assert facts("c/cuts.jsonl") == {"lj": "data/lj.flac"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u2 sox a.wav -t wav - |", "'u2' is a command, and none is ever run"),
        ("u2 touch ran.wav|", "'u2' is a command, and none is ever run"),
        ("u2 | touch ran.wav", "'u2' is a command, and none is ever run"),
        ("u2 raw.ark:42", "'u2' lies in a Kaldi archive, which is not read"),
        ("u2", "'u2' names no audio file"),
        ("u2 -", "'u2' names no audio file"),
        ("u1 b.wav", "'u1' occurs already, in line 1: a.wav and b.wav"),
    ],
)
def test_bad_lines_of_kaldi(make, refusal, here, line, message):
    make("wav.scp", text=f"u1 a.wav\n{line}\n")
    assert refusal("wav.scp").message == f"wav.scp, line 2: {message}"
    assert not (here / "ran.wav").exists()


def test_how_many_lines_are_commands(make, refusal):
    make("wav.scp", text="u1 a.wav\nu2 sox a.wav - |\nu3 b.wav\nu4 |cat\n")
    assert refusal("wav.scp").message == "wav.scp, line 2: 'u2' is a command, as is 1 more; none is ever run"
    make("wav.scp", text="u2 sox a.wav - |\n" + "".join(f"v{i} cat {i}.wav |\n" for i in range(70)))
    error = refusal("wav.scp")
    assert error.message == "wav.scp, line 1: 'u2' is a command, as are 70 more; none is ever run"
    assert error.hint == "write what it prints to a file and list that, or leave its line out"


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_lhotse(here, facts, examples, name):
    text = "\n".join([WHOLE, PART, RESAMPLED.replace('"id": "lj", "start"', '"id": "slow", "start"')])
    text = text.replace("lj.flac", str(examples["lj_en"]))
    (here / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    path = str(examples["lj_en"])
    assert facts(name, fields=KALDI) == {
        "lj": (path, 0.0, 5.2, "linda", "en", "hello there"),
        "part": (path, 0.25002267573696146, 0.5, "", "", ""),
        "slow": (path, 0.0, 5.2, "linda", "en", "hello there"),
    }
    assert len(load(path, 22_050)) == round(5.2 * 22_050)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (MIXED, "cut '8a54b2b9' is a MixedCut; only a MonoCut is a part of one file"),
        (SPED_UP, "cut 'lj' is changed by lhotse on the fly (Speed); save its audio first"),
        (WHOLE.replace('"file"', '"command"'), "cut 'lj' has a source of type command; commands are never run"),
        (WHOLE.replace('"file"', '"memory"'), "cut 'lj' has a source of type memory; only files and URLs are read"),
        (
            WHOLE.replace('"channels": [0]', '"channels": [0, 1]'),
            "cut 'lj' takes one of 2 channels, which melcodec would average",
        ),
        (PART.replace(f"{RECORDING}}}", '"features": {"num_frames": 50}'), "cut 'part' has features but no recording"),
        (PART.replace('"duration": 0.5, ', ""), "cut 'part' is not as lhotse writes it (KeyError('duration'))"),
        (PART.replace('"sources": [', '"sources": [{}, '), "cut 'part' has a recording of 2 files; only one is read"),
        (PART.replace('"start": 0.25', '"start": -0.25'), "start is -0.25"),
    ],
)
def test_cuts_that_are_not_parts_of_files(make, refusal, cut, reason):
    make("cuts.jsonl", text=f"{PART.replace('part', 'fine')}\n{cut}\n")
    assert refusal("cuts.jsonl").message.startswith(f"cuts.jsonl, line 2: {reason}")


def test_a_list_of_recordings_is_no_list_of_cuts(make, refusal):
    make("recordings.jsonl", text='{"id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}]}')
    assert refusal("recordings.jsonl").hint == "make cuts of recordings: lhotse cut simple"
