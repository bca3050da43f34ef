"""Every file gives all of its sound, equal to what ffmpeg decodes, or an error. ``pytest -s`` prints how many did which."""

import subprocess
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
from scipy import signal

from melcodec.audio.io import load, probe
from melcodec.errors import MelcodecError

from .matrix_files import Case, derived, encoded, header_faults, missing_tools

AT_ONCE = 40  # files that one ffmpeg decodes
SLOPPY_SECONDS = 0.004  # by which lengths may differ: a decoder of opus works at 48 kHz, sox pads voc
JOINT_SAMPLES = 4_000  # that mp3 files may have more or less where one follows the other: encoders' delay, and a header's frame
ERROR = 0.02  # of the waves' norm
# opus is decoded at different rates; of mp3 at 24 kHz ffmpeg 5.1 gives something else than libmpg123, lame and the original
LARGER = {".opus": 0.35, ".webm": 0.35, "24000.mp3": 0.15}
LEAST_FILES = 300


@pytest.fixture(scope="module")
def cases(golden, tmp_path_factory):
    """All files, as Case."""
    if "ffmpeg" in missing_tools():
        pytest.skip("no ffmpeg on this machine: apt-get install ffmpeg")
    folder = tmp_path_factory.mktemp("matrix")
    wav = np.concatenate([golden["0.wav"].reshape(-1), golden["1.wav"].reshape(-1)])[: 2 * 22_050]
    whole = encoded(folder, wav, 22_050, find_spec("av") is not None)
    return [*(Case(path, (path,)) for path in whole), *derived(folder, whole), *header_faults(folder, whole)]


def read(case):
    """Its wave (S,) and rate, or the error."""
    try:
        rate = probe(case.path).sample_rate
        return load(case.path, rate), rate
    except MelcodecError as error:
        return error, 0


def decoded(wanted, folder):
    """What ffmpeg makes of files: {(path, rate): (S,) the mean of the channels}, empty where it gives nothing."""
    wanted, waves = list(wanted), {}
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        if not _decode(some, folder, waves):
            for one in some:
                _decode([one], folder, waves)
    return waves


def _decode(some, folder, waves):
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-y"]
    for path, _ in some:
        command += ["-threads", "1", "-i", path]
    for index, (_, rate) in enumerate(some):
        command += ["-map", f"{index}:a:0", "-c:a", "pcm_f32be", "-ar", str(rate), "-f", "au", folder / f"{index}.au"]
    done = subprocess.run(command, check=False)
    for index, key in enumerate(some):
        file = folder / f"{index}.au"
        content = file.read_bytes() if file.exists() else b""
        file.unlink(missing_ok=True)
        start, channels = int.from_bytes(content[4:8], "big"), int.from_bytes(content[20:24], "big") or 1
        waves[key] = np.frombuffer(content[start:], ">f4").reshape(-1, channels).mean(axis=1)
    return done.returncode == 0


def error_of(path, rate):
    return LARGER.get(path.suffix, LARGER.get(f"{rate}{path.suffix}", ERROR))


def same(wav, other, rate, error):
    """Whether two waves are equal in length and form."""
    if abs(len(wav) - len(other)) > SLOPPY_SECONDS * rate:
        return False
    length = min(len(wav), len(other))
    return np.linalg.norm(wav[:length] - other[:length]) <= error * np.linalg.norm(other[:length])


def joined(wav, waves, error):
    """Whether ``wav`` is ``waves`` one after another, with up to JOINT_SAMPLES between them."""
    start = 0
    for wave in waves:
        inside = slice(JOINT_SAMPLES // 2, len(wave) - JOINT_SAMPLES // 2)
        wanted = wave[inside]
        begin = max(0, start + inside.start - JOINT_SAMPLES)
        found = wav[begin : start + inside.stop + JOINT_SAMPLES]
        if len(found) < len(wanted):
            return False
        at = int(signal.correlate(found, wanted, "valid", "fft").argmax())
        if np.linalg.norm(found[at : at + len(wanted)] - wanted) > error * np.linalg.norm(wanted):
            return False
        start = begin + at - inside.start + len(wave)
    return abs(len(wav) - start) <= JOINT_SAMPLES


@pytest.mark.slow
def test_every_file_gives_all_of_its_sound_or_an_error(cases, tmp_path):
    results = [(case, *read(case)) for case in cases]
    heard = [(case, rate) for case, _, rate in results if rate]
    theirs = decoded({(path, rate): None for case, rate in heard for path in (case.path, *case.parts)}, tmp_path)
    wrong, counts = [], Counter()
    for case, outcome, rate in results:
        if isinstance(outcome, MelcodecError):
            assert outcome.message.startswith(f"{case.path}: ")
            counts[f"refused, {outcome.code}"] += 1
            if case.expect == "all":
                wrong.append(f"{case.path.name}: {outcome.message}")
            continue
        own, parts = theirs[case.path, rate], [theirs[path, rate] for path in case.parts]
        length, error = sum(map(len, parts)), error_of(case.path, rate)
        as_ffmpeg = same(outcome, own, rate, error if case.form else np.inf)
        counts["equal to what ffmpeg decodes" if as_ffmpeg else "equal to what it was made of"] += 1
        equal = as_ffmpeg or same(outcome, np.concatenate(parts), rate, error)
        equal = equal or (case.path.suffix == ".mp3" and len(parts) > 1 and joined(outcome, parts, error))
        short = case.complete and len(outcome) < length - SLOPPY_SECONDS * rate * len(parts)
        if case.expect == "error" or not equal or short:
            wrong.append(f"{case.path.name}: {len(outcome)} samples, ffmpeg {len(own)}, what it was made of {length}")
    print(f"\n{len(cases)} files:", *(f"  {number:4} {what}" for what, number in counts.most_common()), sep="\n")
    assert not wrong, "\n".join(wrong)
    if not missing_tools() and find_spec("av") is not None:
        assert len(cases) >= LEAST_FILES
