"""The files of the matrix test: formats, codecs, rates, layouts, header faults, cuts and damage, made with what is installed."""

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

TOOLS = ("ffmpeg", "sox", "lame", "opusenc", "oggenc", "flac")
RATES = (8_000, 22_050, 44_100, 96_000)
MPEG_RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
CHECKED = (".ogg", ".opus", ".oga", ".flac")  # formats with checksums: damage is always seen


@dataclass(frozen=True)
class Case:
    """A file, what it was made of, and what must become of it.

    ``expect`` is "all", "error" or "either". ``complete`` says that no sound of ``parts`` was taken away,
    ``form`` that it was not damaged where no checksum tells, of which every decoder makes something else.
    """

    path: Path
    parts: tuple[Path, ...]
    expect: str = "all"
    complete: bool = True
    form: bool = True


def missing_tools():
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def run(*command, **options):
    subprocess.run([str(word) for word in command], check=True, stderr=subprocess.DEVNULL, **options)


def encoded(folder, wav, rate, with_av):
    """Whole files (paths) of speech ``wav`` (S,) at ``rate`` Hz."""
    sources = {}
    for channels in (1, 2, 6):
        sources[channels] = folder / f"source{channels}.wav"
        gains = np.linspace(1, 0.4, channels)
        soundfile.write(sources[channels], wav[:, None] * gains, rate, subtype="PCM_16")
    made = _ffmpeg(folder, sources, with_av)
    for tool in ("sox", "lame", "opusenc", "oggenc", "flac"):
        if shutil.which(tool):
            made += globals()[f"_{tool}"](folder, sources)
    return made


def _ffmpeg(folder, sources, with_av):
    """One process writes them all."""
    wanted = []  # (name, channels, options)
    for rate in RATES:
        for channels in (1, 2, 6):
            for suffix in ("wav", "aiff", "au", "caf", "w64", "flac"):
                wanted.append((f"{rate}.{channels}.{suffix}", channels, ["-ar", rate]))
    for codec in (
        "pcm_u8",
        "pcm_s24le",
        "pcm_s32le",
        "pcm_f32le",
        "pcm_f64le",
        "pcm_mulaw",
        "pcm_alaw",
        "adpcm_ms",
        "adpcm_ima_wav",
    ):
        wanted.append((f"{codec}.wav", 1, ["-c:a", codec]))
    wanted += [
        ("rf64.wav", 1, ["-rf64", "always"]),
        ("s24.aiff", 1, ["-c:a", "pcm_s24be"]),
        ("f32.caf", 1, ["-c:a", "pcm_f32be"]),
    ]
    for rate in MPEG_RATES:
        for channels in (1, 2):
            for xing in (0, 1):
                name = f"{rate}.{channels}.{'tagged' if xing else 'bare'}.mp3"
                wanted.append((name, channels, ["-ar", rate, "-q:a", 4, "-write_xing", xing]))
    for rate in (16_000, 22_050, 48_000):
        for channels in (1, 2):
            wanted.append((f"{rate}.{channels}.ogg", channels, ["-ar", rate, "-c:a", "libvorbis"]))
    wanted += [(f"{channels}.opus", channels, ["-c:a", "libopus", "-ar", 48_000]) for channels in (1, 2)]
    wanted += [(f"{rate}.mp2", 1, ["-ar", rate]) for rate in (22_050, 48_000)]
    if with_av:
        for rate in (22_050, 48_000):
            for channels in (1, 2):
                for suffix in ("m4a", "mka", "aac", "wma"):
                    wanted.append((f"{rate}.{channels}.{suffix}", channels, ["-ar", rate]))
        wanted += [("fast.m4a", 1, ["-movflags", "+faststart"]), ("alac.m4a", 1, ["-c:a", "alac"])]
        wanted += [("opus.webm", 1, ["-ar", 48_000]), ("flac.mka", 2, ["-c:a", "flac"]), ("48000.ac3", 2, ["-ar", 48_000])]
        wanted += [("speex.spx", 1, ["-c:a", "libspeex", "-ar", 16_000]), ("mp3.wav", 1, ["-c:a", "libmp3lame", "-ar", 44_100])]
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y"]
    for path in sources.values():
        command += ["-i", path]
    for name, channels, options in wanted:
        command += [
            "-map",
            list(sources).index(channels),
            *options,
            *(["-f", "wav"] if name == "rf64.wav" else []),
            folder / name,
        ]
    run(*command)
    return [folder / name for name, *_ in wanted]


