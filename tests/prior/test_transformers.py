"""A prior's folder is one of the transformers library: it loads, scores and generates there as it does here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from melcodec.prior.models import save_prior
from melcodec.prior.sample import Sampling, sample
from tests.prior.conftest import NETWORKS, SIZE, make_prior, spoken_codes

transformers = pytest.importorskip("transformers")
KINDS = ["llama", "mamba"]


@pytest.fixture(params=KINDS)
def saved(request, tmp_path):
    """A prior with Q = 1, and the model that the library makes of its folder alone."""
    prior = make_prior(request.param)
    save_prior(tmp_path, prior)
    return prior, transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_the_library_generates_the_same_codes(saved):
    """With its own cache and its own rules for the end, from begin and from a prompt, as long as one window."""
    prior, model = saved
    length, tokens = NETWORKS["llama"].context - 2, prior.tokens
    for prompt in (None, *(codes[:, :5] for codes in spoken_codes(6, 4))):
        begin = [tokens.begin, *([] if prompt is None else prompt[0])]
        count = length - (len(begin) - 1)
        out = model.generate(
            torch.tensor([begin]), max_new_tokens=count, do_sample=False, suppress_tokens=[tokens.begin, tokens.pad]
        )
        line = out[0, 1:].tolist()
        (wanted,) = sample(prior, length, [prompt], Sampling(temperature=0))
        assert [token for token in line if token != tokens.end] == wanted[0].tolist()
    assert model.generation_config.eos_token_id == tokens.end
    assert model.generation_config.pad_token_id == tokens.pad


def test_the_library_gives_the_same_probabilities(saved):
    prior, model = saved
    codes = spoken_codes(1, 5)[0][:, : NETWORKS["llama"].context - 1]
    with torch.inference_mode():
        logits = model(torch.tensor([[prior.tokens.begin, *codes[0]]])).logits[0, :-1, :SIZE].double()
    bits = -logits.log_softmax(-1).numpy()[np.arange(codes.shape[1]), codes[0]] / np.log(2)
    assert prior.surprise(codes)[0] == pytest.approx(bits, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_flattened_codebooks_are_ordinary_tokens(kind, tmp_path):
    """Q = 2 in the flat pattern is a sequence like any other: ``labels`` of the library give the loss of our tokens."""
    prior = make_prior(kind, (SIZE, 16))
    save_prior(tmp_path, prior)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    sequence = torch.from_numpy(prior.tokens.sequence(spoken_codes(1, 5, 6, (SIZE, 16))[0][:, :6]))[:, 0]
    with torch.inference_mode():
        loss = model(sequence[None], labels=sequence[None]).loss.double()
    whole = np.concatenate(list(prior.logits(prior.tokens.codes(sequence[1:-1, None].numpy()))))
    logs = torch.from_numpy(whole).log_softmax(-1)
    ours = -logs[torch.arange(12), sequence[1:-1]]
    last = -model(sequence[None]).logits[0, -2].double().log_softmax(-1)[prior.tokens.end].detach()
    assert loss.item() == pytest.approx(torch.cat([ours, last[None]]).mean().item(), abs=1e-4)
