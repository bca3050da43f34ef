"""``melcodec prior``: language models over codes: train, score and draw from them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melcodec.cli import _live as live
from melcodec.cli import _options as options
from melcodec.cli._console import progress, say, stop_on_signals
from melcodec.cli._standard import input_file, is_standard, refuse_terminal
from melcodec.cli._steps import Steps
from melcodec.errors import MelcodecError
from melcodec.formats.shipped import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from melcodec.codec import Codec
    from melcodec.metrics.predictability import Score
    from melcodec.metrics.statistics import Estimate
    from melcodec.prior.models import Prior
    from melcodec.prior.sample import Loop, Sampling

prior_app = typer.Typer(no_args_is_help=True, help="Language models over codes: train them, score codes, draw new ones.")
CodesIn = Annotated[
    list[Path],
    typer.Argument(
        metavar="CODES",
        help="Folders that preprocess wrote, codes files or folders of them.",
        show_default=False,
        callback=options.named,
    ),
]
PriorFolder = Annotated[
    Path,
    typer.Argument(
        metavar="PRIOR",
        help="Folder that prior train wrote, or the name of a shipped one.",
        show_default=False,
        callback=options.named,
    ),
]
Valid = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="CODES",
        help="Held-out codes; may be repeated. Without it, some speakers of CODES are held out.",
        callback=options.named,
    ),
]
Preset = Annotated[str, typer.Option(help="tiny, light, small, base, mamba or ngram.")]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT", help="Folder for a picture of each utterance: bits of its codes under the mel.", callback=options.named
    ),
]
Seconds = Annotated[float, typer.Option(min=0.1, help="Length of each sample, its prompt included.")]
Prompt = Annotated[
    Path | None, typer.Option(metavar="IN", help="Sound or codes file that the samples continue; - is standard input.")
]
PromptSeconds = Annotated[float | None, typer.Option(min=0.05, help="Use only this much of the prompt's beginning.")]
Count = Annotated[int, typer.Option(min=1, help="Number of samples; for more than one, -o is a folder.")]
Temperature = Annotated[
    float, typer.Option(min=0.0, help="Values below 1 prefer probable codes; 0 always takes the most probable.")
]
TopP = Annotated[float, typer.Option(min=0.001, max=1.0, help="Draw from the most probable codes that together have this share.")]
CODES_PER_PICTURE = 1_000
SILENT_ABOVE_FLOOR = 55.0  # times the power of the mel floor: noise of -50 dB of full scale


@prior_app.command("train")
def prior_train(
    codes: CodesIn,
    output: options.FolderOutput,
    valid: Valid = None,
    preset: Preset = "small",
    config: options.Config = None,
    assignments: options.Assignments = None,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
) -> None:
    """Train a language model on codes, with n-gram baselines beside it.

    Ctrl-C finishes the step and saves; the same command continues from there. The folder gets the network as transformers
    saves it, the n-grams, index.html with curves and samples, and metrics.jsonl.
    """
    from melcodec.config import with_overrides
    from melcodec.prior.config import load_prior_preset, read_prior_config

    settings = with_overrides(read_prior_config(config) if config else load_prior_preset(preset), assignments or [])

    from melcodec.prior.run import Sources, train_prior
    from melcodec.prior.train import Hooks

    with stop_on_signals() as stopped, Steps(settings.train.steps) as steps:
        hooks = Hooks(steps.say, report_to(steps), lambda: bool(stopped))
        state = train_prior(Sources(codes, valid or [], checkpoint), settings, output, device, hooks)
    if int(os.environ.get("RANK", "0")):  # only the first of several processes prints
        raise typer.Exit(128 + stopped[0] if stopped else 0)
    if stopped and state is not None and state.progress.step < settings.train.steps:
        say(f"stopped at step {state.progress.step} of {settings.train.steps}; the same command continues from here")
        raise typer.Exit(128 + stopped[0])
    say(f"{output} is ready: melcodec prior sample {output} -o out.wav")


@prior_app.command("score")
def prior_score(
    folder: PriorFolder,
    codes: CodesIn,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    plot: Plot = None,
    as_json: options.AsJSON = False,
) -> None:
    """Bits per code and per second of codes under a prior, beside uniform, unigram, bigram and trigram.

    Score codes of speakers that the prior was not trained on. Intervals are 95 %, by resampling utterances.
    """
    from melcodec.prior.reading import check_space, read_codes
    from melcodec.prior.score import score_all
    from melcodec.prior.shipped import named_prior

    prior = named_prior(folder)
    corpus = read_codes(codes, checkpoint)
    check_space(corpus, prior.space, str(codes[0]))
    with progress("scoring") as update:
        scores = score_all(prior, corpus.codes, update)
    if plot is not None:
        from melcodec.codec import Codec

        codec = Codec.from_pretrained(checkpoint, "cpu")
        with progress("drawing") as update:
            for index, item in enumerate(corpus.items, start=1):
                draw_surprise(prior, codec, item.codes, plot / f"{item.id}.png", item.id)
                update(index, len(corpus.items))
        say(f"{plot}: {len(corpus.items)} pictures")
    if as_json:
        facts = {"utterances": len(corpus.items), "seconds": corpus.seconds, "scores": [asdict(each) for each in scores]}
        print(json.dumps(facts))
        return
    say(f"{len(corpus.items)} utterances, {corpus.seconds / 60:.1f} minutes, {scores[0].codes} codes")
    for line in score_lines(scores):
        print(line)


def score_lines(scores: list[Score]) -> list[str]:
    """A table of scores for a terminal."""
    lines = [f"{'model':<9}{'bits/code':>10}{'95 %':>16}{'bit/s':>9}{'95 %':>16}{'perplexity':>12}"]
    for each in scores:
        code, second = each.bits_per_code, each.bits_per_second
        ends = [_interval(code, 3), _interval(second, 1)]
        lines.append(f"{each.name:<9}{code.mean:>10.3f}{ends[0]:>16}{second.mean:>9.1f}{ends[1]:>16}{each.perplexity:>12.1f}")
    return lines


def _interval(found: Estimate, digits: int) -> str:
    return "" if found.low is None else f"{found.low:.{digits}f}-{found.high:.{digits}f}"


def draw_surprise(prior: Prior, codec: Codec, codes: np.ndarray, path: Path, title: str) -> None:
    """Write a picture of the bits of codes (Q, N), at most ``CODES_PER_PICTURE`` of them, under their mel."""
    import numpy as np

    from melcodec.plots import Scale, plot_surprise, save_figure

    shown = codes[:, :CODES_PER_PICTURE].astype(np.int64)
    mel = codec.decode_to_mel(shown)[0].cpu().numpy()
    uniform = float(np.log2(prior.space.sizes).sum())
    save_figure(plot_surprise(mel, prior.surprise(shown), uniform, Scale.of(codec.frontend), title), path)


@prior_app.command("sample")
def prior_sample(
    folder: PriorFolder,
    output: options.Output,
    seconds: Seconds = 8.0,
    count: Count = 1,
    prompt: Prompt = None,
    prompt_seconds: PromptSeconds = None,
    temperature: Temperature = 0.9,
    top_p: TopP = 0.95,
    seed: options.Seed = 0,
    checkpoint: options.Checkpoint = DEFAULT_CHECKPOINT,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Draw codes from a prior, from nothing or as the continuation of a prompt, and write sound or codes.

    The suffix of OUT decides what is written: .wav, .flac, .npy, .npz or .safetensors. With --count, OUT is a folder of .wav
    files. With -o - the sound goes to standard output while it is drawn, as a wav. Repetitions and silence are reported: models
    of codes tend to repeat one code or a sequence of them.
    """
    from melcodec.audio.io import WRITERS
    from melcodec.files import check_output
    from melcodec.formats.arrays import SUFFIXES

    streamed = is_standard(output) and count == 1
    if streamed:
        refuse_terminal()
    else:
        options.folder_only(output)
    paths = [output] if count == 1 else [output / f"{index}.wav" for index in range(count)]
    for path in () if streamed else paths:
        options.check_suffix(path, (*WRITERS, *SUFFIXES))
        check_output(path, overwrite)

    from melcodec.codec import Codec
    from melcodec.prior.sample import Sampling, sample
    from melcodec.prior.shipped import named_prior

    prior = named_prior(folder)
    codec = Codec.from_pretrained(checkpoint, device)
    if codec.fingerprint != prior.space.fingerprint:
        raise MelcodecError(
            f"{folder}: models codes of checkpoint {prior.space.fingerprint}, but {checkpoint} is {codec.fingerprint}",
            "give that checkpoint with --checkpoint",
        )
    begun = None if prompt is None else read_prompt(input_file(prompt), codec, prompt_seconds)
    num_codes = max(1, round(seconds * prior.space.code_rate))
    sampling, started = Sampling(temperature, top_p, seed), time.perf_counter()
    if streamed:
        drawn = [stream_sample(prior, codec, num_codes, begun, sampling)]
    else:
        with progress("drawing") as update:
            drawn = sample(prior, num_codes, [begun] * count, sampling, update)
    speed = sum(codes.shape[1] for codes in drawn) / prior.space.code_rate / (time.perf_counter() - started)
    for path, codes in zip(paths, drawn, strict=True):
        if not streamed:
            write_sample(path, codes, codec, overwrite)
        length = codes.shape[1] / prior.space.code_rate
        ended = ", ended by itself" if codes.shape[1] < num_codes else ""
        name = "standard output" if streamed else path
        say(f"{name}: {codes.shape[1]} codes, {length:.2f} s{ended}{loops_said(found_loops(codes, codec), codec.code_rate)}")
    say(f"{'drawn and decoded' if streamed else 'drawn'} at {speed:.1f} times real time")


