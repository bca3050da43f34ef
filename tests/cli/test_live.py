"""encode -o - and decode -o -: real processes, real pipes, and when things come."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, CompletedProcess

import numpy as np
import pytest
import soundfile

from melcodec.audio.io import load
from melcodec.codec import Codec
from tests import forked

PACE = 1_470  # samples at once: 67 ms, as a sound card gives them


@pytest.fixture(scope="module")
def codec(tiny_checkpoint):
    return Codec.from_pretrained(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def wav(examples) -> np.ndarray:
    return load(examples["lj_en"], 22_050)[:44_100]


@pytest.fixture(scope="module")
def speech(wav, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("live") / "speech.wav"
    soundfile.write(path, wav, 22_050, subtype="FLOAT")
    return path


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "melcodec", *map(str, args)]


def run(*args: object, stdin: bytes = b"", status: int = 0) -> CompletedProcess[bytes]:
    done = forked.run(command(*args), input=stdin, capture_output=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


@contextmanager
def started(*args: object, **streams: object) -> Iterator[forked.Popen]:
    with forked.Popen(command(*args), **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def codes_in(lines: bytes) -> np.ndarray:
    values = [json.loads(line) for line in lines.splitlines()]
    return np.concatenate([np.array(value["codes"]) for value in values if "codes" in value], axis=-1)


@pytest.mark.slow
def test_a_live_stream_gives_each_code_when_it_can(codec, wav, tiny_checkpoint):
    """A wav without an end, at the pace of a microphone. The times are those of this machine, whatever else it does."""
    header = io.BytesIO()
    soundfile.write(header, np.zeros(0, np.int16), 22_050, format="WAV", subtype="PCM_16")
    samples = np.round(wav * 32_768).clip(-32_768, 32_767).astype("<i2")
    fed, codes, late = 0, [], []

    def feed(stream):
        nonlocal fed
        for at in range(0, len(samples), PACE):
            time.sleep(PACE / 22_050)
            fed = at + PACE
            stream.write(samples[at : at + PACE].tobytes())
            stream.flush()
        stream.close()

    with started("encode", "-", "-o", "-", "-c", tiny_checkpoint, "--device", "cpu", stdin=PIPE, stdout=PIPE) as encoder:
        encoder.stdin.write(header.getvalue()[:40] + b"\xff\xff\xff\xff")
        encoder.stdin.flush()
        facts = json.loads(encoder.stdout.readline())  # it has loaded
        assert facts["fingerprint"] == codec.fingerprint
        feeder = threading.Thread(target=feed, args=(encoder.stdin,))
        feeder.start()
        for line in encoder.stdout:
            value = json.loads(line)
            for code in value.get("codes", [[]])[0]:
                late.append((fed - (1024 * len(codes) + 7_424)) / 22_050)  # seconds fed after its last sample
                codes.append(code)
        feeder.join()
        assert encoder.wait(60) == 0
    assert value == {"num_samples": len(samples)}
    assert np.array_equal(codes, codec.encode(samples.astype(np.float32) / 32_768)[0, 0])
    before_the_end = late[: (len(samples) - 7_424) // 1024]
    assert np.median(before_the_end) < 0.2, before_the_end  # a block of 67 ms, and the compute of a busy machine


@pytest.mark.slow
def test_raw_and_json_hold_the_codes_of_the_file(codec, speech, wav, tiny_checkpoint, tmp_path):
    expected = codec.encode(wav)[0].numpy()
    lines = run("encode", "-", "-o", "-", "-c", tiny_checkpoint, stdin=speech.read_bytes()).stdout
    assert np.array_equal(codes_in(lines), expected)
    raw = run("encode", speech, "-o", "-", "--to", "raw", "-c", tiny_checkpoint).stdout  # a file will do, too
    assert np.array_equal(np.frombuffer(raw, "<u2")[None], expected)
    run("decode", "-", "-o", tmp_path / "a.wav", "-c", tiny_checkpoint, stdin=lines)
    assert soundfile.info(tmp_path / "a.wav").frames == len(wav)
    assert not (tmp_path / "-").exists()


def test_samples_without_a_header(codec, wav, tiny_checkpoint):
    samples = np.round(wav[:20_000] * 32_767).astype("<i2")
    done = run("encode", "-", "-o", "-", "--input-rate", "16000", "-c", tiny_checkpoint, stdin=samples.tobytes())
    assert np.array_equal(codes_in(done.stdout), codec.encode(samples.astype(np.float32) / 32_768, 16_000)[0])


def test_compressed_sound_on_standard_input(codec, examples, tiny_checkpoint):
    path = examples["kathleen_en_48k_stereo"]
    done = run("encode", "-", "-o", "-", "-c", tiny_checkpoint, stdin=path.read_bytes())
    assert np.array_equal(codes_in(done.stdout), codec.encode_file(path).codes)


@pytest.mark.slow
def test_sound_comes_before_the_codes_end(codec, wav, tiny_checkpoint):
    codes = codec.encode(np.tile(wav, 2))[0, 0].numpy().astype("<u2")
    sure = len(codes) * 1024 - (7 * 4 + 64) * 256  # samples that need no further code
    with started("decode", "-", "--from", "raw", "-o", "-", "-c", tiny_checkpoint, stdin=PIPE, stdout=PIPE) as decoder:
        decoder.stdin.write(codes.tobytes())
        decoder.stdin.flush()
        begun = decoder.stdout.read(44 + 2 * sure)  # blocks for ever if they are held back
        assert begun.startswith(b"RIFF")
        decoder.stdin.close()
        whole = begun + decoder.stdout.read()
        assert decoder.wait(60) == 0
    sound, rate = soundfile.read(io.BytesIO(whole[:40] + (len(whole) - 44).to_bytes(4, "little") + whole[44:]))
    assert (len(sound), rate) == (len(codes) * 1024 - 256, 22_050)
    assert np.abs(sound).max() > 0.01


@pytest.mark.slow
def test_from_sound_to_sound(wav, speech, tiny_checkpoint, tmp_path):
    model = ["-c", str(tiny_checkpoint)]
    with (tmp_path / "out.wav").open("wb") as out, started("encode", speech, "-o", "-", *model, stdout=PIPE) as encoder:
        with started("decode", "-", "-o", "-", *model, stdin=encoder.stdout, stdout=out) as decoder:
            assert decoder.wait(120) == 0
        assert encoder.wait(120) == 0
    heard = load(tmp_path / "out.wav", 22_050)  # a header without a length, read by the same rules
    assert len(heard) == len(wav)
    again = run("encode", "-", "-o", "-", *model, stdin=(tmp_path / "out.wav").read_bytes())
    assert codes_in(again.stdout).shape == (1, len(wav) // 1024 + 1)


@pytest.mark.slow
def test_codes_that_were_cut_off_are_heard_and_named(speech, tiny_checkpoint):
    lines = run("encode", speech, "-o", "-", "-c", tiny_checkpoint).stdout
    cut = lines[: lines.rindex(b"\n", 0, -1) + 1]
    done = run("decode", "-", "-o", "-", "-c", tiny_checkpoint, stdin=cut, status=1)
    assert b"end before their last line" in done.stderr
    assert len(done.stdout) == 44 + 2 * (44 * 1024 - 256)


@pytest.mark.slow
def test_a_wav_that_ends_too_early_gives_its_codes_and_an_error(speech, tiny_checkpoint):
    done = run("encode", "-", "-o", "-", "-c", tiny_checkpoint, stdin=speech.read_bytes()[:-40_000], status=1)
    assert b"before the length that its header says" in done.stderr
    assert codes_in(done.stdout).shape[-1] > 20
    assert b"num_samples" not in done.stdout  # so that a decoder knows, too


@pytest.mark.slow
def test_codes_of_another_checkpoint_are_refused(tiny_checkpoint):
    lines = b'{"melcodec": "0", "fingerprint": "0123456789ab"}\n{"codes": [[1, 2]]}\n{"num_samples": 2000}\n'
    refused = run("decode", "-", "-o", "-", "-c", tiny_checkpoint, stdin=lines, status=1)
    assert b"made by checkpoint 0123456789ab" in refused.stderr
    run("decode", "-", "-o", "-", "-c", tiny_checkpoint, "--any-checkpoint", stdin=lines)


def test_refusals(refused, tmp_path, speech, tiny_checkpoint):
    model = ["-c", tiny_checkpoint]
    (tmp_path / "folder").mkdir()
    assert "-o - takes one file" in refused("encode", "folder", "-o", "-", *model)
    assert "-o - takes one file" in refused("encode", speech, speech, "-o", "-", *model)
    assert "-o - takes one file" in refused("encode", speech, "-o", "-", "--pad-to", 9, *model)
    assert "--input-rate is for raw samples" in refused("encode", speech, "-o", "-", "--input-rate", 16_000, *model)
    assert "--input-rate is for streams" in refused("encode", speech, "-o", "x.npy", "--input-rate", 16_000, *model)
    assert "--from is for codes on standard input" in refused("decode", "x.npy", "--from", "raw", *model)
    assert "--from tar: not a format" in refused("decode", "-", "--from", "tar", *model)
    assert "stream of sound" in refused("decode", "-", "--from", "raw", "-o", "-", "--to", "png", *model)
    assert "give a file with -o" in refused("decode", "-", "--from", "raw", *model)
    assert list(tmp_path.glob("-*")) == []
