"""Compare melcodec with Coqui's own XTTS code at full size, on real speech: ``make parity``.

Needs coqui-tts, which ``make parity`` installs into an environment of its own. Prints a table and exits with status 1 when
a line fails. ``--speed`` measures wav -> codes instead.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from TTS.tts.layers.tortoise.arch_utils import TorchMelSpectrogram
from TTS.tts.layers.xtts.dvae import DiscreteVAE

from melcodec.audio.io import load
from melcodec.audio.mel import build_frontend
from melcodec.config import load_preset, xtts_mel_norms
from melcodec.formats.checkpoint import Checkpoint
from melcodec.formats.xtts import DVAE_FILE, MEL_STATS_FILE, export_xtts, import_xtts
from melcodec.quantize.kmeans import kmeans
from melcodec.vqvae import VQVAE

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_RATE = 22_050
PARAMETERS = 51_567_184
FRAME_COUNTS = (*range(1, 18), 100, 101, 102, 103, 833)
SAMPLE_COUNTS = (513, 1023, 1024, 1025, 2047, 2048)
TRAIN_STEPS = 8
# as XTTS v2 builds it; every other argument is the class's default
XTTS = {
    "channels": 80,
    "normalization": None,
    "positional_dims": 1,
    "num_tokens": 1024,
    "codebook_dim": 512,
    "hidden_dim": 512,
    "num_resnet_blocks": 3,
    "kernel_size": 3,
    "num_layers": 2,
    "use_transposed_convs": False,
}


@dataclass(frozen=True)
class Row:
    """One line of the table: ``measured`` must not exceed ``tolerance``."""

    check: str
    measured: float
    tolerance: float
    remark: str = ""

    @property
    def passed(self) -> bool:
        return self.measured <= self.tolerance  # False for NaN, too


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, as a share of the largest magnitude."""
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))