def _sox(folder, sources):
    names = ["sox.aiff", "sox.au", "sox.voc", "sox.sph", "sox.w64", "sox.caf"]
    for name in names:
        run("sox", "-D", sources[1], folder / name)
    run("sox", "-D", sources[1], "-r", 8_000, "-e", "gsm", folder / "gsm.wav")
    with (folder / "soxpipe.wav").open("wb") as pipe:
        run("sox", "-D", sources[2], "-t", "wav", "-", stdout=pipe)
    return [folder / name for name in (*names, "gsm.wav", "soxpipe.wav")]


def _lame(folder, sources):
    made = []
    for channels in (1, 2):
        for name, options in (("V4", ["-V4"]), ("bare", ["-V4", "-t"]), ("b64", ["-b", 64]), ("abr", ["--abr", 80])):
            made.append(folder / f"lame.{channels}.{name}.mp3")
            run("lame", "--quiet", *options, sources[channels], made[-1])
    return made


def _opusenc(folder, sources):
    made = []
    for name, options in (
        ("plain", []),
        ("low", ["--bitrate", 16]),
        ("long", ["--framesize", 60]),
        ("short", ["--max-delay", 0]),
    ):
        made.append(folder / f"opusenc.{name}.opus")
        run("opusenc", "--quiet", *options, sources[1], made[-1])
    return made


def _oggenc(folder, sources):
    for channels in (1, 2):
        run("oggenc", "-Q", sources[channels], "-o", folder / f"oggenc.{channels}.ogg")
    return [folder / f"oggenc.{channels}.ogg" for channels in (1, 2)]


def _flac(folder, sources):
    run("flac", "-s", "-f", sources[2], "-o", folder / "flac.flac")
    run("flac", "-s", "-f", "--ogg", sources[1], "-o", folder / "flac.oga")
    with (folder / "pipe.flac").open("wb") as pipe, sources[1].open("rb") as source:
        run("flac", "-s", "-c", "-", stdin=source, stdout=pipe)
    return [folder / name for name in ("flac.flac", "flac.oga", "pipe.flac")]


KINDS = ("44100.2.wav", "22050.1.aiff", "22050.2.au", "22050.1.caf", "22050.1.w64", "rf64.wav", "pcm_mulaw.wav", "44100.2.flac",
         "flac.oga", "48000.1.ogg", "oggenc.2.ogg", "1.opus", "opusenc.plain.opus", "44100.2.tagged.mp3", "44100.2.bare.mp3",
         "lame.1.V4.mp3", "lame.1.bare.mp3", "sox.voc", "sox.sph", "48000.1.m4a", "fast.m4a", "48000.2.mka", "opus.webm",
         "48000.1.aac")  # fmt: skip


