"""Fingerprints: literal values that must never change, what decides them and what does not."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from pydantic import Field

from melcodec.config import ConvConfig, EMAConfig, MelConfig, ModelConfig, xtts_mel_norms
from melcodec.config.base import NOT_IN_CODES, Settings
from melcodec.formats.checkpoint import Checkpoint, load_checkpoint
from melcodec.formats.fingerprint import code_settings, fingerprint
from melcodec.formats.shipped import find_checkpoint
from melcodec.vqvae import build_vqvae

EMA_BUFFERS = ("codebook.cluster_size", "codebook.embed_avg")

NORMS = xtts_mel_norms()
XTTS = ModelConfig()
SMALL_MEL = ModelConfig(mel=MelConfig(sample_rate=16_000, f_max=7_600.0))
SMALL = ModelConfig(
    backbone=ConvConfig(hidden=8, num_blocks=1), dim=64, quantizer=EMAConfig(codebook_size=256, decay=0.9, eps=1e-4)
)


def exact_weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    """The model's state, filled with numbers that every machine computes alike."""
    state = build_vqvae(config).state_dict()
    return {key: (torch.arange(value.numel()) % 251 / 256).reshape(value.shape) for key, value in state.items()}


@pytest.fixture(scope="module")
def small():
    return exact_weights(SMALL)


# A change here means that every code stored so far is refused by the checkpoint that made it.


def test_the_shipped_checkpoint():
    assert load_checkpoint(find_checkpoint("melcodec-base")).fingerprint == "cee889cb2045"


def test_the_golden_checkpoint(tiny_checkpoint):
    assert load_checkpoint(tiny_checkpoint).fingerprint == "68153f9fd3af"


@pytest.mark.parametrize(
    ("config", "expected"),
    [(XTTS, "e99d108ae492"), (SMALL_MEL, "6d2ecd79b4be"), (SMALL, "7d436863c17c")],
    ids=["xtts", "16 kHz", "small"],
)
def test_conv_and_ema(config, expected):
    assert Checkpoint(config, NORMS, exact_weights(config)).fingerprint == expected


# Kinds that are not there yet, as others will add them.


class ToyConfig(Settings):
    kind: Literal["toy"] = "toy"
    levels: tuple[int, ...] = (8, 5, 5)
    beta: float = Field(0.25, json_schema_extra=NOT_IN_CODES)


class StackedConfig(Settings):
    kind: Literal["stacked"] = "stacked"
    stages: tuple[ToyConfig | EMAConfig, ...] = (ToyConfig(),)


class ToyMelConfig(MelConfig):
    log: Literal["natural", "decibel"] = "natural"


class ToyConv(ConvConfig):
    causal: bool = False


class ToyModel(ModelConfig):
    mel: MelConfig = MelConfig()
    backbone: ConvConfig = ConvConfig()
    quantizer: EMAConfig | ToyConfig | StackedConfig = EMAConfig()


def of(tensors, **groups) -> str:
    return fingerprint(ToyModel(**groups), NORMS, tensors, EMA_BUFFERS)


def test_another_kind_has_a_literal_value_too(small):
    assert of(small, quantizer=ToyConfig()) == "8acdff04c877"
    assert of(small, quantizer=StackedConfig(stages=(ToyConfig(levels=(4, 4)), EMAConfig()))) == "cc3474c0d436"


def test_the_kind_and_the_settings_that_decide_codes_count(small):
    values = [
        of(small),
        of(small, quantizer=ToyConfig()),
        of(small, quantizer=ToyConfig(levels=(8, 6, 5))),
        of(small, quantizer=StackedConfig()),
        of(small, quantizer=StackedConfig(stages=(ToyConfig(), ToyConfig()))),
        of(small, quantizer=StackedConfig(stages=(ToyConfig(levels=(8, 6, 5)),))),
        of(small, quantizer=StackedConfig(stages=(EMAConfig(),))),
        of(small, backbone=ToyConv(causal=True)),
        of(small, mel=ToyMelConfig(log="decibel")),
    ]
    assert len(set(values)) == len(values)


def test_what_only_training_uses_and_what_shapes_tell_do_not_count(small):
    assert of(small, quantizer=EMAConfig(decay=0.5, eps=1e-3, codebook_size=7)) == of(small)
    assert of(small, backbone=ConvConfig(hidden=7, num_blocks=9)) == of(small)
    assert of(small, quantizer=ToyConfig(beta=1)) == of(small, quantizer=ToyConfig())
    stages = (ToyConfig(beta=1), EMAConfig(decay=0.5))
    plain = of(small, quantizer=StackedConfig(stages=(ToyConfig(), EMAConfig())))
    assert of(small, quantizer=StackedConfig(stages=stages)) == plain


def test_a_new_setting_with_its_default_changes_nothing(small):
    assert of(small, mel=ToyMelConfig(), backbone=ToyConv()) == of(small) == fingerprint(SMALL, NORMS, small, EMA_BUFFERS)


def test_tensors_of_other_kinds_count_unless_they_are_the_decoders_or_for_training(small):
    toy = {"encoder.w": torch.ones(2, 3), "codebook.stages.0.embed": torch.ones(6), "codebook.in.bias": torch.ones(1)}
    beside = {"decoder.w": torch.ones(2), "codebook.stages.0.count": torch.ones(2)}
    name = fingerprint(ToyModel(quantizer=ToyConfig()), NORMS, toy)

    def again(tensors, training_only=()):
        return fingerprint(ToyModel(quantizer=ToyConfig()), NORMS, tensors, training_only)

    assert again({**beside, **toy}, {"codebook.stages.0.count"}) == name
    assert again({**beside, **toy}) != name
    for key, value in toy.items():
        assert again({**toy, key: value * 2}) != name, key
        assert again({**toy, key: value.reshape(-1, 1, 1)}) != name, f"the shape of {key}"
        assert again({**toy, key: value.double()}) != name, f"the type of {key}"


def test_every_setting_of_the_model_is_thought_about():
    """Whoever adds a setting says here whether it decides codes: forgetting it would invalidate or mix codes."""
    marked = {
        group: {name for name, field in getattr(XTTS, group).__class__.model_fields.items() if field.json_schema_extra}
        for group in ("mel", "backbone", "quantizer")
    }
    marked["quantizer"] -= {"temperature", "code_dim", "rule"}
    assert marked == {"mel": set(), "backbone": {"hidden", "num_blocks"}, "quantizer": {"codebook_size", "decay", "eps"}}
    assert code_settings(XTTS) == {}
    assert code_settings(SMALL) == {}
