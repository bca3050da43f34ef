"""What a tokenizer is measured beside: the original, the vocoder's ceiling, no quantizer, k-means, Codec2 and Opus."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from melcodec.audio.io import load, save
from melcodec.chunking import plan
from melcodec.codec import Codec
from melcodec.devices import exact_float32
from melcodec.errors import MelcodecError
from melcodec.evaluation.scores import Sound
from melcodec.evaluation.subjects import Subject, load_sound
from melcodec.metrics.waves import find_delay, resample
from melcodec.quantize.kmeans import kmeans, nearest

CODES, ORIGINAL, MEL, UNQUANTIZED, KMEANS, CODEC2, OPUS = "codes", "original", "mel", "unquantized", "kmeans", "codec2", "opus"
CODEC2_RATE, CODEC2_MODE, CODEC2_BITS = 8_000, "700C", 700.0  # Hz; bit/s, without the bits that fill up bytes
OPUS_BITS = 6_000.0  # bit/s, the least that opusenc accepts; without Ogg's own
PROGRAM_SECONDS = 120
FLOOR_VECTORS, FLOOR_FRAMES, FLOOR_ITERATIONS = 60_000, 160_000, 20  # 31 minutes of speech are enough for 60,000


@dataclass(frozen=True)
class System:
    """One way from a sound to a sound. ``bit_rate`` in bit/s; None where nothing is coded."""

    name: str
    label: str
    bit_rate: float | None


def plan_systems(codec: Codec, anchors: bool, floor: bool) -> tuple[list[System], dict[str, str]]:
    """The systems to measure, and the ones that cannot be, with the reason.

    Args:
        anchors: measure more than the codes.
        floor: there is speech to learn a k-means codebook from.
    """
    own = System(CODES, f"codes, {codec.bitrate:.0f} bit/s", codec.bitrate)
    if not anchors:
        return [own], {}
    systems, absent = [own], {}
    systems.append(System(UNQUANTIZED, "the same network, quantizer bypassed", None))
    if not floor:
        absent[KMEANS] = "it is learned from other speech: give some with --train"
    elif codec.num_codebooks > 1:
        absent[KMEANS] = "it is made for one codebook"
    else:
        systems.append(System(KMEANS, f"k-means over mel vectors, {codec.bitrate:.0f} bit/s", codec.bitrate))
    for name, programs, label, rate in (
        (CODEC2, ("c2enc", "c2dec"), "Codec2, 700 bit/s", CODEC2_BITS),
        (OPUS, ("opusenc",), "Opus, 6 kbit/s", OPUS_BITS),
    ):
        lacking = [program for program in programs if not shutil.which(program)]
        if lacking:
            absent[name] = f"the program '{lacking[0]}' is not installed"
        else:
            systems.append(System(name, label, rate))
    systems.append(System(MEL, "the mel untouched, vocoder only", None))
    systems.append(System(ORIGINAL, "the original", None))
    return systems, absent


class Workshop:
    """Makes each system's output of a sound.

    Args:
        floor: (K, stride * M) k-means codebook of mel supervectors, or None.
        audible: whether sound is wanted, or the mel alone.
    """

    def __init__(self, codec: Codec, floor: np.ndarray | None, audible: bool) -> None:
        self.codec, self.audible = codec, audible
        self.floor = None if floor is None else torch.from_numpy(floor)

    def original(self, wav: np.ndarray) -> Sound:
        """(S,) float32 at the codec's rate -> Sound."""
        return Sound(wav, self.codec.sample_rate, self.codec.mel(wav)[0].cpu().numpy())

    def encode(self, original: Sound) -> np.ndarray:
        """-> codes (Q, N) int64."""
        return self.codec.encode_mel(torch.from_numpy(original.mel)[None])[0].cpu().numpy()

    def output(self, system: str, original: Sound, codes: np.ndarray) -> Sound:
        """What ``system`` makes of ``original``, whose codes (Q, N) are known."""
        if system == ORIGINAL:
            return original
        if system in (CODEC2, OPUS):
            code = through_codec2 if system == CODEC2 else through_opus
            return self._in_step(original.heard, code(original.heard, original.rate))
        mel = torch.from_numpy(original.mel)[None]
        match system:
            case "codes":
                made = self.codec.decode_to_mel(codes)
            case "unquantized":
                made = unquantized(self.codec, mel)
            case "kmeans":
                assert self.floor is not None
                made = through_kmeans(self.floor, mel, self.codec.model.reach.stride)
            case _:
                made = mel
        made = made[..., : mel.shape[-1]]
        wav = self.sound(made, len(original.heard)) if self.audible else None
        return Sound(wav, self.codec.sample_rate, made[0].cpu().numpy())

    def _in_step(self, original: np.ndarray, wav: np.ndarray) -> Sound:
        """A foreign codec's wave without its delay and as long as the original, so that mel frames correspond."""
        delay = find_delay(original, wav, self.codec.sample_rate)
        wav = np.pad(wav[max(0, delay) :], (max(0, -delay), 0))[: len(original)]
        sound = self.original(np.pad(wav, (0, len(original) - len(wav))))
        return replace(sound, moved=delay)

    @torch.inference_mode()
    def sound(self, mel: Tensor, num_samples: int) -> np.ndarray:
        """Natural log-mel (1, M, T) -> (S,) float32 in [-1, 1]."""
        audible = torch.minimum(mel.contiguous(), self.codec.frontend.loudest[:, None])
        return self.codec.vocoder(audible, num_samples)[0].clamp(-1, 1).cpu().numpy()


