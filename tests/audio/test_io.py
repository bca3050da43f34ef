"""Every kind of file that comes in, and everything that must be refused."""

import hashlib
import itertools
import os
import re
import socket
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import soundfile

from melcodec.audio.io import Span, StretchReader, find_audio, load, open_blocks, probe, read_blocks, save
from melcodec.errors import MelcodecError

RATE = 22_050


@pytest.fixture(scope="module")
def speech(golden):
    """One second of speech (S,) at 22.05 kHz."""
    return golden["0.wav"].reshape(-1)[:RATE].astype(np.float32)


def similarity(one, other):
    """Cosine of two waves, cut to the shorter one."""
    length = min(len(one), len(other))
    one, other = one[:length], other[:length]
    return one @ other / np.sqrt((one @ one) * (other @ other))


def refused(source, rate=RATE):
    """The MelcodecError that loading ``source`` raises."""
    with pytest.raises(MelcodecError) as caught:
        load(source, rate)
    assert "\n" not in caught.value.message
    return caught.value


# ---- what is read


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        (".wav", "PCM_U8", 8e-3),
        (".wav", "PCM_16", 2e-5),
        (".wav", "PCM_24", 1e-7),
        (".wav", "PCM_32", 1e-7),
        (".wav", "FLOAT", 0),
        (".wav", "DOUBLE", 0),
        (".flac", "PCM_16", 2e-5),
        (".flac", "PCM_24", 1e-7),
        (".aiff", "PCM_24", 1e-7),
        (".au", "FLOAT", 0),
        (".caf", "PCM_16", 2e-5),
        (".w64", "PCM_16", 2e-5),
        (".rf64", "PCM_16", 2e-5),
    ],
)
def test_lossless_formats(tmp_path, speech, suffix, subtype, error):
    path = tmp_path / f"in{suffix}"
    soundfile.write(path, speech, RATE, subtype=subtype)
    info, wav = probe(path), load(path, RATE)
    assert (info.sample_rate, info.channels, info.num_samples, info.subtype) == (RATE, 1, len(speech), subtype)
    assert info.seconds == 1.0
    assert wav.dtype == np.float32
    np.testing.assert_allclose(wav, speech, atol=error, rtol=0)