def differing(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> int:
    """Tensors that are missing on one side, or differ in shape, dtype or a single bit."""
    same = sum(k in theirs and v.dtype == theirs[k].dtype and torch.equal(v, theirs[k]) for k, v in ours.items())
    return len(ours.keys() | theirs.keys()) - same


def speech() -> dict[str, Tensor]:
    """(1, S) at 22.05 kHz by name."""
    return {path.stem: torch.from_numpy(load(path, SAMPLE_RATE))[None] for path in sorted((ROOT / "examples").glob("*.flac"))}


def crops(mels: list[Tensor], batch: int, frames: int, seed: int) -> Tensor:
    """Random crops (batch, 80, frames) of mels (1, 80, T)."""
    generator = torch.Generator().manual_seed(seed)
    picked = []
    for _ in range(batch):
        mel = mels[int(torch.randint(len(mels), (), generator=generator))]
        start = int(torch.randint(mel.shape[-1] - frames + 1, (), generator=generator))
        picked.append(mel[0, :, start : start + frames])
    return torch.stack(picked)


def reference_mel(folder: Path) -> TorchMelSpectrogram:
    path = folder / "norms.pth"
    torch.save(torch.tensor(xtts_mel_norms(), dtype=torch.float32), path)
    return TorchMelSpectrogram(mel_norm_file=str(path), sampling_rate=SAMPLE_RATE)


def random_reference(mels: list[Tensor]) -> DiscreteVAE:
    """Coqui's class with fresh weights."""
    torch.manual_seed(0)
    return with_speech_codebook(DiscreteVAE(**XTTS).eval(), mels)


@torch.no_grad()
def with_speech_codebook(model: DiscreteVAE, mels: list[Tensor]) -> DiscreteVAE:
    """``model`` with a codebook on its latents of speech, so that many codes are in use."""
    latents = torch.cat([model.encoder(mel[..., shift:])[0].T for mel in mels for shift in range(4)])
    centres, counts = kmeans(latents, XTTS["num_tokens"], 5, torch.Generator().manual_seed(0))
    model.codebook.embed.copy_(centres.T)
    model.codebook.cluster_size.copy_(counts)
    model.codebook.embed_avg.copy_(centres.T * counts)
    return model


def short_trained(model: DiscreteVAE, mels: list[Tensor]) -> DiscreteVAE:
    """A copy of ``model`` after a few steps of Coqui's own training, and its codebook on the latents as they are then."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    for step in range(TRAIN_STEPS):
        reconstruction, commitment, _ = model(crops(mels, 8, 128, seed=step))
        optimizer.zero_grad()
        (reconstruction.mean() + commitment).backward()
        optimizer.step()
    optimizer.zero_grad()
    return with_speech_codebook(model.eval(), mels)


def compare_files(theirs: DiscreteVAE, folder: Path) -> tuple[Checkpoint, list[Row]]:
    """dvae.pth in, and out again."""
    torch.save(theirs.state_dict(), folder / DVAE_FILE)
    checkpoint = import_xtts(folder / DVAE_FILE).checkpoint
    export_xtts(checkpoint, folder / "out")
    exported = torch.load(folder / "out" / DVAE_FILE, weights_only=True)
    loaded = DiscreteVAE(**XTTS)
    loaded.load_state_dict(exported, strict=True)
    norms = torch.load(folder / "out" / MEL_STATS_FILE, weights_only=True)
    own = checkpoint.build().state_dict()
    named = {key: value for key, value in theirs.state_dict().items() if not key.startswith("discrete_loss.")}
    parameters = sum(p.numel() for p in checkpoint.build().parameters())
    return checkpoint, [
        Row("import: keys, shapes, dtypes, values", differing(own, named), 0, f"{len(named)} tensors, strict load"),
        Row(
            "export: strict load into Coqui's class",
            differing(loaded.state_dict(), theirs.state_dict()),
            0,
            f"{len(exported)} keys",
        ),
        Row("export: mel_stats.pth", differing({"": norms}, {"": torch.tensor(xtts_mel_norms())}), 0),
        Row("parameters", abs(parameters - PARAMETERS), 0, f"{parameters:,}"),
    ]


@torch.inference_mode()
def compare_inference(ours: VQVAE, theirs: DiscreteVAE, mels: dict[str, Tensor]) -> Iterator[Row]:
    """Latents, codes and decoding of whole clips, and of every critical length."""
    latents, flips, decoded, used, margin = 0.0, 0, 0.0, set(), float("inf")
    for mel in mels.values():
        latents = max(latents, relative(ours.encode_latents(mel), theirs.encoder(mel)))
        codes = theirs.get_codebook_indices(mel)
        flips += int((ours.encode(mel)[:, 0] != codes).sum())
        decoded = max(decoded, relative(ours.decode(codes[:, None]), theirs.decode(codes)[0]))
        used |= set(codes.flatten().tolist())
        margin = min(margin, narrowest_margin(theirs, mel))
    yield Row("latents", latents, 1e-5, f"{len(mels)} clips")
    yield Row("codes that differ", flips, 0, f"{len(used)} distinct codes; narrowest margin {margin:.0e}")
    yield Row("decode from equal codes", decoded, 1e-5)

    longest = torch.cat(list(mels.values()), dim=-1)
    wrong = 0
    for frames in FRAME_COUNTS:
        mel = longest[..., :frames]
        codes, wanted = ours.encode(mel), theirs.get_codebook_indices(mel)
        wrong += not torch.equal(codes[:, 0], wanted) or codes.shape[-1] != -(-frames // 4)
        wrong += ours.decode(codes).shape != theirs.decode(wanted)[0].shape
    yield Row("codes and lengths at T = 1..17, 100..103, 833", wrong, 0)


def narrowest_margin(theirs: DiscreteVAE, mel: Tensor) -> float:
    """The smallest gap between the two nearest codewords' distances, as a share of the distance."""
    flat, embed = theirs.encoder(mel)[0].T, theirs.codebook.embed
    distances = (flat.pow(2).sum(1, keepdim=True) - 2 * flat @ embed + embed.pow(2).sum(0)).topk(2, largest=False).values
    return float(((distances[:, 1] - distances[:, 0]) / distances[:, 1].abs().clamp(min=1e-30)).min())


def compare_training(ours: VQVAE, theirs: DiscreteVAE, mel: Tensor) -> Iterator[Row]:
    """One step from equal weights on mel (B, 80, T): the sum of both losses, as in the fine-tuning scripts."""
    ours, theirs = copy.deepcopy(ours).train(), copy.deepcopy(theirs).train()
    reconstruction, commitment, theirs_out = theirs(mel)
    (reconstruction.mean() + commitment).backward()
    output = ours(mel)
    own_reconstruction = torch.nn.functional.mse_loss(output.reconstruction, mel)
    own_commitment = output.quantized.losses["commitment"]
    (own_reconstruction + own_commitment).backward()
    ours.quantizer.update([output.quantized.moments], 0, torch.Generator())

    yield Row(
        "step: reconstruction loss", relative(own_reconstruction, reconstruction.mean()), 1e-5, f"{reconstruction.mean():.4f}"
    )
    yield Row("step: commitment loss", relative(own_commitment, commitment), 1e-5, f"{commitment:.4f}")
    yield Row("step: output", relative(output.reconstruction, theirs_out), 1e-5)
    grads = {key: value.grad for key, value in theirs.named_parameters()}
    worst = max(relative(value.grad, grads[key]) for key, value in ours.named_parameters())
    yield Row("step: gradients, the worst tensor", worst, 1e-5, f"{len(grads)} tensors")
    for key in ("embed", "cluster_size", "embed_avg"):
        yield Row(f"step: {key} after", relative(getattr(ours.codebook, key), getattr(theirs.codebook, key)), 1e-5)


@torch.inference_mode()
def compare_mels(theirs: TorchMelSpectrogram, wavs: dict[str, Tensor]) -> Iterator[Row]:
    """The front end on whole clips and on critical lengths."""
    frontend = build_frontend(load_preset("xtts").model.mel, xtts_mel_norms())
    worst = max(float((frontend.normalize(frontend(wav)) - theirs(wav)).abs().max()) for wav in wavs.values())
    yield Row("mel, largest difference", worst, 1e-6, "bit-equal" if worst == 0 else "")
    wav = next(iter(wavs.values()))
    wrong = sum(
        not torch.equal(frontend.normalize(frontend(wav[:, :s])), theirs(wav[:, :s])) or frontend.num_frames(s) != s // 256 + 1
        for s in SAMPLE_COUNTS
    )
    yield Row(f"mel at S = {', '.join(map(str, SAMPLE_COUNTS))}", wrong, 0)


def print_rows(title: str, rows: list[Row]) -> bool:
    """Print a table; True when every row passed."""
    print(f"\n{title}\n{'check':<46} {'measured':>9} {'allowed':>8}  result")
    for row in rows:
        result = "ok" if row.passed else "FAILED"
        print(f"{row.check:<46} {row.measured:>9.2g} {row.tolerance:>8.2g}  {result:<6} {row.remark}".rstrip())
    return all(row.passed for row in rows)


def parity() -> bool:
    """Print every table; True when all rows passed."""
    wavs = speech()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mel_of = reference_mel(folder)
        passed = print_rows("mel front end", list(compare_mels(mel_of, wavs)))
        mels = {key: mel_of(wav) for key, wav in wavs.items()}
        # not a whole number of hops later, so that the codebook was not made of just these latents
        unheard = {key: mel_of(wav[:, 391:]) for key, wav in wavs.items()}
        random = random_reference(list(mels.values()))
        trained = short_trained(random, list(mels.values()))
        for title, theirs in (("random weights", random), (f"after {TRAIN_STEPS} steps of Coqui's training", trained)):
            (folder / title).mkdir()
            checkpoint, rows = compare_files(theirs, folder / title)
            ours = checkpoint.build()
            rows += compare_inference(ours, theirs, unheard)
            rows += compare_training(ours, theirs, crops(list(unheard.values()), 16, 128, seed=99))
            passed &= print_rows(title, rows)
    return passed


def speed(rounds: int) -> None:
    """Wav -> codes over 50 clips of 2 to 6 s: Coqui's loop, file by file, against Codec.encode_many, alternating."""
    from melcodec.codec import Codec

    long = torch.cat(list(speech().values()), dim=-1)[0]
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2 * SAMPLE_RATE, 6 * SAMPLE_RATE, (50,), generator=generator).tolist()
    starts = [int(torch.randint(len(long) - length, (), generator=generator)) for length in lengths]
    clips = [long[start : start + length] for start, length in zip(starts, lengths, strict=True)]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mel_of = reference_mel(folder)
        theirs = random_reference([mel_of(wav) for wav in speech().values()])
        codec = Codec.from_checkpoint(compare_files(theirs, folder)[0], device="cpu")

    def coqui() -> list[Tensor]:
        with torch.inference_mode():
            return [theirs.get_codebook_indices(mel_of(clip[None])) for clip in clips]

    def own() -> list[Tensor]:
        return codec.encode_many(clips)

    differing_clips = sum(not torch.equal(a, b) for a, b in zip(coqui(), own(), strict=True))  # warms both up, too
    times: dict[str, list[float]] = {"coqui": [], "melcodec": []}
    for _ in range(rounds):
        for label, run in (("coqui", coqui), ("melcodec", own)):
            start = time.perf_counter()
            run()
            times[label].append(time.perf_counter() - start)
    seconds = sum(lengths) / SAMPLE_RATE
    ratios = [theirs_s / ours_s for theirs_s, ours_s in zip(times["coqui"], times["melcodec"], strict=True)]
    print(f"\nwav -> codes, XTTS size, {len(clips)} clips, {seconds:.0f} s of speech, median of {rounds} alternating rounds")
    for label, measured in times.items():
        middle = statistics.median(measured)
        print(f"{label:<10} {middle:6.2f} s  {seconds / middle:6.0f} x real time")
    print(f"melcodec is {statistics.median(ratios):.2f} times as fast; clips whose codes differ: {differing_clips}")


def main() -> int:
    """Run what was asked for; 1 when a comparison failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed", action="store_true", help="measure speed instead of comparing")
    parser.add_argument("--rounds", type=int, default=7, help="of the speed measurement")
    options = parser.parse_args()
    print(f"coqui-tts {version('coqui-tts')}, torch {torch.__version__}, {torch.get_num_threads()} threads, float32 on the CPU")
    if options.speed:
        speed(options.rounds)
        return 0
    passed = parity()
    print("\nall equal" if passed else "\nNOT EQUAL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
