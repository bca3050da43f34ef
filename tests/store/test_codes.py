"""Codes files: three formats, the smallest type, and everything that is no codes file."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from melcodec.errors import MelcodecError
from melcodec.formats.arrays import SUFFIXES, read_array_header
from melcodec.store.codes import Codes, load_codes, save_codes

KNOWN = {"num_samples": 4_000, "source_rate": 48_000, "fingerprint": "0123456789ab", "sizes": (1024,)}
LATER = SUFFIXES[1:]  # those that carry facts


def ramp(codebook_size, num_codes=5):
    """(1, N) codes up to the largest one."""
    return np.linspace(0, codebook_size - 1, num_codes).astype(np.int64)[None]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    codes = np.concatenate([ramp(1024), ramp(1024)[:, ::-1]])
    known = {**KNOWN, "sizes": (1024, 1500)}
    save_codes(path, Codes(codes, **known))
    found = load_codes(path)
    assert np.array_equal(found.codes, codes)
    assert (found.codes.dtype, found.codes.shape) == (np.int64, (2, 5))
    facts = {key: getattr(found, key) for key in KNOWN}
    assert facts == (dict.fromkeys(KNOWN) if suffix == ".npy" else known)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_codes_give_the_same_bytes(tmp_path, suffix):
    for name in "ab":
        save_codes(tmp_path / f"{name}{suffix}", Codes(ramp(1024), **KNOWN))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("codebook_size", "dtype"),
    [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65_536, "uint16"), (65_537, "uint32")],
)
def test_the_smallest_type(tmp_path, suffix, codebook_size, dtype):
    path = tmp_path / f"c{suffix}"
    save_codes(path, Codes(ramp(codebook_size), sizes=(codebook_size,)))
    assert read_array_header(path)[1].dtype in (dtype, dtype.replace("uint", "U"))  # as safetensors spells it
    assert np.array_equal(load_codes(path).codes, ramp(codebook_size))


def test_the_type_is_that_of_the_codebook_not_of_the_codes(tmp_path):
    save_codes(tmp_path / "c.npy", Codes(ramp(7), sizes=(257,)))
    assert np.load(tmp_path / "c.npy").dtype == np.uint16


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("codebook_size", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_what_a_npy_holds_can_be_saved_again(tmp_path, suffix, codebook_size, dtype):
    np.save(tmp_path / "c.npy", ramp(codebook_size))
    save_codes(tmp_path / f"again{suffix}", load_codes(tmp_path / "c.npy"))
    again = load_codes(tmp_path / f"again{suffix}")
    assert np.array_equal(again.codes, ramp(codebook_size))
    assert again.sizes is None
    if suffix == ".npz":
        with np.load(tmp_path / "again.npz") as arrays:
            assert arrays.files == ["codes", "checksum"]  # and no keyword of numpy's among them
            assert arrays["codes"].dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_any_integers_are_codes_and_one_dimension_is_one_codebook(tmp_path, dtype):
    np.save(tmp_path / "c.npy", np.array([3, 1, 2], dtype))
    assert load_codes(tmp_path / "c.npy").codes.tolist() == [[3, 1, 2]]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 3, 4), np.uint16), r"shape \(2, 3, 4\), not \(Q, N\)"),
        (np.uint16(7), r"shape \(\)"),
        (np.zeros((1, 0), np.uint16), r"shape \(1, 0\)"),
        (np.zeros((1, 4), np.float32), "float32 values are not codes"),
        (np.zeros((1, 4), bool), "bool values are not codes"),
        (np.full((1, 4), -1), "negative codes"),
        (np.full((1, 4), 1 << 63, np.uint64), "negative codes"),  # beyond int64
        (np.array([{"a": 1}], object), "holds pickled objects"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_that_are_no_codes(tmp_path, array, reason, suffix):
    path = tmp_path / f"c{suffix}"
    if suffix == ".npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, codes=array)
    with pytest.raises(MelcodecError, match=rf"c\{suffix}: .*{reason}"):
        load_codes(path)


@pytest.mark.parametrize("read", [load_codes, read_array_header])
@pytest.mark.parametrize("name", ["c.npy", "c.npz"])
def test_pickles_are_named_only_where_they_are(tmp_path, read, name):
    path = tmp_path / name
    objects = io.BytesIO()
    np.savez(objects, codes=np.array([{}], object)) if name == "c.npz" else np.save(objects, np.array([{}], object))
    for content, reason in [
        (objects.getvalue(), "pickled objects"),
        (b"just a text\n" * 9, "not a numpy file"),
        (b"", "not a numpy file"),
        (pickle.dumps([1, 2]), "not a numpy file"),
    ]:
        path.write_bytes(content)
        with pytest.raises(MelcodecError, match=reason):
            read(path)


def damaged(path):
    """What can happen to a file: cut short, a bit of its data or of its header turned, members that are no arrays."""
    whole = path.read_bytes()
    middle = whole.index(b"}") + 60 if path.suffix == ".npy" else 40
    yield "cut", whole[: len(whole) // 2]
    yield "cut in the header", whole[:20]
    if path.suffix == ".npy":
        yield "an open bracket", whole.replace(b"(1, 4000)", b"(1, 4000[")
    yield "header", whole.replace(b"'descr'", b"'d\xff\xffcr'") if path.suffix == ".npy" else whole[:-15]
    if path.suffix == ".npz":
        yield "deflated", whole[:middle] + bytes(byte ^ 0xFF for byte in whole[middle : middle + 30]) + whole[middle + 30 :]
        text = io.BytesIO()
        with zipfile.ZipFile(text, "w") as members:
            members.writestr("codes", "not an array")
        yield "no arrays", text.getvalue()


@pytest.mark.parametrize("name", ["c.npy", "c.npz"])
def test_damage_is_one_error(tmp_path, name):
    path = tmp_path / name
    codes = np.arange(4000, dtype=np.uint16)[None]
    np.save(path, codes) if name == "c.npy" else np.savez_compressed(path, codes=codes)
    for kind, content in list(damaged(path)):
        path.write_bytes(content)
        with pytest.raises(MelcodecError, match=f"{name}: (damaged|not a numpy file)"):
            load_codes(path)
        if kind != "cut" or name == "c.npz":  # a .npy's header is whole when its data is not
            with pytest.raises(MelcodecError, match=f"{name}: (damaged|not a numpy file)"):
                read_array_header(path)


@pytest.mark.parametrize("read", [load_codes, read_array_header])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_files_and_folders(tmp_path, read, suffix):
    with pytest.raises(MelcodecError, match="no such file"):
        read(tmp_path / f"missing{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(MelcodecError, match="is a folder"):
        read(tmp_path / f"folder{suffix}")


@pytest.mark.parametrize("suffix", LATER)
def test_a_mel_is_no_codes_file(tmp_path, suffix):
    from melcodec.formats.mels import save_mel

    save_mel(tmp_path / f"m{suffix}", np.zeros((80, 3), np.float32))
    with pytest.raises(MelcodecError, match=r"holds .*mel.*, not codes"):
        load_codes(tmp_path / f"m{suffix}")


def test_another_suffix(tmp_path):
    for act in (load_codes, lambda path: save_codes(path, Codes(ramp(4)))):
        with pytest.raises(MelcodecError, match=r"'\.txt' is not a format for arrays") as error:
            act(tmp_path / "c.txt")
        assert "use one of .npy, .npz, .safetensors" in error.value.hint


def test_overwrite(tmp_path):
    save_codes(tmp_path / "c.npz", Codes(ramp(4)))
    with pytest.raises(MelcodecError, match="exists already"):
        save_codes(tmp_path / "c.npz", Codes(ramp(5)), overwrite=False)
    save_codes(tmp_path / "c.npz", Codes(ramp(5)))
    assert load_codes(tmp_path / "c.npz").codes.max() == 4


def test_a_header_is_read_without_its_array(tmp_path):
    """Ten hours of mel need no memory to be described."""
    with open(tmp_path / "big.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (80, 1 << 40)})
    assert read_array_header(tmp_path / "big.npy")[1].shape == (80, 1 << 40)
    with pytest.raises(MelcodecError, match="damaged"):
        load_codes(tmp_path / "big.npy")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_info_needs_no_torch(tmp_path, suffix):
    save_codes(tmp_path / f"c{suffix}", Codes(ramp(1024), **KNOWN))
    script = f"""