def derived(folder, whole):
    """Cases made of one file of each kind: cut, damaged, joined, with tags."""
    cases = []
    for path in (path for path in whole if path.name in KINDS):
        content, middle = path.read_bytes(), path.stat().st_size // 2
        checked = path.suffix in CHECKED

        def put(name, made, *more, path=path):
            (folder / f"{name}.{path.name}").write_bytes(made)
            cases.append(Case(folder / f"{name}.{path.name}", *more))

        for percent in (30, 60, 90):
            put(f"cut{percent}", content[: len(content) * percent // 100], (path,), "error", False)
        put(
            "hole",
            content[:middle] + bytes(300) + content[middle + 300 :],
            (path,),
            "error" if checked else "either",
            False,
            checked,
        )
        put("lost", content[:middle] + content[middle + 1_500 :], (path,), "either", False)
        put("twice", content * 2, (path, path), "all" if checked or path.suffix == ".mp3" else "either")
        put("tag", content + b"TAG" + bytes(125), (path,), "either" if path.suffix in (".aac", ".mka") else "all")
        put("zeros", content + bytes(3_000), (path,), "either")
        if path.suffix in (".mp3", ".flac", ".ogg", ".wav"):
            put(
                "id3",
                b"ID3\x04\0\0\0\0\x07\x76" + bytes(1_014) + content,
                (path,),
                "either" if path.name == "rf64.wav" else "all",
            )
    return cases


def header_faults(folder, whole):
    """Cases whose header says something else than what is there, and others that are not what they seem."""
    files = {path.name: path for path in whole}
    cases = []

    def put(name, made, parts, expect="all", complete=True):
        (folder / name).write_bytes(made)
        cases.append(Case(folder / name, tuple(parts), expect, complete))

    for name, chunk, form in (("44100.2.wav", b"data", "<I"), ("22050.1.aiff", b"SSND", ">I"), ("22050.1.caf", b"data", ">Q")):
        path, content = files[name], files[name].read_bytes()
        at, size = content.index(chunk) + 4, struct.calcsize(form)
        for said, promise, expect in (("none", 0, "all"), ("few", 20_000, "error"), ("most", 2 ** (8 * size - 1) - 1, "all")):
            put(f"{said}.{name}", content[:at] + struct.pack(form, promise) + content[at + size :], [path], expect)
        put(f"list.{name}", content + b"LIST\x00\x00\x04\x00" + bytes(1024), [path], "either")
    path, content = files["22050.2.au"], files["22050.2.au"].read_bytes()
    for said, promise in (("none", 0), ("few", 20_000), ("most", 0xFFFF_FFFF)):
        put(f"{said}.au", content[:8] + struct.pack(">I", promise) + content[12:], [path])
    path, content = files["44100.2.flac"], files["44100.2.flac"].read_bytes()
    for said, promise in (("none", 0), ("few", 20_000)):
        total = int.from_bytes(content[18:26], "big") >> 36 << 36 | promise
        put(f"{said}.flac", content[:18] + total.to_bytes(8, "big") + content[26:], [path])
    tagged, bare = files["44100.1.tagged.mp3"], files["44100.1.bare.mp3"]
    put("tagged-bare.mp3", tagged.read_bytes() + bare.read_bytes(), [tagged, bare])
    put("bare-tagged.mp3", bare.read_bytes() + tagged.read_bytes(), [bare, tagged])
    stereo, slow = files["44100.2.bare.mp3"], files["22050.1.bare.mp3"]
    put("mono-stereo.mp3", bare.read_bytes() + stereo.read_bytes(), [bare, stereo])
    put("rates.mp3", bare.read_bytes() + slow.read_bytes(), [bare, slow], "error")
    mono, both = files["48000.1.ogg"], files["48000.2.ogg"]
    put("mono-stereo.ogg", mono.read_bytes() + both.read_bytes(), [mono, both])
    put("rates.ogg", mono.read_bytes() + files["16000.1.ogg"].read_bytes(), [mono], "error")
    put("codecs.ogg", mono.read_bytes() + files["1.opus"].read_bytes(), [mono, files["1.opus"]], "either")
    put("flac.wav", content, [path])
    put("wav.flac", files["44100.2.wav"].read_bytes(), [files["44100.2.wav"]])
    if "48000.1.m4a" in files:
        for name in ("m4a.wav", "m4a.mp3", "m4a.flac"):
            put(name, files["48000.1.m4a"].read_bytes(), [files["48000.1.m4a"]])
        put("ogg.m4a", mono.read_bytes(), [mono])
    return cases