@torch.inference_mode()
def unquantized(codec: Codec, mel: Tensor) -> Tensor:
    """Natural log-mel (1, M, T) -> (1, M, stride N) through encoder and decoder, leaving out the codebook."""
    reach, total = codec.model.reach, mel.shape[-1]
    bounded = reach.encoder_halo is not None and reach.decoder_halo is not None
    halo = (reach.encoder_halo or 0) + reach.stride * (reach.decoder_halo or 0)
    pieces = []
    for chunk in plan(total, codec.chunk_codes if bounded else total, halo, reach.stride):
        window = codec.frontend.normalize(mel[..., chunk.read_start : chunk.read_stop].to(codec.device))
        with exact_float32(codec.device):
            made = codec.model.decoder(codec.model.encode_latents(window))
        pieces.append(made[..., chunk.kept.start * reach.stride : chunk.kept.stop * reach.stride])
    return codec.frontend.denormalize(torch.cat(pieces, dim=-1))


def through_kmeans(floor: Tensor, mel: Tensor, stride: int) -> Tensor:
    """Natural log-mel (1, M, T) -> (1, M, stride N): every ``stride`` frames the nearest of ``floor`` (K, stride * M)."""
    frames = mel.shape[-1]
    padded = torch.nn.functional.pad(mel, (0, -frames % stride), mode="replicate")
    vectors = padded[0].T.reshape(-1, stride * mel.shape[1])
    return floor[nearest(vectors, floor.T)].reshape(-1, mel.shape[1]).T[None]


def learn_floor(codec: Codec, speech: Sequence[Subject], seed: int, update: Callable[[int, int], None]) -> np.ndarray:
    """k-means over supervectors of training speech -> (K, stride * M) float32: the plainest tokenizer of this bit rate.

    Files are taken in an order that ``seed`` decides until there are enough; unreadable ones are passed over.

    Raises:
        MelcodecError: none can be read.
    """
    rng, stride = np.random.default_rng(seed), codec.model.reach.stride
    mels: list[np.ndarray] = []
    frames = 0
    for index in rng.permutation(len(speech)):
        try:
            mels.append(codec.mel(load_sound(speech[index], codec.sample_rate))[0].cpu().numpy().T)
        except MelcodecError:
            continue
        frames += len(mels[-1])
        update(min(frames, FLOOR_FRAMES), FLOOR_FRAMES)
        if frames >= FLOOR_FRAMES:
            break
    if frames <= stride:
        raise MelcodecError("no speech in --train can be read", "give a folder of audio files")
    joined = np.concatenate(mels)
    starts = np.sort(rng.choice(len(joined) - stride, min(FLOOR_VECTORS, len(joined) - stride), replace=False))
    vectors = torch.from_numpy(np.stack([joined[start : start + stride].reshape(-1) for start in starts]))
    centres, _ = kmeans(vectors, codec.codebook_size, FLOOR_ITERATIONS, torch.Generator().manual_seed(seed))
    return centres.numpy()


def through_codec2(wav: np.ndarray, rate: int) -> np.ndarray:
    """(S,) at ``rate`` Hz through Codec2 at 700 bit/s and 8 kHz -> (S',) at ``rate``."""
    with tempfile.TemporaryDirectory() as name:
        raw, bits, out = (Path(name, file) for file in ("in.raw", "bits", "out.raw"))
        low = resample(wav, rate, CODEC2_RATE)
        raw.write_bytes((np.clip(low, -1, 1) * 32_767).astype("<i2").tobytes())
        _run("c2enc", CODEC2_MODE, str(raw), str(bits))
        _run("c2dec", CODEC2_MODE, str(bits), str(out))
        made = np.frombuffer(out.read_bytes(), "<i2").astype(np.float32) / 32_768
    if not len(made):
        raise MelcodecError("Codec2 gave no sound: too short")
    return resample(made, CODEC2_RATE, rate)


def through_opus(wav: np.ndarray, rate: int) -> np.ndarray:
    """(S,) at ``rate`` Hz through Opus at 6 kbit/s, 60 ms frames -> (S',) at ``rate``."""
    with tempfile.TemporaryDirectory() as name:
        plain, coded = Path(name, "in.wav"), Path(name, "out.opus")
        save(plain, wav, rate)
        bits = f"{OPUS_BITS / 1000:g}"
        _run("opusenc", "--quiet", "--hard-cbr", "--framesize", "60", "--bitrate", bits, str(plain), str(coded))
        return load(coded, rate)


def _run(program: str, *arguments: str) -> None:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=PROGRAM_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise MelcodecError(f"{program} took over {PROGRAM_SECONDS} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise MelcodecError(f"{program} failed: {words[-1] if words else f'status {done.returncode}'}")
