"""Files that end too early are told from whole ones, whoever wrote them, and what is there of them can be had."""

import io
import os
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
import soundfile

from melcodec.audio import base
from melcodec.audio.io import WHOLE, Span, load, open_blocks
from melcodec.audio.survey import survey
from melcodec.errors import MelcodecError

RATE = 16_000
SOUNDFILE = {
    "in.wav": {},
    "in.flac": {},
    "in.opus": {"format": "OGG", "subtype": "OPUS"},
    "in.ogg": {"subtype": "VORBIS"},
    "constant.mp3": {"bitrate_mode": "CONSTANT"},
    "average.mp3": {"bitrate_mode": "AVERAGE"},
    "variable.mp3": {"bitrate_mode": "VARIABLE"},
}
OGG, MP3 = ["in.opus", "in.ogg"], ["constant.mp3", "average.mp3", "variable.mp3"]


@pytest.fixture(scope="module")
def speech(golden):
    """Some seconds of speech (S,), called 16 kHz."""
    return np.concatenate([golden[f"{index}.wav"] for index in range(3)] * 2)


@pytest.fixture(scope="module")
def whole(speech, tmp_path_factory):
    """The bytes of ``speech`` by name: each format, and each bit rate mode."""
    folder = tmp_path_factory.mktemp("whole")
    for name, options in SOUNDFILE.items():
        with soundfile.SoundFile(folder / name, "w", RATE, 1, **options) as file:
            for start in range(0, len(speech), 65_536):
                file.write(speech[start : start + 65_536])
    return {name: (folder / name).read_bytes() for name in SOUNDFILE}


@pytest.fixture
def put(tmp_path):
    """put(name, content) -> the path of a file."""

    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def refused(source, **options):
    with pytest.raises(MelcodecError) as caught:
        load(source, RATE, **options)
    return caught.value.message


def kept(source, span=WHOLE, member=""):
    with open_blocks(source, RATE, span, member, keep=True) as (_, blocks):
        return np.concatenate([np.empty(0, np.float32), *blocks])


def missing(file):
    """What is wrong with ``file``; empty when nothing is."""
    fault = survey(file).fault
    return fault.reason if fault else ""


def pages(content):
    """Where the pages of Ogg end."""
    ends, at = [], 0
    while content[at : at + 4] == b"OggS":
        table = content[at + 27 : at + 27 + content[at + 26]]
        at += 27 + len(table) + sum(table)
        ends.append(at)
    return ends


