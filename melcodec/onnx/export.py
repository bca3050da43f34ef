"""From a codec to a folder of ONNX graphs, which are compared with torch before the folder is there.

torch's exporter that records what a call does is used: it takes a second. Its newer one takes another package, and ten
times as long, to write the same graph.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melcodec.audio.io import load
from melcodec.codec import Codec
from melcodec.config import GriffinLimConfig, LearnedVocoderConfig, LibraryConfig, MambaConfig, ModelConfig, VocoderConfig
from melcodec.errors import MelcodecError
from melcodec.formats.checkpoint import Checkpoint
from melcodec.onnx.check import compare
from melcodec.onnx.folder import DECODER, ENCODER, FACTS, METADATA_KEY, OPSET, VOCODER, Agreement, OnnxFacts, facts_text
from melcodec.onnx.graphs import CodesToMel, MelToMagnitude, MelToWave, WaveToCodes
from melcodec.vocoder.learned import LearnedVocoder

HALF_SECOND = 11_025  # samples of the wave that the exporter follows
SPEECH = ("lj_en.flac", "nathalie_nl.flac")
# a wheel carries the clips inside the package, a checkout beside it
FOLDERS = (Path(__file__).parents[1] / "speech", Path(__file__).parents[2] / "examples")


def export_onnx(checkpoint: Checkpoint, vocoder: VocoderConfig, folder: Path, speech: Sequence[Path] | None = None) -> OnnxFacts:
    """Write the graphs of ``checkpoint`` and ``vocoder`` to ``folder``, which is there only when they agree with torch.

    Args:
        speech: audio files on which graphs and torch are compared; None: two clips that come with melcodec.

    Returns:
        What the folder's ``melcodec.json`` says.

    Raises:
        MelcodecError: a kind of backbone or quantizer that cannot be exported, a package is missing, or the graphs differ.
    """
    check_packages()
    check_exportable(checkpoint.config)
    codec = Codec.from_checkpoint(checkpoint, "cpu", vocoder)
    waves = [torch.from_numpy(load(path, codec.sample_rate)) for path in speech or shipped_speech()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name[:32]}.", dir=folder.parent) as name:
        aside = Path(name)
        try:
            write_graphs(codec, aside)
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise MelcodecError(f"this model cannot be exported to ONNX: {reason}") from None
        facts = facts_of(codec, checkpoint, vocoder, compare(codec, aside, waves))
        (aside / FACTS).write_text(facts_text(facts), encoding="utf-8")
        for graph in (ENCODER, DECODER, VOCODER):
            add_metadata(aside / graph, {METADATA_KEY: json.dumps(facts.model_dump(mode="json"), sort_keys=True)})
        folder.mkdir(exist_ok=True)
        (folder / FACTS).unlink(missing_ok=True)  # until all is there, the folder is no export
        for graph in (ENCODER, DECODER, VOCODER, FACTS):
            shutil.move(aside / graph, folder / graph)
    return facts


def check_packages() -> None:
    """Raise MelcodecError where a package of the extra is missing."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MelcodecError(
            f"export-onnx needs the package {error.name}", 'pip install "melcodec[onnx]"', "needs-package"
        ) from None
    del onnx, onnxruntime


def check_exportable(config: ModelConfig) -> None:
    """Raise MelcodecError for a kind whose computation has no fixed graph."""
    if isinstance(config.backbone, MambaConfig):
        raise MelcodecError("a mamba backbone cannot be exported to ONNX: how often its scan repeats depends on the length")
    quantizer: Any = config.quantizer
    while hasattr(quantizer, "inner"):
        quantizer = quantizer.inner
    if isinstance(quantizer, LibraryConfig):
        raise MelcodecError("a quantizer of the library cannot be exported to ONNX: its code is not melcodec's")


def shipped_speech() -> list[Path]:
    """Clips of speech that come with melcodec."""
    found = [path for folder in FOLDERS for name in SPEECH if (path := folder / name).is_file()]
    if not found:
        raise MelcodecError("the clips of speech that come with melcodec are missing", "install melcodec again", "missing")
    return found