def stream_sample(prior: Prior, codec: Codec, num_codes: int, prompt: np.ndarray | None, sampling: Sampling) -> np.ndarray:
    """Write the sound of one sample to standard output while it is drawn; its codes (Q, N)."""
    import numpy as np

    from melcodec.prior.sample import stream
    from melcodec.streaming.decoder import StreamingDecoder

    decoder, parts = StreamingDecoder(codec), list[np.ndarray]()

    def blocks() -> Iterator[np.ndarray]:
        for codes in stream(prior, num_codes, prompt, sampling):
            parts.append(codes)
            yield decoder.push(codes)[0].cpu().numpy()
        yield decoder.finish()[0].cpu().numpy()

    live.write_sound(blocks(), live.WAV, codec.sample_rate)
    return np.concatenate(parts, axis=1)


def found_loops(codes: np.ndarray, codec: Codec) -> list[Loop]:
    """Repetitions and silence in codes (Q, N); silent is what decodes to a mel near the floor in every band."""
    from melcodec.metrics.codes import silent_codes
    from melcodec.prior.sample import loops

    mel = codec.decode_to_mel(codes)[0].cpu().numpy()
    return loops(codes, silent_codes(mel, codec.frontend.floor * SILENT_ABOVE_FLOOR, codec.model.reach.stride))