def checksum(page):
    """The CRC32 of RFC 3533, bit by bit."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc >> 31 else 0)
    return crc


# ---- what is whole


@pytest.mark.parametrize("name", SOUNDFILE)
def test_whole_files_pass_whatever_follows_them(whole, put, speech, name):
    samples = len(load(put(name, whole[name]), RATE))
    assert abs(samples - len(speech)) < 10
    for rest in (bytes(5000), b"TAG" + bytes(125), b"LIST", os.urandom(300)):
        assert abs(len(load(put(name, whole[name] + rest), RATE)) - samples) <= 200, rest[:9]  # bytes after wav may be sound


@pytest.mark.parametrize("options", [(), ("--max-delay", "0"), ("--framesize", "60"), ("--bitrate", "16")], ids=str)
def test_whole_files_of_opusenc_pass(whole, put, tmp_path, options):
    if shutil.which("opusenc") is None:
        pytest.skip("no opusenc on this machine: apt-get install opus-tools")
    subprocess.run(["opusenc", "--quiet", *options, put("in.wav", whole["in.wav"]), tmp_path / "out.opus"], check=True)
    content = (tmp_path / "out.opus").read_bytes()
    assert len(load(tmp_path / "out.opus", RATE)) > 6 * RATE
    for percent in (95, 70, 40):
        assert ": truncated: " in refused(put("cut.opus", content[: len(content) * percent // 100])), percent


@pytest.mark.parametrize(("name", "codec", "xing"), [
    ("a.opus", "libopus", "1"),
    ("a.mp3", "libmp3lame", "1"),
    ("b.mp3", "libmp3lame", "0"),  # the number of frames is written nowhere, but its last one is cut
])  # fmt: skip
def test_files_of_ffmpeg(speech, put, tmp_path, name, codec, xing):
    av = pytest.importorskip("av")
    rate = 48_000
    with av.open(str(tmp_path / name), "w", options={"write_xing": xing} if name.endswith("mp3") else {}) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(speech[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        fifo = av.AudioFifo()
        for part in resampler.resample(frame):
            fifo.write(part)
        while (part := fifo.read(stream.codec_context.frame_size, partial=True)) is not None:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    content = (tmp_path / name).read_bytes()
    assert load(tmp_path / name, rate).size >= len(speech) - 2000
    assert ": truncated: " in refused(put(name, content[: len(content) // 2]))


def test_chained_streams_pass(whole, put):
    for name in OGG:
        assert len(load(put(name, whole[name] * 2), RATE)) >= 6 * RATE
        assert ": truncated: " in refused(put(name, whole[name] + whole[name][:-9]))


# ---- what is cut


@pytest.mark.parametrize("name", OGG + MP3)
def test_a_cut_file_is_truncated_and_kept_up_to_there(whole, put, name):
    sound, content = load(put(name, whole[name]), RATE), whole[name]
    for percent in (90, 50, 33):
        cut = put(name, content[: len(content) * percent // 100])
        message = refused(cut)
        assert message.startswith(f"{cut}: truncated: "), message
        left = kept(cut)
        assert 0.7 * percent < 100 * len(left) / len(sound) < percent + 12  # pages hold a second
        assert np.array_equal(left[:-2000], sound[: len(left) - 2000])


@pytest.mark.parametrize("name", OGG)
def test_the_last_byte_of_ogg_is_missed_and_so_is_the_next_page(whole, put, name):
    content, ends = whole[name], pages(whole[name])
    assert ends[-1] == len(content)
    assert len(ends) > 5
    before = ends[-2]
    for stop in (-1, -10, before + 1, before + 3, before + 4, before + 20, before + 27, before + 28):
        assert ": truncated: " in refused(put(name, content[:stop])), stop
    # cut between two pages it is what an encoder writes that forgets the flag
    assert len(load(put(name, content[:before]), RATE)) > RATE
    # unless the last packet goes on
    table = ends[-3] + 27
    entries = content[ends[-3] + 26]
    goes_on = bytearray(content[:before])
    goes_on[table + entries - 1] = 255
    goes_on += bytes(255 - content[table + entries - 1])
    goes_on[ends[-3] + 22 : ends[-3] + 26] = bytes(4)
    goes_on[ends[-3] + 22 : ends[-3] + 26] = checksum(goes_on[ends[-3] :]).to_bytes(4, "little")
    assert "continues in another" in missing(put(name, bytes(goes_on)))


def test_a_long_tag_in_front_of_mp3(whole, put):
    size = 200_000
    tag = b"ID3\x04\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    content = whole["average.mp3"]
    assert len(load(put("in.mp3", tag + content), RATE)) == len(load(put("whole.mp3", content), RATE))
    assert ": truncated: " in refused(put("in.mp3", tag + content[: len(content) // 2]))


def test_an_mp3_may_lack_a_few_frames(whole, put):
    content = whole["constant.mp3"]
    samples = len(load(put("in.mp3", content), RATE))
    frame = len(content) * 576 // samples  # bytes
    left = len(load(put("in.mp3", content[:-frame]), RATE))
    assert samples - 4 * 1152 <= left < samples
    assert ": truncated: " in refused(put("in.mp3", content[: -12 * frame]))


@pytest.mark.parametrize("name", SOUNDFILE)
def test_a_stretch_before_the_damage_is_read_and_one_over_it_is_not(whole, put, name):
    sound = load(put(name, whole[name]), RATE)
    cut = put(name, whole[name][: len(whole[name]) // 2])
    assert np.array_equal(load(cut, RATE, Span(0.5, 1.0)), sound[RATE // 2 : RATE * 3 // 2])
    for span in (Span(0.5), Span(0.5, len(sound) / RATE - 0.6), Span(len(sound) / RATE - 0.5, 0.2)):
        message = refused(cut, span=span)
        assert any(words in message for words in (": truncated: ", "damaged after", "damaged before")), message
    left = kept(cut, Span(0.5))
    assert np.array_equal(left[:-2000], sound[RATE // 2 :][: len(left) - 2000])
    assert len(left) > RATE


@pytest.mark.parametrize("name", SOUNDFILE)
def test_members_urls_and_open_files_are_judged_as_files_are(whole, put, tmp_path, name):
    cut = put(name, whole[name][: len(whole[name]) // 2])
    reason = refused(cut).removeprefix(f"{cut}: ")
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        archive.add(cut, name)
    assert refused(tmp_path / "in.tar", member=name) == f"{tmp_path}/in.tar: {name}: {reason}"
    assert refused(cut.as_uri()) == f"{cut.as_uri()}: {reason}"
    assert np.array_equal(kept(tmp_path / "in.tar", member=name), kept(cut))
    assert np.array_equal(kept(cut.as_uri()), kept(cut))


def test_an_open_file_stays_where_it_is(whole):
    for name in ("in.ogg", "average.mp3", "in.wav"):
        file = io.BytesIO(whole[name][:-5000])
        file.seek(33)
        assert missing(file)
        assert file.tell() == 33


# ---- what the log of libsndfile does not tell


def chunk(name, content, order="little"):
    return name + len(content).to_bytes(4, order) + content + bytes(len(content) % 2)


def with_chunks(content, chunks):
    """A wav or aiff file, with ``chunks`` before its sound."""
    order, name = ("big", b"SSND") if content[:4] == b"FORM" else ("little", b"data")
    at = content.index(name)
    return content[:4] + (len(content) - 8 + len(chunks)).to_bytes(4, order) + content[8:at] + chunks + content[at:]


def written(speech, put, kind, **options):
    path = put(f"whole.{kind}", b"")
    soundfile.write(path, speech, RATE, format=kind, **options)
    return path.read_bytes()


TWENTY_TAGS = b"INFO" + b"".join(chunk(b"ICMT", b"words and words and " * 5) for _ in range(20))
COMMENTS = {
    "twenty tags": ("WAV", chunk(b"LIST", TWENTY_TAGS)),
    "one comment": ("WAV", chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"words and words and" * 100))),
    "not English": ("WAV", chunk(b"LIST", b"INFO" + chunk(b"ICMT", "\u8a9e".encode() * 640))),  # 1,920 bytes, fewer letters
    "wavex": ("WAVEX", chunk(b"LIST", TWENTY_TAGS)),
    "aiff": ("AIFF", chunk(b"ANNO", b"words and words and" * 120, "big")),
}


@pytest.mark.parametrize("name", COMMENTS)
def test_comments_that_fill_the_log_hide_nothing(speech, put, name):
    kind, chunks = COMMENTS[name]
    content = with_chunks(written(speech, put, kind), chunks)
    path = put("in.wav", content)
    with soundfile.SoundFile(path) as file:
        assert "should be" not in file.extra_info
        assert len(file.extra_info.encode()) > 2000
    assert len(load(path, RATE)) == len(speech)
    assert len(load(put("in.wav", content + b"LIST"), RATE)) == len(speech)
    sound = 2 * len(speech)
    for cut in (-2_000, -sound // 2):
        message = refused(put("in.wav", content[:cut]))
        assert ": truncated: " in message
        assert f"promises {sound + 8 * (kind == 'AIFF')} bytes" in message, message
    # what programs promise that write to a pipe
    at = content.index(b"SSND" if kind == "AIFF" else b"data") + 4
    streamed = put("in.wav", content[:at] + b"\x7f\xff\xff\xff"[:: 1 if kind == "AIFF" else -1] + content[at + 4 : -2_000])
    assert len(load(streamed, RATE)) == len(speech) - 1_000


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_wav_of_either_byte_order_is_judged(speech, put, endian):
    content = written(speech, put, "WAV", endian=endian)
    assert content[:4] == {"LITTLE": b"RIFF", "BIG": b"RIFX"}[endian]
    odd = chunk(b"more", b"odd", endian.lower())
    content = content[:12] + odd + content[12:]
    for tag in (b"", b"ID3\x04\0\0\0\0\0\x05hello"):
        assert missing(put("in.wav", tag + content)) == ""
        assert f"{2 * len(speech) - 3_000} are there" in missing(put("in.wav", tag + content[:-3_000]))


@pytest.mark.parametrize("kind", ["W64", "RF64"])
def test_sizes_of_64_bits_are_kept(speech, put, kind):
    content = written(speech, put, kind)
    assert len(load(put(f"in.{kind}", content), RATE)) == len(speech)
    assert len(load(put(f"in.{kind}", content + b"and more"), RATE)) >= len(speech)
    for cut in (-2_000, -len(speech)):
        path = put(f"in.{kind}", content[:cut])
        assert ": truncated: the header promises " + str(2 * len(speech)) in refused(path)
        assert np.array_equal(kept(path), load(put(f"a.{kind}", content), RATE)[: len(speech) + cut // 2])
    # more than 32 bits hold, and what programs promise that write to a pipe
    at = content.index(b"data") + 16 if kind == "W64" else content.index(b"ds64") + 16
    for promise, told in ((1 << 33, True), ((1 << 63) - 1, False), (0, False)):
        path = put("in", content[:at] + promise.to_bytes(8, "little") + content[at + 8 :])
        assert bool(missing(path)) is told, promise
        if not told:  # the sound goes on to the end
            assert len(load(path, RATE)) == len(speech)


@pytest.mark.parametrize("content", [
    b"",
    b"RIFF",
    b"riff" + bytes(60),
    b"junk    WAVE" + b"data\xff\xff\xff\0",
    b"RIFF    WAVE" + bytes(8 * 10_000) + b"data\xff\xff\xff\0",  # so many chunks are not looked at
    b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
])  # fmt: skip
def test_chunks_that_lead_nowhere_are_not_judged(put, content):
    assert missing(put("in.w64", content)) == ""
    assert missing(put("in.w64", b"RIFF    WAVEdata\xff\xff\xff\0"))


# ---- zeros in place of what is missing


@pytest.mark.parametrize("name", OGG)
@pytest.mark.parametrize("zeros", [1, 100, 300_000])
def test_ogg_that_zeros_complete_is_cut(whole, put, name, zeros):
    content, ends = whole[name], pages(whole[name])
    whole_page = ends[-3]
    for cut in (ends[-2] - 1_000, *(whole_page + more for more in (400, 28, 27, 26, 20, 4, 3))):
        assert ": truncated: " in refused(put(name, content[:cut] + bytes(ends[-2] - cut + zeros))), cut - whole_page
    assert ": truncated: " in refused(put(name, content[:-50] + bytes(50)))
    # zeros behind a whole page are no loss
    assert len(load(put(name, content + bytes(zeros)), RATE)) == len(load(put(name, content), RATE))
    assert len(load(put(name, content[: ends[-2]] + bytes(zeros)), RATE)) > RATE


@pytest.mark.parametrize("zeros", [1, 700, 60_000])
def test_zeros_between_the_tag_and_mp3(whole, put, zeros):
    tag, content = b"ID3\x04\0\0\0\0\0\x14" + bytes(20), whole["average.mp3"]
    path = put("in.mp3", tag + bytes(zeros) + content)
    assert len(load(path, RATE)) == len(load(put("whole.mp3", content), RATE))
    assert ": truncated: " in refused(put("in.mp3", path.read_bytes()[: -len(content) // 2]))


# ---- FLAC, block by block


def flac(put, samples, cut=0, damage=0):
    """A FLAC file of noise in blocks of 4,096 samples; without its last ``cut`` bytes; with ``damage`` zeros in its middle."""
    wave = np.random.default_rng(0).integers(-(2**14), 2**14, samples).astype(np.int16)
    path = put("x.flac", b"")
    soundfile.write(path, wave, RATE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + damage] = bytes(damage)
    return put("x.flac", content[: len(content) - cut]), wave / np.float32(32768)


@pytest.mark.parametrize("read", [base.READ_FRAMES, 10_000])
@pytest.mark.parametrize(("samples", "cut", "good"), [
    (400_000, 10, 97 * 4096),
    (400_000, 5000, 97 * 4096),
    (400_000, 12_000, 96 * 4096),
    (5_000, 10, 4096),
])  # fmt: skip
def test_damage_is_placed_and_all_before_it_is_kept(put, monkeypatch, read, samples, cut, good):
    monkeypatch.setattr(base, "READ_FRAMES", read)
    path, wave = flac(put, samples, cut)
    left = kept(path)
    assert len(left) // 4096 * 4096 == len(left)
    assert len(left) == good
    assert np.array_equal(left, wave[:good])
    message = refused(path)
    assert f"after {good / RATE:.2f} s" in message or f"{good} are there" in message
    late = Span((good - 1000) / RATE)
    assert np.array_equal(kept(path, late), wave[good - 1000 : good])
    assert np.array_equal(load(path, RATE, Span(late.start, 900 / RATE)), wave[good - 1000 : good - 100])


def test_damage_in_the_middle_is_placed(put):
    path, wave = flac(put, 400_000, damage=3000)
    left = kept(path)
    assert len(left) % 4096 == 0
    assert 0.45 < len(left) / len(wave) < 0.5
    assert np.array_equal(left, wave[: len(left)])
    assert f"damaged after {len(left) / RATE:.2f} s" in refused(path)
    # what lies behind it is sought, and damage further on is placed too
    content = path.read_bytes()
    cut = put("y.flac", content[:-10])
    behind = Span(16.0)
    assert np.array_equal(kept(cut, behind), wave[16 * RATE : 97 * 4096])
    assert f"damaged after {97 * 4096 / RATE:.2f} s" in refused(cut, span=behind)
