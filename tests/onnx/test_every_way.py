"""melcodec's own promise: one sound has one row of codes, by whatever way it is encoded."""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch

from melcodec.audio.io import load
from melcodec.audio.mel import build_frontend
from melcodec.cli.main import main
from melcodec.codec import Codec
from melcodec.formats.checkpoint import load_checkpoint
from melcodec.streaming.encoder import StreamingEncoder
from tests.onnx.browsing import encoded_in_browser

CLIPS = ("lj_en", "nathalie_nl", "kerstin_de", "kathleen_en_48k_stereo")


class Given(NamedTuple):
    """One clip: its file, and what all ways must give."""

    path: Path
    wave: np.ndarray  # (S,) at the codec's rate
    codec: Codec
    checkpoint: Path
    others: list[np.ndarray]  # the waves of the other clips, of other lengths
    folder: Path  # to write to
    fixture: Callable[[str], Any]


def whole(given: Given) -> np.ndarray:
    return given.codec.encode(given.wave)[0].numpy()


def file(given: Given) -> np.ndarray:
    return given.codec.encode_file(given.path).codes


def other_rate(given: Given) -> np.ndarray:
    wave, rate = soundfile.read(given.path, dtype="float32", always_2d=True)
    return given.codec.encode(wave.mean(1), sample_rate=rate)[0].numpy()


def chunks(given: Given) -> np.ndarray:
    codec = Codec.from_checkpoint(load_checkpoint(given.checkpoint), "cpu")
    codec.chunk_codes = 5
    return codec.encode(given.wave)[0].numpy()


def batch(given: Given) -> np.ndarray:
    return given.codec.encode_many([given.wave, *given.others])[0].numpy()


def padded(given: Given) -> np.ndarray:
    mel, lengths = given.codec.mel_many([given.wave, *given.others])
    count = given.codec.num_codes(len(given.wave))
    return given.codec.encode_mel(mel, lengths)[0, :, :count].numpy()


def stream(given: Given) -> np.ndarray:
    encoder = StreamingEncoder(given.codec)
    blocks = [encoder.push(block) for block in np.array_split(given.wave, 23)]
    return torch.cat([*blocks, encoder.finish()], dim=-1)[0].numpy()


def command_line(given: Given, *words: str) -> np.ndarray:
    codes = given.folder / "codes.npz"
    run("encode", given.path, "-o", codes, "-c", given.checkpoint, "--device", "cpu", *words)
    with np.load(codes) as arrays:
        return arrays["codes"]


def standard_output(given: Given) -> np.ndarray:
    held = sys.stdout
    sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        run("encode", given.path, "-o", "-", "-c", given.checkpoint, "--device", "cpu")
        lines = sys.stdout.buffer.getvalue().splitlines()
    finally:
        sys.stdout = held
    blocks = [json.loads(line)["codes"] for line in lines if b'"codes":' in line]
    return np.concatenate([np.array(block) for block in blocks], axis=-1)


def store(given: Given) -> np.ndarray:
    from melcodec.store.reader import read_codes

    (given.folder / "in").mkdir()
    (given.folder / "in" / given.path.name).write_bytes(given.path.read_bytes())
    run("preprocess", given.folder / "in", "-o", given.folder / "store", "-c", given.checkpoint, "--device", "cpu")
    return read_codes(given.folder / "store", given.path.stem).codes


def onnx_runtime(given: Given) -> np.ndarray:
    from melcodec.onnx.runtime import OnnxCodec

    return OnnxCodec(given.fixture("exported")).encode_file(given.path).codes


def onnx_chunks(given: Given) -> np.ndarray:
    from melcodec.onnx.runtime import OnnxCodec

    return OnnxCodec(given.fixture("exported"), chunk_codes=5).encode_file(given.path).codes


def onnx_batch(given: Given) -> np.ndarray:
    from melcodec.onnx.runtime import OnnxCodec

    waves = [given.wave, *given.others]
    lengths = np.array([len(wave) for wave in waves])
    whole = np.stack([np.pad(wave, (0, lengths.max() - len(wave))) for wave in waves])
    return OnnxCodec(given.fixture("exported")).encode(whole, lengths)[0, :, : given.codec.num_codes(len(given.wave))]


def onnx_command_line(given: Given) -> np.ndarray:
    given = given._replace(checkpoint=given.fixture("exported"))
    return command_line(given, "--runtime", "onnx")


def transformers(given: Given) -> np.ndarray:
    pytest.importorskip("transformers", minversion="5.0")
    from melcodec import hf

    inputs = hf.MelcodecFeatureExtractor()([given.wave, *given.others], sampling_rate=given.codec.sample_rate)
    found = hf.MelcodecModel.from_checkpoint(given.checkpoint).encode(**inputs)
    return found.audio_codes[0, :, found.audio_codes_mask[0].bool()].numpy()


def compiled(given: Given) -> np.ndarray:
    pytest.importorskip("transformers", minversion="5.0")
    from melcodec import hf

    torch.compiler.reset()
    encode = torch.compile(hf.MelcodecModel.from_checkpoint(given.checkpoint).encode, fullgraph=True)
    return encode(torch.from_numpy(given.wave)[None]).audio_codes[0].numpy()


def browser(given: Given) -> np.ndarray:
    page, wav = given.fixture("page"), given.folder / "in.wav"
    samples, rate = soundfile.read(given.path, dtype="int16")
    soundfile.write(wav, samples, rate)
    return encoded_in_browser(page, wav)[0]


# the compiler warns of what it does not compile, and of itself
SLOW = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]
WAYS = [whole, file, other_rate, chunks, batch, padded, stream, command_line, standard_output]
WAYS += [onnx_runtime, onnx_chunks, onnx_batch, onnx_command_line, transformers]


def run(*words: object) -> None:
    """A command of melcodec in this process."""
    held, sys.argv = sys.argv, ["melcodec", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.argv = held


@pytest.fixture(scope="module")
def reference(tiny_checkpoint, examples) -> tuple[Codec, dict[str, np.ndarray], Callable[[str], np.ndarray]]:
    """The codec, the clips' waves, and their codes by one pass over mel and model, without any of the ways."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    codec, model = Codec.from_checkpoint(checkpoint, "cpu"), checkpoint.build()
    waves = {name: load(examples[name], codec.sample_rate) for name in CLIPS}

    @functools.cache
    def codes(name: str) -> np.ndarray:
        frontend = build_frontend(checkpoint.config.mel, checkpoint.mel_norms)
        with torch.no_grad():
            return model.encode(frontend.normalize(frontend(torch.from_numpy(waves[name])[None])))[0].numpy()

    return codec, waves, codes


@pytest.mark.parametrize(
    "way",
    [*WAYS, *(pytest.param(way, marks=SLOW) for way in (store, compiled, browser))],
    ids=lambda way: way.__name__,
)
def test_the_codes_are_the_same(way, reference, tiny_checkpoint, examples, tmp_path, request):
    codec, waves, codes = reference
    # a compiled graph takes a minute, and preprocess starts processes
    for name in CLIPS[:1] if way in (compiled, store) else CLIPS:
        folder = tmp_path / name
        folder.mkdir()
        others = [wave for other, wave in waves.items() if other != name]
        given = Given(examples[name], waves[name], codec, tiny_checkpoint, others, folder, request.getfixturevalue)
        assert np.array_equal(way(given), codes(name)), name