import json, sys
from melcodec.cli.info import describe
print(json.dumps(describe({str(tmp_path / f"c{suffix}")!r})))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"kind": "codes", "shape": [1, 5]' in done.stdout
    assert ('"fingerprint": "0123456789ab"' in done.stdout) == (suffix != ".npy")


@pytest.mark.parametrize("suffix", LATER)
def test_a_checksum_tells_changed_content(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    save_codes(path, Codes(ramp(256), **KNOWN))
    content = path.read_bytes()
    for changed in altered(path, tmp_path / "other.npz"):
        assert changed != content
        path.write_bytes(changed)
        with pytest.raises(MelcodecError, match="does not agree with its checksum") as caught:
            load_codes(path)
        assert caught.value.code == "damaged"


def altered(path, aside):
    """``path`` with another code, and with another fingerprint; zip's own checksums are right again."""
    if path.suffix == ".safetensors":
        content = path.read_bytes()
        yield content[:-2] + b"\xfe\x00"
        yield content.replace(b"0123456789ab", b"0123456789aa")
        return
    with np.load(path) as arrays:
        members = {name: arrays[name] for name in arrays.files}
    for change in ({"codes": members["codes"] ^ 1}, {"fingerprint": np.array("0123456789aa")}):
        np.savez(aside, **members | change)
        yield aside.read_bytes()


def test_files_without_a_checksum_still_load(tmp_path):
    from melcodec.formats.container import write_container

    write_container(tmp_path / "old.safetensors", {"codes": np.array([[1, 2]])}, {"kind": "codes", "codebook_size": 4})
    np.savez(tmp_path / "old.npz", codes=np.array([[1, 2]]), codebook_size=4)
    for suffix in LATER:
        found = load_codes(tmp_path / f"old{suffix}")
        assert (found.codes.tolist(), found.sizes) == ([[1, 2]], (4,))


def test_a_tensor_of_another_name(tmp_path):
    from melcodec.formats.container import write_container

    write_container(tmp_path / "c.safetensors", {"other": np.array([[1, 2]])}, {"kind": "codes"})
    with pytest.raises(MelcodecError, match="holds the tensors other, not codes"):
        load_codes(tmp_path / "c.safetensors")


def test_sizes_that_do_not_fit_the_codes(tmp_path):
    save_codes(tmp_path / "c.npz", Codes(ramp(7), sizes=(8, 8)))
    with pytest.raises(MelcodecError, match="1 rows of codes, but sizes of 2 codebooks"):
        load_codes(tmp_path / "c.npz")