def write_graphs(codec: Codec, folder: Path) -> None:
    """Record the three graphs."""
    wave = torch.rand(2, HALF_SECOND) - 0.5
    lengths = torch.tensor([HALF_SECOND, HALF_SECOND // 2])
    encoder = WaveToCodes(codec.frontend, codec.model)
    _record(encoder, {"wave": wave, "lengths": lengths}, {"codes": "BQN", "code_lengths": "B"}, {"wave": "BS"}, folder / ENCODER)
    with torch.no_grad():
        codes, code_lengths = encoder(wave, lengths)
        decoder = CodesToMel(codec.frontend, codec.model)
        mel = decoder(codes, code_lengths)
    _record(decoder, {"codes": codes, "lengths": code_lengths}, {"mel": "BMT"}, {"codes": "BQN"}, folder / DECODER)
    if isinstance(codec.vocoder, LearnedVocoder):
        vocoder: nn.Module = MelToWave(codec.vocoder.network, codec.vocoder.refine)
        inside = {"mel": mel, "lengths": torch.tensor([mel.shape[-1] * codec.frontend.hop_length - 1, HALF_SECOND // 2])}
        _record(vocoder, inside, {"wave": "BS"}, {"mel": "BMT"}, folder / VOCODER)
    else:
        vocoder = MelToMagnitude(codec.frontend, codec.vocoder.nmf_iterations)  # type: ignore[attr-defined]
        _record(vocoder, {"mel": mel}, {"magnitude": "BFT"}, {"mel": "BMT"}, folder / VOCODER)


def _record(module: nn.Module, inputs: dict[str, Tensor], outputs: dict[str, str], axes: dict[str, str], path: Path) -> None:
    """Write one graph.

    Args:
        inputs: an example of each; ``lengths`` (B,) may be among them.
        outputs: the letters of each output's axes.
        axes: the letters of each input's.
    """
    letters = {"lengths": "B"} | axes | outputs
    dynamic = {
        name: {index: letter for index, letter in enumerate(letters[name]) if letter not in "QMF"} for name in (*inputs, *outputs)
    }
    torch.onnx.utils.register_custom_op_symbolic("aten::rms_norm", _rms_norm, OPSET)
    # the exporter prints the whole model when it fails
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # about sizes that the exporter takes for constants, which ``compare`` would find, and about its successor
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dynamic,
        )


@torch.onnx.symbolic_helper.parse_args("v", "is", "v", "f")
def _rms_norm(graph: Any, x: Any, shape: list[int], weight: Any, eps: float) -> Any:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, which ONNX names only from opset 23 on."""
    mean = graph.op("ReduceMean", graph.op("Mul", x, x), axes_i=[-1], keepdims_i=1)
    tiny = graph.op("Constant", value_t=torch.tensor(eps))
    return graph.op("Mul", graph.op("Div", x, graph.op("Sqrt", graph.op("Add", mean, tiny))), weight)


def add_metadata(path: Path, values: dict[str, str]) -> None:
    """Write ``values`` into the metadata of a graph."""
    import onnx

    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, values)
    onnx.save(graph, path)


def facts_of(codec: Codec, checkpoint: Checkpoint, vocoder: VocoderConfig, agreement: Agreement) -> OnnxFacts:
    """What ``melcodec.json`` is to say."""
    reach = codec.model.reach
    if isinstance(vocoder, LearnedVocoderConfig):  # a path of this machine says nothing elsewhere
        vocoder = vocoder.model_copy(update={"weights": Path(vocoder.weights).name})
    assert isinstance(vocoder, GriffinLimConfig | LearnedVocoderConfig)
    return OnnxFacts(
        fingerprint=checkpoint.fingerprint,
        model=checkpoint.config,
        mel_norms=checkpoint.mel_norms,
        sizes=codec.sizes,
        stride=reach.stride,
        encoder_halo=reach.encoder_halo,
        decoder_halo=reach.decoder_halo,
        longest=reach.longest,
        vocoder=vocoder,
        vocoder_reach=codec.vocoder.halo if isinstance(codec.vocoder, LearnedVocoder) else None,
        agreement=agreement,
    )
