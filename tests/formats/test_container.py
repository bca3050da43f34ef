"""safetensors with one JSON string: same content, same bytes; the header without torch; every damage named."""

from __future__ import annotations

import hashlib
import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from melcodec.errors import MelcodecError
from melcodec.formats.container import FORMAT_VERSION, read_container, read_header, write_container

META = {"kind": "test", "words": ["é", "ü"], "nested": {"b": 1, "a": [1.5, None, True]}}

WRITE = """
import sys, torch
from pathlib import Path
from melcodec.formats.container import write_container
names = ["b", "a", "c.d"] if sys.argv[2] == "0" else ["c.d", "a", "b"]
tensors = {name: torch.arange(6.0).reshape(2, 3) + len(name) for name in names}
facts = {"kind": "test", "one": 1, "two": {"x": 1, "y": 2}}
if sys.argv[2] != "0":
    facts = {"two": {"y": 2, "x": 1}, "one": 1, "kind": "test"}
write_container(Path(sys.argv[1]), tensors, facts)
"""


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"w": torch.randn(3, 4), "codes": torch.arange(5), "half": torch.randn(7).half(), "scalar": torch.tensor(2.5)}


@pytest.fixture
def path(tmp_path, tensors):
    file = tmp_path / "some.safetensors"
    write_container(file, tensors, META)
    return file


def refusal(call, *args) -> MelcodecError:
    with pytest.raises(MelcodecError) as caught:
        call(*args)
    return caught.value


def with_header(path, header: object) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def test_round_trip(path, tensors):
    meta, back = read_container(path, "test")
    assert meta == {"format": FORMAT_VERSION, **META}
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name], value)


def test_views_and_transposed_and_shared_tensors(tmp_path):
    whole = torch.randn(10, 1000, requires_grad=True)
    views = {"column": whole[:, :2], "turned": whole.T[:3], "row": whole[0], "again": whole[0]}
    write_container(tmp_path / "v.safetensors", views, {"kind": "test"})
    assert (tmp_path / "v.safetensors").stat().st_size < 20_000
    _, back = read_container(tmp_path / "v.safetensors", "test")
    assert all(torch.equal(back[name], value) for name, value in views.items())


@pytest.mark.slow
def test_same_content_same_bytes_in_every_process(tmp_path, run_python):
    digests = set()
    for seed in ("0", "4242"):
        file = tmp_path / f"{seed}.safetensors"
        run_python(WRITE, file, seed, env={"PYTHONHASHSEED": seed})
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_no_overwriting_unless_asked(path):
    before = path.read_bytes()
    assert "exists already" in refusal(write_container, path, {}, {"kind": "test"}, False).message
    assert path.read_bytes() == before


def test_the_header_alone_without_torch(path, run_python):
    script = """
import sys
from pathlib import Path
from melcodec.formats.container import read_header
meta, entries = read_header(Path(sys.argv[1]))
assert "torch" not in sys.modules
print(meta["kind"], meta["words"], entries["w"]["shape"], entries["half"]["dtype"])
"""
    assert run_python(script, path, env={"PYTHONIOENCODING": "utf-8"}) == "test ['é', 'ü'] [3, 4] F16\n"


def test_another_kind(path):
    assert refusal(read_container, path, "checkpoint").message == f"{path}: holds test, not checkpoint"


def test_a_newer_format(path):
    write_container(path, {}, {"kind": "test", "format": FORMAT_VERSION + 1})
    error = refusal(read_header, path)
    assert error.message == f"{path}: written by a newer melcodec (format {FORMAT_VERSION + 1})"
    assert error.hint == "pip install --upgrade melcodec"


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file(tmp_path, metadata):
    file = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(3)}, file, metadata)
    error = refusal(read_header, file)
    assert error.message == f"{file}: a safetensors file, but not one that melcodec wrote"
    assert "import-xtts" in error.hint


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 20, 100])
def test_truncated_in_the_header(path, keep):
    os.truncate(path, keep)
    error = refusal(read_container, path, "test")
    assert error.message.startswith(f"{path}: not a safetensors file, or damaged (")
    assert (error.hint, error.code) == ("copy or download it again", "damaged")


@pytest.mark.parametrize("missing", [1, 50])
def test_truncated_in_the_tensors(path, missing):
    os.truncate(path, path.stat().st_size - missing)
    for error in (refusal(read_container, path, "test"), refusal(read_header, path)):
        assert error.message.startswith(f"{path}: not a safetensors file, or damaged (")
        assert error.hint == "copy or download it again"


@pytest.mark.parametrize(
    "content",
    [b'{"kind": "test", "json": "a text file, longer than eight bytes"}', b"\xff" * 100, b"RIFF$\x00\x00\x00WAVEfmt " * 3],
    ids=["json", "bytes", "wav"],
)
def test_other_files(tmp_path, content):
    file = tmp_path / "other.safetensors"
    file.write_bytes(content)
    assert refusal(read_header, file).message.startswith(f"{file}: not a safetensors file, or damaged (")


@pytest.mark.parametrize(
    "header", [[1, 2], "text", 3, None, {"__metadata__": None}, {"__metadata__": [1]}, b"{", b"\xff\xfe"], ids=str
)
def test_headers_that_are_no_headers(tmp_path, header):
    file = tmp_path / "odd.safetensors"
    with_header(file, header)
    assert "safetensors file" in refusal(read_header, file).message


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"format": "x"}'])
def test_metadata_that_is_not_melcodecs(tmp_path, text):
    file = tmp_path / "odd.safetensors"
    with_header(file, {"__metadata__": {"melcodec": text}})
    assert "its metadata is not what melcodec writes" in refusal(read_header, file).message


def test_arrays_are_written_and_read_without_torch(tmp_path, run_python):
    script = """
import sys
from pathlib import Path
import numpy as np
from melcodec.formats.container import read_container_array, write_container
write_container(Path(sys.argv[1]), {"codes": np.arange(5, dtype=np.uint16)[None]}, {"kind": "codes"})
meta, array = read_container_array(Path(sys.argv[1]), "codes")
assert "torch" not in sys.modules
print(meta["kind"], array.dtype, array.tolist())
"""
    assert run_python(script, tmp_path / "c.safetensors") == "codes uint16 [[0, 1, 2, 3, 4]]\n"


def test_nothing_there(tmp_path):
    assert refusal(read_header, tmp_path / "none").message == f"{tmp_path / 'none'}: no such file"
    assert refusal(read_header, tmp_path).message == f"{tmp_path}: is a folder, not a file"