@pytest.mark.parametrize(
    ("suffix", "options", "rate", "least"),
    [
        (".mp3", {}, RATE, 0.98),
        (".ogg", {"subtype": "VORBIS"}, RATE, 0.98),
        (".oga", {"format": "OGG", "subtype": "VORBIS"}, RATE, 0.98),
        (".opus", {"format": "OGG", "subtype": "OPUS"}, 24_000, 0.9),
        (".WAV", {"format": "WAV"}, RATE, 0.999),
    ],
)
def test_lossy_formats_and_capital_suffixes(tmp_path, speech, suffix, options, rate, least):
    path = tmp_path / f"in{suffix}"
    soundfile.write(path, speech, rate, **options)
    wav = load(path, rate)
    assert abs(len(wav) - len(speech)) <= 2304  # mp3 pads to whole frames
    assert similarity(wav, speech) > least


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_rates(tmp_path, rate):
    path = tmp_path / "in.wav"
    seconds = 0.5
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, tone, rate, subtype="FLOAT")
    wav = load(path, RATE)
    assert len(wav) == -(-len(tone) * RATE // rate)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(wav)) / RATE)
    inside = slice(200, -200)  # the filter rings at both ends
    np.testing.assert_allclose(wav[inside], expected[inside], atol=6e-3)


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_channels_are_averaged(tmp_path, speech, channels):
    path = tmp_path / "in.wav"
    gains = np.linspace(1.0, 0.1, channels, dtype=np.float32)
    soundfile.write(path, speech[:, None] * gains, RATE, subtype="FLOAT")
    np.testing.assert_allclose(load(path, RATE), speech * gains.mean(), atol=1e-6)


def test_the_stereo_example_is_its_mean(examples):
    path = examples["kathleen_en_48k_stereo"]
    assert (probe(path).sample_rate, probe(path).channels) == (48_000, 2)
    both, rate = soundfile.read(path, dtype="float32")
    assert np.abs(both[:, 0] - both[:, 1]).max() > 0.05
    np.testing.assert_allclose(load(path, rate), both.mean(axis=1), atol=1e-7)


def test_too_loud_samples_are_clipped_and_others_left_alone(tmp_path, speech):
    path = tmp_path / "in.wav"
    soundfile.write(path, speech * 10, RATE, subtype="FLOAT")
    assert np.abs(speech * 10).max() > 1
    np.testing.assert_array_equal(load(path, RATE), np.clip(speech * np.float32(10), -1, 1))
    quiet = tmp_path / "quiet.wav"
    soundfile.write(quiet, speech * 1e-3, RATE, subtype="FLOAT")
    assert np.abs(load(quiet, RATE)).max() == np.abs(speech * np.float32(1e-3)).max()


def test_a_single_sample_and_clips_shorter_than_the_filter(tmp_path):
    for length in (1, 2, 7):
        path = tmp_path / f"{length}.wav"
        soundfile.write(path, np.full(length, 0.25), 48_000)
        assert len(load(path, RATE)) == -(-length * RATE // 48_000)


READ = """
import hashlib, sys
from melcodec.audio.io import load
wav = load(sys.argv[1], 22050)
print(len(wav), hashlib.sha256(wav.tobytes()).hexdigest())
"""


def test_standard_input_and_pipes_give_what_the_file_gives(examples, tmp_path):
    path = examples["lj_en"]
    wav = load(path, RATE)
    expected = f"{len(wav)} {hashlib.sha256(wav.tobytes()).hexdigest()}\n"
    command = [sys.executable, "-W", "error", "-c", READ]
    piped = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
    done = subprocess.run([*command, "-"], stdin=piped.stdout, capture_output=True, text=True, check=True)
    piped.stdout.close()
    assert (piped.wait(), done.stdout) == (0, expected)

    fifo = tmp_path / "fifo.flac"
    os.mkfifo(fifo)
    reader = subprocess.Popen([*command, fifo], stdout=subprocess.PIPE, text=True)
    fifo.write_bytes(path.read_bytes())
    assert reader.communicate(timeout=60)[0] == expected


def test_empty_standard_input(run_python):
    script = "from melcodec.audio.io import load\ntry: load('-', 22050)\nexcept Exception as e: print(type(e).__name__, e)"
    done = subprocess.run([sys.executable, "-c", script], input=b"", capture_output=True, check=True)
    assert done.stdout.decode().strip() == "MelcodecError standard input: is empty"


def test_open_blocks_tells_the_header_and_streams(examples):
    with open_blocks(examples["kathleen_en_48k_stereo"], RATE) as (info, blocks):
        assert (info.sample_rate, info.channels) == (48_000, 2)
        wav = np.concatenate(list(blocks))
    np.testing.assert_array_equal(wav, load(examples["kathleen_en_48k_stereo"], RATE))


def test_blocks_do_not_change_the_sound(tmp_path, speech, monkeypatch):
    path = tmp_path / "in.flac"
    soundfile.write(path, np.tile(speech, 3), 24_000)
    whole = load(path, RATE)
    monkeypatch.setattr("melcodec.audio.base.READ_FRAMES", 1_001)
    blocks = list(read_blocks(path, 24_000))
    assert len(blocks) == -(-3 * len(speech) // 1_001)
    np.testing.assert_array_equal(load(path, RATE), whole)


@pytest.mark.parametrize("quality", [0.1, 0.9])
def test_blocks_of_mp3_do_not_click(tmp_path, speech, monkeypatch, quality, capfd):
    """soundfile 0.14 seeks after every read, and libsndfile's mp3 decoder loses its bit reservoir and says so on stderr."""
    path = tmp_path / "in.mp3"
    options = {"bitrate_mode": "VARIABLE", "compression_level": quality}
    with soundfile.SoundFile(path, "w", 44_100, 1, **options) as file:
        file.write(np.tile(speech, 2))
    whole = load(path, 44_100)
    monkeypatch.setattr("melcodec.audio.base.READ_FRAMES", 1_001)
    np.testing.assert_array_equal(load(path, 44_100), whole)
    assert capfd.readouterr().err == ""


PEAK = """
import resource, sys
from melcodec.audio.io import read_blocks
count = lambda path: sum(map(len, read_blocks(path, 22050)))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
count(sys.argv[1])
before = peak()
print(count(sys.argv[2]), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts KiB on Linux alone")
def test_memory_is_bounded(tmp_path, run_python):
    """Half an hour is 159 MB of float32 at 22.05 kHz; reading it may cost little more than two minutes do."""
    minute = (np.random.default_rng(0).integers(-2, 3, 60 * 16_000)).astype(np.int16)
    for name, minutes in (("short.flac", 2), ("long.flac", 30)):
        with soundfile.SoundFile(tmp_path / name, "w", 16_000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
    samples, grown = map(int, run_python(PEAK, tmp_path / "short.flac", tmp_path / "long.flac").split())
    assert samples == 30 * 60 * RATE
    assert grown < 32, f"{grown} MiB"


# ---- folders


def test_find_audio(tmp_path):
    names = ["b.wav", "a/ünï 码 x.FLAC", "a/b c/d.mp3", "a.b/e.m4a", "z.opus"]
    others = [".hidden.wav", ".git/x.wav", "a/.cache/y.wav", "notes.txt", "a/codes.npy", "wav", "a/._b.wav"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    assert find_audio(tmp_path) == sorted(tmp_path / name for name in names)


def test_find_audio_follows_links_but_not_in_circles(tmp_path):
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    for path in (corpus / "a" / "1.wav", elsewhere / "2.wav"):
        path.parent.mkdir(parents=True)
        path.touch()
    (corpus / "linked").symlink_to(elsewhere)
    (corpus / "self").symlink_to(corpus)
    (corpus / "a" / "up").symlink_to(tmp_path)
    (elsewhere / "back").symlink_to(corpus / "a")  # corpus/linked/back/more/back/more ...
    (corpus / "a" / "more").symlink_to(elsewhere)
    found = [str(path.relative_to(corpus)) for path in find_audio(corpus)]
    assert found == ["a/1.wav", "a/more/2.wav", "linked/2.wav", "linked/back/1.wav"]


def test_find_audio_lists_what_can_be_a_file(tmp_path):
    """A pipe would keep whoever opens it waiting; a link that leads nowhere is for the reader to complain about."""
    (tmp_path / "file.wav").touch()
    (tmp_path / "link.wav").symlink_to("file.wav")
    (tmp_path / "broken.wav").symlink_to("nowhere.wav")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link to pipe.wav").symlink_to("pipe.wav")
    (tmp_path / "device.wav").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket.wav" if sys.platform == "linux" else str(tmp_path / "socket.wav"))
        os.close(here)
        found = [path.name for path in find_audio(tmp_path)]
    assert found == ["broken.wav", "circle.wav", "file.wav", "link.wav"]


@pytest.mark.parametrize("name", [b"b\xe4d \xff.wav", b"\xff.flac", b"\xff.opus", b"\xff.mp3"])
def test_a_name_that_is_not_utf8_is_read(tmp_path, speech, name):
    path = tmp_path / os.fsdecode(name)
    plain = encoded(tmp_path / f"plain{path.suffix}", speech, 24_000)
    try:
        plain.rename(path)
    except OSError:
        pytest.skip("this file system has no such names")
    (found,) = find_audio(tmp_path)
    assert os.fsencode(found.name) == name
    assert probe(found).sample_rate == 24_000
    assert similarity(load(found, 24_000), speech) > 0.9
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(found).message.startswith(f"{path}: ")
    if path.suffix != ".opus":
        save(found, speech, RATE)
        assert similarity(load(found, RATE), speech) > 0.9


def test_a_name_that_is_not_utf8_is_read_with_pyav(tmp_path, speech):
    path = tmp_path / os.fsdecode(b"\xff.m4a")
    write_with_pyav(pytest.importorskip("av"), tmp_path / "in.m4a", "aac", speech, RATE)
    wav = load(tmp_path / "in.m4a", RATE)
    try:
        (tmp_path / "in.m4a").rename(path)
    except OSError:
        pytest.skip("this file system has no such names")
    np.testing.assert_array_equal(load(path, RATE), wav)


def test_an_unusual_name_is_read(tmp_path, speech):
    path = tmp_path / "ein Wört, 一句话 $x.wav"
    soundfile.write(path, speech, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(load(path, RATE), speech)
    np.testing.assert_array_equal(load(str(path), RATE), speech)


# ---- what is refused


def test_missing_empty_folder_and_broken_link(tmp_path):
    assert refused(tmp_path / "no.wav").message == f"{tmp_path / 'no.wav'}: no such file"
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    assert refused(tmp_path / "link.wav").message.endswith("no such file")
    (tmp_path / "empty.wav").touch()
    assert refused(tmp_path / "empty.wav").message.endswith("the file is empty")
    assert refused(tmp_path).message.endswith("is a folder, not a file")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.opus"])
def test_text_and_bare_headers(tmp_path, name, speech):
    path = tmp_path / name
    path.write_text("These are the times that try men's souls.\n")
    error = refused(path)
    assert error.message.startswith(f"{path}: not readable as audio")
    assert "not a regular file" not in error.message  # what libsndfile says of an mp3
    assert error.hint
    with pytest.raises(MelcodecError, match="not readable as audio"):
        probe(path)


@pytest.mark.parametrize("length", [1, 4, 12, 20, 36, 43])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_truncated_header(tmp_path, speech, suffix, length):
    path = tmp_path / f"in{suffix}"
    soundfile.write(path, speech, RATE)
    path.write_bytes(path.read_bytes()[:length])
    assert str(path) in refused(path).message


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".aiff", ".au", ".caf"])
def test_a_truncated_file(tmp_path, speech, suffix):
    path = tmp_path / f"in{suffix}"
    soundfile.write(path, speech, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = refused(path).message
    assert message.startswith(f"{path}: "), message
    assert "damaged" in message or "truncated" in message or "malformed" in message


@pytest.mark.parametrize("promised", [0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000, 2 * RATE + 8])
def test_headers_of_streams_and_of_sloppy_programs_are_forgiven(tmp_path, speech, promised):
    path = tmp_path / "in.wav"
    soundfile.write(path, speech, RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    assert content[36:40] == b"data"
    content[40:44] = promised.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(load(path, RATE)) == len(speech)


def test_a_damaged_flac(tmp_path, speech):
    path = tmp_path / "in.flac"
    soundfile.write(path, np.tile(speech, 4), RATE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    assert refused(path).message.startswith(f"{path}: ")


def test_no_samples(tmp_path):
    for suffix in (".wav", ".aiff"):
        path = tmp_path / f"none{suffix}"
        soundfile.write(path, np.empty(0), RATE)
        assert refused(path).message == f"{path}: holds no samples"
        assert refused(path, 16_000).message == f"{path}: holds no samples"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_nan_and_infinity_are_refused_and_placed(tmp_path, bad, channels):
    wav = np.zeros((3 * RATE, channels), np.float32)
    wav[2 * RATE, -1] = bad
    path = tmp_path / "in.wav"
    soundfile.write(path, wav, RATE, subtype="FLOAT")
    assert refused(path).message == f"{path}: NaN or infinity at 2.000 s"


def test_too_many_channels(tmp_path):
    path = tmp_path / "nine.wav"
    soundfile.write(path, np.zeros((100, 9)), RATE)
    assert "9 channels" in refused(path).message


@pytest.mark.parametrize("rate", [1_000, 3_999, 192_001, 384_000])
def test_rates_outside_the_range(tmp_path, rate):
    path = tmp_path / "in.wav"
    soundfile.write(path, np.zeros(100), rate)
    assert f"{rate} Hz is not between 4000 and 192000 Hz" in refused(path).message


def test_a_rate_without_a_simple_ratio_is_read(tmp_path, speech):
    path = tmp_path / "in.wav"
    soundfile.write(path, speech, 44_056)
    assert len(load(path, RATE)) == -(-len(speech) * RATE // 44_056)


@pytest.mark.parametrize("scale", [2**15, 2**23, 20 / 0.4])
def test_integers_written_as_floats_are_refused(tmp_path, speech, scale):
    path = tmp_path / "in.wav"
    soundfile.write(path, speech * scale, RATE, subtype="FLOAT")
    error = refused(path)
    assert "full scale is 1, and values above 16 are refused" in error.message
    assert re.search(r"a sample of -?\d+(\.\d+)?(e\+\d+)? at 0\.\d{3} s", error.message), error.message
    assert "divide them by 32768" in error.hint
    assert error.code == "unreadable"


# ---- formats of the extra


def test_m4a_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "in.m4a"
    path.write_bytes(b"\0" * 100)
    error = refused(path)
    assert "'.m4a' needs an optional package" in error.message
    assert "melcodec[av]" in error.hint


@pytest.fixture
def av():
    return pytest.importorskip("av")


@pytest.mark.parametrize(("suffix", "codec"), [(".m4a", "aac"), (".webm", "libopus"), (".mka", "flac")])
def test_m4a_and_others_with_pyav(av, tmp_path, speech, suffix, codec):
    rate = 48_000
    path = tmp_path / f"in{suffix}"
    quiet = np.stack([speech, 0.5 * speech])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="stereo", rate=rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(quiet), format="fltp", layout="stereo")
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(part)
        size = stream.codec_context.frame_size or 960
        while (part := fifo.read(size, partial=True)) is not None:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    info = probe(path)
    assert (info.sample_rate, info.channels) == (rate, 2)
    wav = load(path, rate)
    assert abs(len(wav) - len(speech)) < 2048
    delay = len(wav) - len(speech)
    best = max(similarity(wav[max(0, shift) :], 0.75 * speech) for shift in {0, delay, 312, 1024})
    assert best > 0.95
    gain = np.sqrt((wav @ wav) / (speech @ speech))
    assert gain == pytest.approx(0.75, abs=0.03)  # the mean of the channels


def test_bad_files_with_pyav(av, tmp_path):
    text = tmp_path / "text.m4a"
    text.write_text("not sound at all, only letters\n" * 10)
    assert refused(text).message.startswith(f"{text}: not readable as audio")
    silent = tmp_path / "picture.mkv"
    with av.open(str(silent), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refused(silent).message == f"{silent}: holds no audio stream"


# ---- what is written


@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "PCM_16"), (".flac", "PCM_16"), (".ogg", "VORBIS"), (".mp3", None)])
def test_save_and_load(tmp_path, speech, suffix, subtype):
    path = tmp_path / "new" / f"out{suffix}"
    save(path, speech, RATE)
    info = probe(path)
    assert info.sample_rate == RATE
    assert subtype in (None, info.subtype)
    assert similarity(load(path, RATE), speech) > 0.98


def test_minutes_at_once_become_ogg(tmp_path, run_python):
    """libsndfile 1.2.2 dies of a million samples in one write; in a process of its own, because it takes pytest with it."""
    script = (
        "import sys; from pathlib import Path; import numpy as np; from melcodec.audio.io import save\n"
        "save(Path(sys.argv[1]), np.random.default_rng(0).uniform(-0.1, 0.1, 3_000_000).astype(np.float32), 22_050)"
    )
    run_python(script, tmp_path / "long.ogg")
    assert probe(tmp_path / "long.ogg").num_samples == 3_000_000


def test_save_clips_instead_of_wrapping_around(tmp_path):
    save(tmp_path / "out.wav", np.array([1.5, -1.5, 0.5], np.float32), RATE)
    wav = load(tmp_path / "out.wav", RATE)
    np.testing.assert_allclose(wav, [1, -1, 0.5], atol=1e-4)


def test_save_refuses(tmp_path, speech):
    with pytest.raises(MelcodecError, match=r"cannot write '\.xyz' sound"):
        save(tmp_path / "out.xyz", speech, RATE)
    path = tmp_path / "out.wav"
    path.write_bytes(b"precious")
    with pytest.raises(MelcodecError, match="exists already"):
        save(path, speech, RATE, overwrite=False)
    assert path.read_bytes() == b"precious"
    save(path, speech, RATE)
    assert probe(path).num_samples == RATE
    assert [item.name for item in tmp_path.iterdir()] == ["out.wav"]


# ---- stretches, members of archives, URLs


def encoded(path, wav, rate):
    """``wav`` (S,) at ``path`` in the format of its suffix, as in a long recording."""
    options = {".ogg": {"subtype": "VORBIS"}, ".opus": {"format": "OGG", "subtype": "OPUS"}}.get(path.suffix, {})
    with soundfile.SoundFile(path, "w", rate, 1, **options) as file:
        for start in range(0, len(wav), 65_536):
            file.write(wav[start : start + 65_536])
    return path


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".opus"])
def test_a_stretch_is_that_slice_of_the_whole(tmp_path, golden, suffix, rate):
    wav = np.tile(golden["1.wav"].reshape(-1).astype(np.float32), 4)
    path = encoded(tmp_path / f"in{suffix}", wav, rate)
    whole = load(path, rate)
    seconds = len(whole) / rate
    rng = np.random.default_rng(0)
    stretches = [(0.0, 0.5), (0.0, None), (1.0, None), (seconds - 0.25, None)]
    stretches += [(start, rng.uniform(0.001, 1.5)) for start in rng.uniform(0, seconds - 1.5, 6)]
    for start, duration in stretches:
        stop = None if duration is None else round((start + duration) * rate)
        expected = whole[round(start * rate) : stop]
        np.testing.assert_array_equal(load(path, rate, Span(start, duration)), expected)
        # at another rate the stretch is resampled alone: what lies beside it is not heard
        save = tmp_path / "cut.wav"
        soundfile.write(save, expected, rate, subtype="FLOAT")
        np.testing.assert_array_equal(load(path, RATE, Span(start, duration)), load(save, RATE))


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".mp3", ".m4a"])
def test_one_stretch_after_another(tmp_path, golden, suffix):
    wav = golden["1.wav"].reshape(-1).astype(np.float32)
    path, other = tmp_path / f"in{suffix}", encoded(tmp_path / "other.mp3", wav[::-1], RATE)
    if suffix == ".m4a":
        write_with_pyav(pytest.importorskip("av"), path, "aac", wav, RATE)
    else:
        encoded(path, wav, RATE)
    # forward, gaps, overlaps, back, another file, and again after something that was refused
    stretches = [(path, *at) for at in [(0.0, 0.3), (0.3, 0.2), (0.9, 0.1), (0.95, 0.3), (0.1, 0.2), (0.3, None), (0.0, None)]]
    stretches += [(other, 0.2, 0.1), (path, 0.3, 0.1), (path, 0.5, 99.0), (path, 0.5, 0.1)]
    reader = StretchReader()
    for source, start, duration in stretches:
        span = Span(start, duration)
        if duration == 99.0:
            with pytest.raises(MelcodecError, match="past the end"):
                list(reader.read_blocks(source, RATE, span))
        else:
            np.testing.assert_array_equal(np.concatenate(list(reader.read_blocks(source, RATE, span))), load(source, RATE, span))
    reader.close()


def test_one_member_after_another(tmp_path, golden):
    wav = golden["1.wav"].reshape(-1).astype(np.float32)
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(encoded(tmp_path / "a.mp3", wav, RATE), "a.mp3")
        archive.add(encoded(tmp_path / "b.mp3", wav[::-1], RATE), "b.mp3")
    reader = StretchReader()
    for start, member in enumerate(["a.mp3", "b.mp3", "a.mp3"]):
        span = Span(0.3 * start, 0.2)
        blocks = list(reader.read_blocks(tmp_path / "shard.tar", RATE, span, member))
        np.testing.assert_array_equal(np.concatenate(blocks), load(tmp_path / member, RATE, span))
    reader.close()


def test_a_long_mp3_is_decoded_once(tmp_path, monkeypatch):
    path = encoded(tmp_path / "long.mp3", np.zeros(60 * RATE, np.float32), RATE)
    read, frames = soundfile.SoundFile.read, []

    def counted(file, *args, **kwargs):
        block = read(file, *args, **kwargs)
        frames.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    reader = StretchReader()
    for start in range(0, 60, 2):
        assert sum(map(len, reader.read_blocks(path, RATE, Span(start, 1.0)))) == RATE
    reader.close()
    assert 58 * RATE < sum(frames) <= 60 * RATE


def test_stretches_that_touch_share_no_sample_and_lose_none(tmp_path, speech):
    path = tmp_path / "in.wav"
    soundfile.write(path, speech, RATE, subtype="FLOAT")
    cuts = [0.0, 0.1, 0.3333, 0.33341, 0.7, 1.0]
    parts = [load(path, RATE, Span(start, stop - start)) for start, stop in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), speech)


def test_a_stretch_is_sought_not_read_through(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
        for minute in range(30):
            file.write(np.full(60 * 16_000, minute * 100, np.int16))
    damaged = bytearray(path.read_bytes())
    with open_blocks(path, 16_000, Span(29 * 60 + 30, 1.0)) as (info, blocks):
        assert info.num_samples == 30 * 60 * 16_000
        assert np.concatenate(list(blocks)).tolist() == [np.float32(2900 / 32768)] * 16_000
    assert len(damaged) > 50_000_000
    start = time.perf_counter()
    load(path, 16_000, Span(29 * 60 + 30, 1.0))
    late = time.perf_counter() - start
    start = time.perf_counter()
    load(path, 16_000)
    assert late < (time.perf_counter() - start) / 3


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a"])
def test_a_stretch_past_the_end(tmp_path, speech, suffix):
    path = tmp_path / f"in{suffix}"
    if suffix == ".m4a":
        write_with_pyav(pytest.importorskip("av"), path, "aac", speech, RATE)
    else:
        soundfile.write(path, speech, RATE)
    whole = load(path, RATE)
    seconds = len(whole) / RATE
    np.testing.assert_array_equal(load(path, RATE, Span(0.5, seconds - 0.5 + 0.045)), whole[RATE // 2 :])
    for span, said in [
        (Span(0.5, seconds - 0.5 + 0.06), f"0.50 .. {seconds + 0.06:.2f} s"),
        (Span(0.5, 60), "0.50 .. 60.50 s"),
        (Span(2.5, None), "2.50 .. end"),
        (Span(seconds + 0.01, 0.02), f"{seconds + 0.01:.2f} .. "),
    ]:
        with pytest.raises(MelcodecError) as caught:
            load(path, RATE, span)
        assert caught.value.message.startswith(f"{path}: the segment {said}")
        assert f"past the end at {seconds:.2f} s" in caught.value.message


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (Span(0.5, 0.0), "the segment 0.50 .. 0.50 s holds no samples"),
        (Span(0.5, 1e-6), "holds no samples"),
        (Span(0.5, -0.1), "holds no samples"),
        (Span(-0.1, 0.5), "-0.1 + 0.5 s is not a segment of a file"),
        (Span(float("nan"), 0.5), "is not a segment"),
        (Span(0.0, float("inf")), "is not a segment"),
    ],
)
def test_no_stretch_at_all(tmp_path, speech, span, said):
    path = tmp_path / "in.wav"
    soundfile.write(path, speech, RATE)
    with pytest.raises(MelcodecError) as caught:
        load(path, RATE, span)
    assert caught.value.message.startswith(f"{path}: ")
    assert said in caught.value.message


@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_nan_in_a_stretch_is_placed_in_the_file_and_elsewhere_does_no_harm(tmp_path, suffix):
    wav = np.zeros(3 * RATE, np.float32)
    wav[2 * RATE] = np.nan
    path = tmp_path / "in.wav"
    soundfile.write(path, wav, RATE, subtype="FLOAT")
    with pytest.raises(MelcodecError, match=r"NaN or infinity at 2\.000 s"):
        load(path, RATE, Span(1.5, 1.0))
    assert len(load(path, RATE, Span(0.5, 1.0))) == RATE


def test_damage_with_pyav_is_placed_and_what_is_before_it_can_be_had(av, tmp_path, golden):
    path = tmp_path / "in.m4a"
    write_with_pyav(av, path, "aac", np.tile(golden["1.wav"], 4), RATE)
    whole, content = load(path, RATE), bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(content)
    with open_blocks(path, RATE, keep=True) as (_, blocks):
        kept = np.concatenate(list(blocks))
    assert 0.4 < len(kept) / len(whole) < 0.6
    np.testing.assert_array_equal(kept, whole[: len(kept)])
    assert f"damaged after {len(kept) / RATE:.2f} s (" in refused(path).message


def write_with_pyav(av, path, codec, wav, rate):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(wav[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        fifo.write(frame)
        while (part := fifo.read(stream.codec_context.frame_size or 960, partial=True)) is not None:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def test_a_stretch_with_pyav(av, tmp_path, golden):
    path = tmp_path / "in.m4a"
    write_with_pyav(av, path, "aac", golden["1.wav"].reshape(-1).astype(np.float32), RATE)
    whole = load(path, RATE)
    for start, duration in [(0.0, 0.5), (0.7, 0.6), (1.0, None)]:
        stop = None if duration is None else round((start + duration) * RATE)
        np.testing.assert_array_equal(load(path, RATE, Span(start, duration)), whole[round(start * RATE) : stop])


@pytest.fixture
def shard(tmp_path, speech):
    """A function that packs speech as a.wav, b/c.flac and d.mp3 into a tar archive."""

    def pack(name="shard.tar", mode="w"):
        for inner in ("a.wav", "b/c.flac", "d.mp3"):
            (tmp_path / "in" / inner).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "in" / inner, speech, RATE)
        with tarfile.open(tmp_path / name, mode) as archive:
            archive.add(tmp_path / "in", ".", filter=lambda entry: entry)
            for inner in ("a.wav", "b/c.flac", "d.mp3"):
                archive.add(tmp_path / "in" / inner, inner)
        return tmp_path / name

    return pack


@pytest.mark.parametrize(("name", "mode"), [("shard.tar", "w"), ("shard.tar.gz", "w:gz"), ("shard.tar.xz", "w:xz")])
def test_members_of_archives(shard, tmp_path, name, mode):
    path = shard(name, mode)
    for inner in ("a.wav", "b/c.flac", "d.mp3"):
        whole = load(tmp_path / "in" / inner, RATE)
        np.testing.assert_array_equal(load(path, RATE, member=inner), whole)
        np.testing.assert_array_equal(
            load(str(path), RATE, Span(0.25, 0.5), inner), whole[round(0.25 * RATE) : round(0.75 * RATE)]
        )
    with open_blocks(path, RATE, member="b/c.flac") as (info, _):
        assert (info.path, info.format) == (f"{path}: b/c.flac", "FLAC")


def test_a_member_of_a_format_of_the_extra(av, tmp_path, speech):
    write_with_pyav(av, tmp_path / "in.m4a", "aac", speech, RATE)
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(tmp_path / "in.m4a", "x.m4a")
    np.testing.assert_array_equal(load(tmp_path / "shard.tar", RATE, member="x.m4a"), load(tmp_path / "in.m4a", RATE))


def test_a_changed_archive_is_read_anew(shard, tmp_path, speech):
    path = shard()
    load(path, RATE, member="a.wav")
    soundfile.write(tmp_path / "in" / "a.wav", speech[:5000], RATE)
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "in" / "d.mp3", "d.mp3")
        archive.add(tmp_path / "in" / "a.wav", "a.wav")
    assert len(load(path, RATE, member="a.wav")) == 5000


def test_archives_and_members_that_are_refused(shard, tmp_path):
    path = shard()
    for member in ("no.wav", "b"):
        with pytest.raises(MelcodecError) as caught:
            load(path, RATE, member=member)
        assert caught.value.message == f"{path}: holds no file '{member}'"
    with pytest.raises(MelcodecError, match=r"gone\.tar: no such file"):
        load(tmp_path / "gone.tar", RATE, member="a.wav")
    for name, content in (("text.tar", b"words " * 500), ("cut.tar", path.read_bytes()[:9000])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MelcodecError) as caught:
            load(tmp_path / name, RATE, member="a.wav")
        assert str(tmp_path / name) in caught.value.message
    whole = shard("shard.tar.gz", "w:gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MelcodecError, match=r"cut\.tar\.gz: not readable as a tar archive"):
        load(tmp_path / "cut.tar.gz", RATE, member="a.wav")


def test_urls(shard, tmp_path, speech):
    path = tmp_path / "in.flac"
    soundfile.write(path, speech, RATE)
    np.testing.assert_array_equal(load(path.as_uri(), RATE), load(path, RATE))
    np.testing.assert_array_equal(load(path.as_uri(), RATE, Span(0.5, 0.25)), load(path, RATE, Span(0.5, 0.25)))
    assert probe(path.as_uri()).num_samples == RATE
    np.testing.assert_array_equal(load(shard().as_uri(), RATE, member="a.wav"), load(tmp_path / "in" / "a.wav", RATE))


def test_urls_that_are_refused(tmp_path, monkeypatch):
    for url in ((tmp_path / "no.wav").as_uri(), "nonsense://bucket/a.wav"):
        assert refused(url).message.startswith(f"{url}: cannot be read (")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    error = refused("s3://bucket/a.wav")
    assert error.message == "s3://bucket/a.wav: reading a URL needs an optional package"
    assert error.hint == "pip install 'melcodec[remote]'"


def test_a_host_that_is_not_reached_is_said(tmp_path):
    pytest.importorskip("aiohttp")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
        message = refused(f"http://127.0.0.1:{port}/a.wav").message
    assert "FileNotFoundError" not in message
    assert re.search(rf"a\.wav: cannot be read \(Client\w+: Cannot connect to host 127\.0\.0\.1:{port}", message), message
    # of a file that is not there fsspec's own words are right
    assert "(FileNotFoundError: " in refused((tmp_path / "no.wav").as_uri()).message
