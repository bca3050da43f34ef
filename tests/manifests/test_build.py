"""What a source is, patterns, ids across sources, and what is refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from melcodec.errors import MelcodecError
from melcodec.manifests.build import find_utterances
from melcodec.manifests.patterns import open_braces


def test_files_named_one_by_one(make, facts):
    make("d/a/1.wav", "d/b/1.wav", "d/b/x.flac")
    assert facts("d/a/1.wav") == {"1": "d/a/1.wav"}
    # as a shell would give them: told apart from the folder on that holds them all
    assert facts("d/a/1.wav", "d/b/1.wav", Path("d/b/x.flac"), "./d/b/x.flac") == {
        "a/1": "d/a/1.wav",
        "b/1": "d/b/1.wav",
        "b/x": "./d/b/x.flac",
    }


def test_patterns(make, facts, here):
    make("d/a/1.wav", "d/b/1.wav", "d/b/2.flac", "d/b/deep/3.flac", "d/.c/4.flac", "d/b/.5.flac", "d/b/6.txt", "7.flac")
    assert facts("d/**/*.flac") == {"b/2": "d/b/2.flac", "b/deep/3": "d/b/deep/3.flac"}
    assert facts("d/*/1.wav") == facts("d/{a,b}/1.wav") == facts("d/**/1.wav") == {"a/1": "d/a/1.wav", "b/1": "d/b/1.wav"}
    assert list(facts("d/*/[12].*")) == ["a/1", "b/1", "b/2"]
    assert facts("d/**/deep/*") == {"b/deep/3": "d/b/deep/3.flac"}
    assert list(facts("d/b/**")) == ["1", "2", "deep/3"]
    assert list(facts("**/*.flac")) == ["7", "d/b/2", "d/b/deep/3"]
    assert facts("*.flac") == {"7": "7.flac"}
    assert list(facts("d/b/*")) == ["1", "2"]  # and not 6.txt, a list by its suffix
    assert facts(f"{here}/*.flac") == {"7": f"{here}/7.flac"}
    (here / "d/b/up").symlink_to(here / "d")
    assert list(facts("d/**/*.flac")) == ["b/2", "b/deep/3"]


def test_patterns_of_lists(make, facts):
    for name in ("train", "dev"):
        make(f"lists/{name}.jsonl", text=f'{{"path": "{name}.wav"}}\n')
    assert facts("lists/*.jsonl") == facts("lists/{train,dev}.jsonl") == {"dev": "lists/dev.wav", "train": "lists/train.wav"}


def test_a_name_with_brackets_is_a_name(make, facts):
    make("d [v1]/a.wav", "x*.wav")
    assert facts("d [v1]") == {"a": "d [v1]/a.wav"}
    assert facts("x*.wav") == {"x*": "x*.wav"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["a"]),
        ("a{1,22}b", ["a1b", "a22b"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{008..011}", ["008", "009", "010", "011"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("{a,{b,c}}", ["a", "b", "a", "c"]),
    ],
)
def test_braces(pattern, expected):
    assert open_braces(pattern) == expected


def test_a_file_of_two_sources_is_taken_once(make, facts, here):
    make("d/a/1.wav", "d/b/2.wav", "e/3.wav")
    make(
        "d/list.jsonl", text='{"path": "b/2.wav", "duration": 1.5, "id": "two"}\n{"path": "b/2.wav", "offset": 2, "id": "more"}\n'
    )
    assert list(facts("d", "d/a", "d/a/1.wav", here / "d", "d/*/*.wav")) == ["a/1", "b/2"]
    assert list(facts("d/a", "d")) == ["1", "b/2"]
    assert list(facts("d", "d/list.jsonl")) == ["a/1", "b/2", "more"]  # a later part of a file is another utterance
    (here / "link").symlink_to(here / "d")
    assert list(facts("d", "link", "e")) == ["3", "a/1", "b/2"]


def test_two_utterances_of_one_id(make, refusal):
    make("d/1.wav", "e/1.wav")
    error = refusal("d", "e")
    assert error.message == "two utterances are called '1': d/1.wav and e/1.wav"
    assert "the folder that holds both" in error.hint
    make("x.jsonl", text='{"path": "d/1.wav"}\n{"path": "d/1.wav"}\n')
    assert refusal("x.jsonl").message == "'d/1' is listed twice: d/1.wav, in rows 1 and 2 of x.jsonl"
    make("y.jsonl", text='{"path": "d/1.wav", "offset": 1.5, "duration": 1}\n{"path": "d/1.wav", "offset": 1.5, "duration": 2}\n')
    assert refusal("y.jsonl").message == "'d/1@1.500' is listed twice: d/1.wav at 1.5 s, in rows 1 and 2 of y.jsonl"
    make("z.csv", text="path,id\na.wav,a\nb.wav,b\nc.wav,a\nd.wav,a\n")
    error = refusal("z.csv")
    assert error.message == "two utterances are called 'a': a.wav and c.wav, in rows 1, 3 and 4 of z.csv"
    assert error.hint == "give each row an id of its own"
    make("v.jsonl", "w.jsonl", text='{"path": "e/1.wav", "id": "d/1"}\n')
    make("v.jsonl", text='{"path": "d/1.wav"}\n')
    assert refusal("v.jsonl", "w.jsonl").message == "two utterances are called 'd/1': d/1.wav and e/1.wav"  # in different lists


def test_what_is_no_source(make, refusal):
    make("a.pdf", "b.tar.gz", "c.jsonl", "d.jsonl.gz.bak")
    assert refusal("none").message == "none: no such file or folder"
    assert refusal("").message == "'': no such file or folder"
    assert refusal("a.pdf").message == "a.pdf: is neither audio nor a list of it"
    assert ".jsonl" in refusal("a.pdf").hint
    assert refusal("b.tar.gz").hint == "unpack it"
    make("c.csv", text="path,text\n")
    make("k/wav.scp")
    for empty in ("c.jsonl", "c.csv", "k"):
        assert refusal(empty).message == f"{empty}: there are no rows in it"
    assert refusal("c.jsonl", "c.csv").message == "c.jsonl, c.csv: there are no rows in it"
    assert "neither audio" in refusal("d.jsonl.gz.bak").message
    assert refusal("*.flac").message == "no file matches '*.flac'"
    assert refusal("*.pdf").message == "'*.pdf' matches 1 files, but no audio and no list of it"
    assert refusal("none/**/*.flac").message == "no file matches 'none/**/*.flac'"
    assert refusal("s-{0..1}.tar").message == "s-0.tar: no such file"
    for url in ("s3://bucket/data", Path("https://host/data")):  # of which pathlib makes https:/host
        assert "cannot be listed" in refusal(url).message


def test_a_pipe_is_no_file(make, facts, refusal, here):
    """Whoever opens one waits for somebody to write."""
    make("d/a.wav")
    os.mkfifo(here / "d/pipe.wav")
    assert facts("d") == facts("d/*.wav") == facts("d/**/*.wav") == {"a": "d/a.wav"}
    assert refusal("d/pipe.wav").message == "d/pipe.wav: is neither a file nor a folder"


def test_nothing_is_decoded_and_torch_is_not_needed(make, here, run_python):
    make("d/a.wav", text="not sound")
    script = """
import sys
from melcodec.manifests.build import find_utterances
from melcodec.manifests.split import split
print(find_utterances(["d"])[0].id)
assert not {"torch", "soundfile", "lhotse", "fsspec"} & set(sys.modules)
"""
    assert run_python(f"import os; os.chdir({str(here)!r})\n{script}") == "a\n"


def test_a_long_list_takes_no_longer_than_it_must(here):
    """30,000 rows, a million by hand: 10 s of one core. A quadratic step, or a look at each file, would show."""
    rows = (
        json.dumps({"audio_filepath": f"{i % 100}/{i}.flac", "duration": 3.2, "speaker": f"s{i % 50}"}) for i in range(30_000)
    )
    (here / "x.jsonl").write_text("\n".join(rows))
    started = time.process_time()
    assert len(find_utterances(["x.jsonl"])) == 30_000
    assert time.process_time() - started < 5


def test_errors_are_ours(make, here):
    make("x.jsonl", text="{}\n")
    (here / "x.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(MelcodecError, match=r"x\.jsonl: is not UTF-8 text"):
        find_utterances(["x.jsonl"])