def read_prompt(path: Path, codec: Codec, seconds: float | None) -> np.ndarray:
    """The codes (Q, P) of a sound or codes file, at most ``seconds`` of it."""
    from melcodec.formats.arrays import SUFFIXES
    from melcodec.store.codes import load_codes

    if path.suffix.lower() in SUFFIXES:
        codes = load_codes(path)
        codec.check_fingerprint(codes, str(path))
    else:
        codes = codec.encode_file(str(path))
    return codes.codes if seconds is None else codes.codes[:, : max(1, round(seconds * codec.code_rate))]


def write_sample(path: Path, codes: np.ndarray, codec: Codec, overwrite: bool) -> None:
    """Write codes (Q, N) as sound or as they are, by the suffix."""
    from melcodec.audio.io import WRITERS, save_blocks
    from melcodec.files import check_output
    from melcodec.store.codes import Codes, save_codes

    check_output(path, overwrite)
    if path.suffix.lower() in WRITERS:
        save_blocks(path, codec.decode_stream(codes), codec.sample_rate)
    else:
        save_codes(path, Codes(codes, None, None, codec.fingerprint, codec.sizes), overwrite)


def loops_said(found: list[Loop], code_rate: float) -> str:
    """Repetitions and silence in words; empty when there is none."""
    words = []
    for each in found:
        repeats = f"{each.period} codes repeat {each.length / max(each.period, 1):.1f} times"
        what = {0: "silence", 1: "one code is held"}.get(each.period, repeats)
        words.append(f"{what} from {each.start / code_rate:.1f} to {(each.start + each.length) / code_rate:.1f} s")
    return "; " + "; ".join(words) if words else ""


def report_to(steps: Steps) -> Callable[[str, int, dict[str, Any]], None]:
    """What is called with every metric line: shows bits and speed, and a line for every validation."""

    def report(kind: str, step: int, values: dict[str, Any]) -> None:
        if kind == "valid":
            steps.say(f"step {step}: {values['bits_per_code']:.3f} bits per held-out code")
            steps.pause()
        else:
            words = f"{values['bits_per_token']:.3f} bits per token, {values['tokens_per_second']:.0f} tokens/s"
            steps.step(step, lambda each: words)

    return report
